"""A row explained: what is computed from what is there, what is missing, and faults of what comes from outside."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.errors import MsbenchError, UnknownNameError
from harness.explain import pairs
from harness.explain.explanation import Explanation, explain
from harness.explain.registry import CONVENTIONS, METRICS, USERS
from harness.explain.sources import Sources
from harness.metrics.inception import WIDTH
from harness.record.run import FEATURES, open_run
from harness.run.independence import seeded
from tests.harness.explain.conftest import FEW, Saved, make_run, needs, value
from tests.harness.run.light import LightSuite

ROOT = Path(__file__).resolve().parents[3]
PER_IMAGE = ("psnr", "ssim")


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["explain", *arguments], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def found(small_run: Saved) -> Explanation:
    return explain(small_run.run, "jpeg", metrics=PER_IMAGE)


@pytest.fixture
def copied(small_run: Saved, tmp_path: Path) -> Path:
    shutil.copytree(small_run.run, tmp_path / "run")
    return tmp_path / "run"


def alter(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((folder / "record.json").read_text())
    change(data)
    (folder / "record.json").write_text(json.dumps(data))


def test_names_are_unique_and_every_user_has_a_link_and_a_use() -> None:
    names = [(one.metric, one.name) for one in CONVENTIONS]
    assert len(set(names)) == len(names)
    assert {user for one in CONVENTIONS for user in one.users} == set(USERS)
    assert all(url.startswith("https://") for url in USERS.values())
    assert set(METRICS) == {"rfid", "kid", "psnr", "ssim", "lpips"}


def test_values_shifts_and_sources(found: Explanation, small_run: Saved) -> None:
    assert (found.label, found.n, found.noise_seed) == ("jpeg", FEW, 0)
    for one in found.findings:
        assert (one.value is None) == one.source.startswith("needs ") == (one.shift is None)
    assert value(found, "psnr", "range 1 on [-1, 1]") == pytest.approx(found.protocol["psnr"] - 20 * np.log10(2))
    of = {one.convention.name: one for one in found.findings if one.convention.metric == "ssim"}
    assert of["grey"].shift == pytest.approx(of["grey"].value - found.protocol["ssim"])
    assert (of["grey"].source, of["padded for 8 processes"].source) == ("saved images", "samples")
    rows = explain(small_run.run, "jpeg", metrics=("psnr",))
    assert [one.value for one in rows.findings] == [one.value for one in found.findings if one.convention.metric == "psnr"]


def test_what_is_missing_is_said(found: Explanation, copied: Path, tmp_path: Path) -> None:
    assert "more than 5,000 images; the run has 6" in needs(found, "ssim", "first 5,000 images")
    assert "--redo" in needs(found, "ssim", "decoder in bf16")
    (tmp_path / "images" / "reference").mkdir(parents=True)
    alter(copied, lambda data: data["config"].update(save_images=str(tmp_path / "images")))
    bare = explain(copied, "jpeg", metrics=PER_IMAGE)
    assert f"{2 * FEW} are missing" in needs(bare, "psnr", "Y, full range")
    with pytest.raises(MsbenchError, match=r"--images .*: saved images: 12 are missing"):
        explain(copied, "jpeg", metrics=PER_IMAGE, images=tmp_path / "images")
    assert value(bare, "psnr", "dB of the mean error") < bare.protocol["psnr"]


def test_a_run_without_features_images_or_a_metric(copied: Path) -> None:
    (copied / FEATURES).unlink()
    alter(copied, lambda data: data["config"].update(save_images=None))
    alter(copied, lambda data: [row.update(ssim=None) for row in data["results"]])
    alter(copied, lambda data: [one["noise"]["per_seed"]["0"].update(ssim=None) for one in data["decoders"].values()])
    found = explain(copied, "jpeg")
    assert "features.safetensors" in needs(found, "kid", "× 1,000")
    assert "--save-images" in needs(found, "rfid", "clean-fid's resize")
    assert "measured ssim" in needs(found, "ssim", "grey")
    assert "--statistics" in needs(found, "rfid", "statistics of a file")


def test_images_of_another_run_are_refused(small_run: Saved, tmp_path: Path) -> None:
    for changed, picture in (("jpeg", (64, 64)), ("reference", (64, 64)), ("jpeg", (32, 64))):
        images = shutil.copytree(small_run.images, tmp_path / f"{changed}{picture[0]}")
        first = sorted((images / changed).iterdir())[0]
        Image.new("RGB", picture, (9, 9, 9)).save(first)
        with pytest.raises(MsbenchError, match=f"{first.name} is another one"):
            explain(small_run.run, "jpeg", metrics=("psnr",), images=images)


def test_rows_are_named_by_label(small_run: Saved) -> None:
    assert explain(small_run.run, "bicubic", metrics=("psnr",)).label == "bicubic"
    with pytest.raises(MsbenchError, match="holds jpeg, bicubic: name one, as"):
        explain(small_run.run)
    with pytest.raises(UnknownNameError, match="Did you mean 'jpeg'"):
        explain(small_run.run, "jpg")
    with pytest.raises(UnknownNameError, match="Did you mean 'psnr'"):
        explain(small_run.run, "jpeg", metrics=("psnrr",))


def test_redone_images_are_the_runs_own(small_run: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    """JPEG gives whole levels: rounding, truncating and floats agree with the run; the other inputs do not."""
    from harness.explain import sources

    class NoNetwork:
        def pooled(self, inputs: Any) -> Any:
            return inputs.mean(dim=(2, 3))

    monkeypatch.setattr(sources.Sources, "_network", NoNetwork())
    monkeypatch.setattr(sources.pairs, "lpips", lambda one, other: 0.5)  # of the images made again
    monkeypatch.setattr(sources, "rfid_value", lambda one, other: 1.0)
    found = explain(small_run.run, "jpeg", metrics=PER_IMAGE, redo=True)
    assert value(found, "psnr", "floats, not rounded") == pytest.approx(found.protocol["psnr"], abs=1e-4)
    assert value(found, "ssim", "floats, not rounded") == pytest.approx(found.protocol["ssim"], abs=1e-5)
    assert "option of decoder" in needs(found, "psnr", "posterior sample instead of mode")
    assert "the run's own fp32" in needs(found, "psnr", "decoder in fp32")
    squashed = value(found, "psnr", "input squashed")
    assert abs(squashed - found.protocol["psnr"]) > 0.05


def test_the_posterior_is_sampled_where_the_run_took_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against diffusers itself: each picture's sample is drawn from torch's generator, seeded by run seed and key."""
    diffusers = pytest.importorskip("diffusers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
        model = diffusers.AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, **blocks).eval()
    model.save_pretrained(tmp_path / "model")
    made = make_run(tmp_path, f"diffusers:{tmp_path / 'model'}", LightSuite, 2)
    monkeypatch.setattr(Sources, "_network", SimpleNamespace(pooled=lambda inputs: inputs.mean(dim=(2, 3))))
    monkeypatch.setattr(pairs, "lpips", lambda one, other: 0.5)
    monkeypatch.setattr("harness.explain.sources.rfid_value", lambda one, other: 1.0)
    found = explain(made.run, metrics=("psnr",), redo=True)
    values = []
    for key, picture in zip(open_run(made.run).keys, made.pictures("reference"), strict=True):
        image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1.0
        with torch.no_grad(), seeded(0, [key], torch.device("cpu")):
            output = model.decode(model.encode(image).latent_dist.sample()).sample
        levels = ((output[0].clamp(-1.0, 1.0) + 1.0) * 127.5).round().permute(1, 2, 0).numpy()
        values.append(10.0 * np.log10(255.0**2 / np.square(levels - picture.astype(np.float64)).mean()))
    sampled = value(found, "psnr", "posterior sample instead of mode")
    assert sampled == pytest.approx(np.mean(values), abs=1e-3)
    assert abs(sampled - found.protocol["psnr"]) > 0.01


