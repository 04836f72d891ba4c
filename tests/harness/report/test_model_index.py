"""The model-index of a card: read back by huggingface_hub, one model a label, whole data sets alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from typer.testing import CliRunner

from harness.cli import app
from harness.compare.compare import compare
from harness.data.types import Skipped
from harness.errors import MsbenchError
from harness.record.protocol import Protocol
from harness.record.record import Record, write_record
from harness.record.schema import SampleCounts
from harness.report.model_index import model_index
from tests.harness.conftest import MakeRun


def whole(record: Record, **info: Any) -> Record:
    """The record as of a whole data set that is no demo set; `info` are other fields of its facts."""
    counts = info.pop("n_samples", SampleCounts(60, 60, 60))
    excluded, changes = info.pop("excluded", ()), info.pop("changes", {})
    facts = record.data.dataset
    about = replace(facts.info, **{"demo": False, **info})
    facts = replace(facts, info=about, n_samples=counts, excluded=excluded)
    return write_record(record.folder, replace(record.data, dataset=facts, **changes))


def test_the_hub_s_own_reader_finds_what_the_run_measured(tmp_path: Path, make_run: MakeRun) -> None:
    record = whole(make_run(tmp_path / "a", {"vae": 0.0, "fast_one": 0.1}))
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "a"), "--format", "model-index"])
    assert done.exit_code == 0, done.output
    models = yaml.safe_load(done.stdout)["model-index"]
    assert [one["name"] for one in models] == ["vae", "fast_one"]
    for model, row in zip(models, record.results, strict=True):
        name, results = model_index_to_eval_results([model])
        measured = {key: row[key] for key in record.data.metrics if row[key] is not None}
        assert {one.metric_type: one.metric_value for one in results} == measured
        assert "psnr" in measured
        (one,) = [one for one in results if one.metric_type == "psnr"]
        assert (one.task_type, one.dataset_type, one.dataset_name) == ("image-to-image", "photos", "photos, 256 px")
        assert one.dataset_args == {"n": 60, "protocol_hash": record.protocol_hash, "resolution": 256}
        assert one.metric_args == {"definition": record.data.metrics["psnr"].definition}
        assert eval_results_to_model_index(name, results) == [model]  # nothing that the hub does not keep


def test_a_card_with_it_is_a_model_card(tmp_path: Path, make_run: MakeRun) -> None:
    text = model_index(compare([(whole(make_run(tmp_path / "a", {"vae": 0.0})), None)]))
    card = ModelCard(f"---\n{text}---\n# vae\n")
    assert isinstance(card.data, ModelCardData)
    assert card.data.model_name == "vae"
    assert {one.metric_type for one in card.data.eval_results or ()} >= {"psnr", "ssim", "lpips"}
    again = ModelCardData(model_name="vae", eval_results=card.data.eval_results)
    assert yaml.safe_load(again.to_yaml()) == yaml.safe_load(text)


def test_a_hostile_label_stays_one_text(tmp_path: Path, make_run: MakeRun) -> None:
    label = "x: {a}\n- &b !!python/object \u202eevil # '\""
    text = model_index(compare([(whole(make_run(tmp_path / "a", {label: 0.0})), None)]))
    (model,) = yaml.safe_load(text)["model-index"]
    assert model["name"] == "x: {a}\\n- &b !!python/object \\u202eevil # '\""
    assert "\u202e" not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"demo": True}, "photos is a demo set"),
        ({"n_samples": SampleCounts(100, 60, 60)}, "60 images of a set of 100"),
        ({"n_samples": SampleCounts(60, 60, 59), "excluded": (Skipped("a.png", "it failed"),)}, "59 images of a set of 60"),
        ({"partial": True}, "60 images of a set of more"),
        ({"changes": {"status": "shard"}}, "its status is shard"),
        ({"changes": {"status": "quality"}}, "its status is quality"),
        (
            {"changes": {"protocol": (noisy := Protocol(latent_noise=0.1)), "protocol_hash": noisy.hash()}},
            "noise was added to its latents",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_part_of_a_data_set_is_refused(changes: dict[str, Any], words: str, tmp_path: Path, make_run: MakeRun) -> None:
    record = whole(make_run(tmp_path / "a", {"vae": 0.0}), **changes)
    with pytest.raises(MsbenchError, match=words) as caught:
        model_index(compare([(record, None)]))
    assert str(caught.value).startswith(str(tmp_path / "a"))
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "a"), "--format", "model-index"])
    assert (done.exit_code, done.stdout) == (2, "")


def test_options_without_a_meaning_are_refused(tmp_path: Path, make_run: MakeRun) -> None:
    make_run(tmp_path / "a", {"vae": 0.0})
    for option in (["--columns", "psnr"], ["--published"]):
        done = CliRunner().invoke(app, ["compare", str(tmp_path / "a"), "--format", "model-index", *option])
        assert done.exit_code == 2
        assert "leave out --columns and --published" in done.stderr