def test_other_weights_are_not_the_runs(copied: Path) -> None:
    alter(copied, lambda data: data["decoders"]["jpeg"]["spec"].update(weights_sha256="0" * 64))
    found = explain(copied, "jpeg", metrics=("psnr",), redo=True)
    assert "those here are others" in needs(found, "psnr", "floats, not rounded")


def test_original_files_are_the_runs(small_run: Saved, copied: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(small_run.originals, tmp_path / "moved")
    alter(copied, lambda data: data["config"].update(dataset=f"folder:{tmp_path}/gone"))
    assert explain(copied, "jpeg", metrics=("psnr",), data_dir=moved).n == FEW
    first = sorted(moved.iterdir())[0]
    digest = hashlib.sha256(first.read_bytes()).hexdigest()
    Image.new("RGB", (96, 72)).save(first)
    assert hashlib.sha256(first.read_bytes()).hexdigest() != digest
    with pytest.raises(MsbenchError, match="has another SHA-256 than in the run"):
        explain(copied, "jpeg", metrics=("psnr",), data_dir=moved)
    first.unlink()
    with pytest.raises(MsbenchError, match="is not there"):
        explain(copied, "jpeg", metrics=("psnr",), data_dir=moved)


def write_statistics(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    "arrays",
    [
        {"mu": np.zeros(WIDTH)},
        {"mu": np.zeros(8), "sigma": np.eye(8)},
        {"mu": np.zeros(WIDTH), "sigma": np.array([{"a": 1}], dtype=object)},
        {"mu": np.full(WIDTH, np.nan), "sigma": np.eye(WIDTH)},
        {"mu": np.array(["a"]), "sigma": np.eye(WIDTH)},
    ],
    ids=["no sigma", "width", "pickle", "nan", "text"],
)
def test_statistics_that_are_none(arrays: dict[str, Any], small_run: Saved, tmp_path: Path) -> None:
    with pytest.raises(MsbenchError, match="--statistics"):
        explain(small_run.run, "jpeg", metrics=("psnr",), statistics=write_statistics(tmp_path / "s.npz", **arrays))


def test_statistics_from_no_npz(small_run: Saved, tmp_path: Path) -> None:
    (tmp_path / "s.npz").write_text("text")
    for path in (tmp_path / "s.npz", tmp_path / "none.npz", tmp_path):
        with pytest.raises(MsbenchError, match="--statistics"):
            explain(small_run.run, "jpeg", metrics=("psnr",), statistics=path)


def test_the_command_prints_tables_and_matches(small_run: Saved, found: Explanation) -> None:
    ssim = value(found, "ssim", "grey")
    done = command(f"{small_run.run}:jpeg", "--reported", f"ssim={ssim:.4f}", "--reported", "psnr=99.9")
    assert done.exit_code == 0, done.output
    assert "ssim of jpeg, n = 6" in done.output
    (line,) = [one for one in " ".join(done.output.split()).split("not computed: ") if one.startswith("needs the decoder")][1:2]
    assert line.startswith("needs the decoder: ask for it by --redo: truncated instead of rounded; floats, not rounded; ")
    assert done.output.count("needs the decoder") == 2  # once a metric
    assert f"ssim {ssim:.4f} (± 5e-05) matches: grey" in done.output
    assert "psnr 99.9 (± 0.05) matches none; the nearest, not a match: range 2 on [0, 1]" in done.output
    assert "no way of making the images fits them all" in done.output
    assert "https://github.com/FoundationVision/LlamaGen/issues/72" in done.output


def test_the_command_in_json(small_run: Saved) -> None:
    done = command(f"{small_run.run}:jpeg", "--metric", "psnr", "--reported", "psnr=1.25e1", "--json")
    document = json.loads(done.stdout)
    assert document["label"] == "jpeg"
    rows = {row["convention"]: row for row in document["conventions"]}
    assert rows["Y, studio range"]["users"] == {"BasicSR": USERS["BasicSR"]}
    assert document["reported"][0]["names"] == []
    assert document["reported"][0]["nearest"][0] in rows
    assert document["joint"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--reported", "ssim"), "NAME=VALUE"),
        (("--reported", "ssim=nan"), "NAME=VALUE"),
        (("--reported", "sim=0.5"), "Did you mean 'ssim'"),
        (("--metric", "ssin"), "Did you mean 'ssim'"),
        (("--images", "/nowhere"), "--images /nowhere"),
        (("--data-dir", "/nowhere"), "--data-dir /nowhere"),
        (("--statistics", "/nowhere.npz"), "--statistics /nowhere.npz"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], words: str, small_run: Saved) -> None:
    done = command(f"{small_run.run}:jpeg", "--metric", "psnr", *arguments)
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    assert words in line


def test_no_run_there() -> None:
    done = command("/nowhere:vae")
    assert done.exit_code == 2
    assert "no run at" in done.stderr


def test_the_page_names_every_convention() -> None:
    text = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    assert not [one.name for one in CONVENTIONS if one.name not in text]
