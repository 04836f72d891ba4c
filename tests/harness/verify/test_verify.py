"""Verification of runs: what is right agrees, whatever was altered is found where it was altered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from harness.cli import app
from harness.cost.cost import CostProtocol
from harness.record.run import FEATURES, Run, open_run
from harness.run.config import RunConfig
from harness.run.runner import evaluate
from harness.verify.check import close
from harness.verify.coverage import STATISTICS, UNKNOWN
from harness.verify.images import Group, image_checks, pixel_checks, reference_check
from harness.verify.verification import Verification, verify
from tests.harness.conftest import bad

LEARNED = "ms-onestep"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    cost = CostProtocol(batch_sizes=(1,), min_calls=3, max_calls=3, max_seconds=0.1)
    evaluate(
        RunConfig(
            decoders=("bicubic", LEARNED),
            max_samples=6,
            output_dir=folder / "run",
            save_images=folder / "images",
            cost=cost,
        )
    )
    return folder


@pytest.fixture(scope="module")
def verified(run: Path) -> Verification:
    return verify(run / "run")


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that knows of no saved images."""
    shutil.copytree(run / "run", tmp_path / "run")
    alter(tmp_path / "run", lambda data: data["config"].update(save_images=None))
    return tmp_path / "run"


def alter(folder: Path, change: Change) -> None:
    path = folder / "record.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.slow
def test_an_untouched_run_agrees_in_every_number(run: Path, verified: Verification) -> None:
    assert verified.disagreements == []
    assert verified.status == "verified"
    assert verified.images == run / "images"
    unknown = [check.number for check in verified.checks if check.agrees is None and check.how == UNKNOWN]
    assert unknown == []


@pytest.mark.slow
def test_every_figure_of_the_table_has_a_check(verified: Verification) -> None:
    agreed = {check.covers for check in verified.checks if check.agrees}
    names = ["n", "rfid", "kid", "psnr", "ssim", "lpips", "spectral", "latent_error", "ms_per_image.1", "gflops", "parameters"]
    for decoder in ("bicubic", LEARNED):
        missing = {number for number in names if (decoder, number) not in agreed}
        assert missing <= ({"gflops"} if decoder == "bicubic" else set())
    assert {("", "protocol_hash"), ("", "dataset.source_sha256"), ("", "dataset.reference_sha256")} <= agreed
    assert (LEARNED, "details.spec.weights_sha256") in agreed


@pytest.mark.slow
def test_figures_rest_on_published_packages(verified: Verification) -> None:
    mine = [check for check in verified.checks if check.decoder == LEARNED]
    ways = {(check.number.removeprefix("samples.").split(".")[0], check.how.split(" on ")[0]) for check in mine}
    assert {("psnr", "scikit-image"), ("ssim", "scikit-image"), ("lpips", "lpips package"), ("rfid", "torch-fidelity")} <= ways
    assert {("spectral", "numpy.fft"), ("latent_error", "encoder built again")} <= ways


@pytest.mark.slow
def test_what_is_not_computed_again_is_listed(verified: Verification) -> None:
    left = {check.number: check.how for check in verified.checks if check.decoder == LEARNED and check.agrees is None}
    assert left["intervals.rfid.0"] == left["details.interval_level"] == STATISTICS
    assert {number.split(".")[0] for number in left} <= {"intervals", "details", "rfid_infinity", "peak_memory_mb"}


def test_a_run_without_images_agrees_and_says_what_was_left_out(copied: Path) -> None:
    found = verify(copied)
    assert found.disagreements == []
    left_out = {check.covers for check in found.checks if check.agrees is None}
    assert ("", "dataset.reference_sha256") in left_out
    assert not [check for check in found.checks if "PNG" in check.how]
    agreed = {check.covers for check in found.checks if check.agrees}
    assert found.summary() == f"{len(agreed)} numbers agree, 0 disagree, {len(left_out)} not checked"


def _row(data: dict[str, Any]) -> dict[str, Any]:
    return dict(zip([row["decoder"] for row in data["results"]], data["results"], strict=True))[LEARNED]


def _psnr(data: dict[str, Any]) -> None:
    _row(data)["psnr"] += 1e-4


def _rfid(data: dict[str, Any]) -> None:
    _row(data)["rfid"] *= 1.0 + 1e-4


def _protocol(data: dict[str, Any]) -> None:
    data["protocol"]["noise_seed"] = 1


def _protocol_hash(data: dict[str, Any]) -> None:
    data["protocol_hash"] = "0" * 16


def _latency(data: dict[str, Any]) -> None:
    data["decoders"][LEARNED]["cost"]["cells"][0]["latency"]["median_ms"] *= 0.999


def _time(data: dict[str, Any]) -> None:
    _row(data)["ms_per_image"]["1"] *= 0.999


def _lost(data: dict[str, Any]) -> None:
    _row(data)["ssim"] = None


def _gone(data: dict[str, Any]) -> None:
    del _row(data)["ssim"]


def _gone_everywhere(data: dict[str, Any]) -> None:
    del data["metrics"]["ssim"]


def _kid_lost(data: dict[str, Any]) -> None:
    _row(data)["kid"] = None


def _weights(data: dict[str, Any]) -> None:
    data["decoders"][LEARNED]["spec"]["weights_sha256"] = "0" * 64


def _photographs(data: dict[str, Any]) -> None:
    data["dataset"]["source_sha256"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (_psnr, (LEARNED, "psnr")),
        (_rfid, (LEARNED, "rfid")),
        (_protocol, ("", "protocol_hash")),
        (_protocol_hash, ("", "protocol_hash")),
        (_latency, (LEARNED, "details.cost.cells.0.latency.median_ms")),
        (_time, (LEARNED, "ms_per_image.1")),
        (_lost, (LEARNED, "ssim")),
        (_gone, (LEARNED, "ssim")),
        (_kid_lost, (LEARNED, "kid")),
        (_weights, (LEARNED, "details.spec.weights_sha256")),
        (_photographs, ("", "dataset.source_sha256")),
    ],
)
def test_an_altered_number_is_found_where_it_is(copied: Path, change: Change, where: tuple[str, str]) -> None:
    alter(copied, change)
    assert bad(verify(copied).checks) == {where}


def test_an_altered_figure_fails_on_the_command_line(copied: Path) -> None:
    alter(copied, _psnr)
    done = CliRunner().invoke(app, ["verify", str(copied), "--json"])
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["status"] == "disagrees"
    wrong = [check for check in document["checks"] if check["agrees"] is False]
    assert [(check["decoder"], check["number"]) for check in wrong] == [(LEARNED, "psnr")]
    assert wrong[0]["recorded"] - wrong[0]["recomputed"] == pytest.approx(1e-4)
    assert {"decoder", "number", "recorded", "recomputed", "how", "tolerance", "agrees"} <= set(wrong[0])
    assert f"DISAGREES: {LEARNED} psnr" in done.stderr
    assert "msbench run --save-images DIR" in done.stderr
    assert done.stderr.strip().splitlines()[-1].endswith("not checked")


def test_a_metric_gone_from_the_whole_record_is_found_by_its_samples(copied: Path) -> None:
    alter(copied, _gone_everywhere)
    assert bad(verify(copied).checks) >= {(LEARNED, "ssim"), ("bicubic", "ssim")}


def test_one_level_of_one_pixel_is_found(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "images", tmp_path / "images")
    opened = open_run(run / "run")
    assert reference_check(opened, tmp_path / "images").agrees
    key = opened.keys[3]
    for place in (LEARNED, "reference"):
        path = tmp_path / "images" / place / f"{key}.png"
        pixels = np.array(Image.open(path))
        pixels[100, 50, 1] ^= 1
        Image.fromarray(pixels).save(path)
        if place == LEARNED:
            wrong = [check for check in pixel_checks(the_group(opened, tmp_path / "images")) if check.agrees is False]
            assert {check.number for check in wrong} >= {"samples.psnr.0"}
            assert all(key in check.how for check in wrong if check.number == "samples.psnr.0")
    assert reference_check(opened, tmp_path / "images").agrees is False


def the_group(opened: Run, images: Path) -> Group:
    """The saved images of the learned decoder."""
    result = next(one for one in opened.record.data.results if one.label == LEARNED)
    return Group(result, 0, images / "reference", images / LEARNED, opened.of(LEARNED).set_index("key"))


def test_missing_images_are_named_and_not_counted_as_agreement(run: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "reference").mkdir(parents=True)
    opened = open_run(run / "run")
    built = {LEARNED: "not built", "bicubic": "not built"}
    checks = image_checks(opened, tmp_path / "images", built, print)
    assert {(check.decoder, check.number, check.agrees) for check in checks} == {
        ("", "dataset.reference_sha256", None),
        ("bicubic", "images.0", None),
        (LEARNED, "images.0", None),
    }
    assert all(str(tmp_path) in check.how for check in checks)


def test_without_features_their_numbers_are_listed_as_not_checked(copied: Path) -> None:
    (copied / FEATURES).unlink()
    found = verify(copied)
    assert found.status == "verified"
    lost = {check.number for check in found.checks if "features.safetensors" in check.how and check.decoder == LEARNED}
    assert {"rfid", "kid"} <= lost
    assert "psnr" not in lost
    assert not [check for check in found.checks if check.number in lost and check.agrees is not None]


def test_a_metric_that_nothing_here_knows_is_listed(copied: Path) -> None:
    def add(data: dict[str, Any]) -> None:
        _row(data)["niqe"] = 3.5
        data["metrics"]["niqe"] = {"definition": "", "direction": "lower", "unit": "", "per_image": False}

    alter(copied, add)
    checks = verify(copied).checks
    assert {check.agrees for check in checks if check.covers == (LEARNED, "niqe")} == {None}
    assert not [check for check in checks if check.how == UNKNOWN]


def test_a_missing_number_agrees_with_what_is_not_finite_only() -> None:
    assert close("d", "psnr", None, float("inf"), "", reason="").agrees
    assert close("d", "psnr", None, float("nan"), "", reason="").agrees
    assert not close("d", "psnr", None, 3.0, "", absolute=1.0, reason="").agrees
    assert not close("d", "psnr", 3.0, float("inf"), "", absolute=1.0, reason="").agrees
    assert not close("d", "psnr", 3.0, float("nan"), "", absolute=1.0, reason="").agrees


def test_a_decoder_that_is_gone_leaves_its_facts_unchecked(copied: Path) -> None:
    alter(copied, lambda data: _row(data)["options"].update(checkpoint="gone.safetensors"))
    facts = {check.number: check for check in verify(copied).checks if check.decoder == LEARNED}
    assert facts["gflops"].agrees is None
    assert "gone.safetensors" in facts["gflops"].how
    assert facts["rfid"].agrees


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (shutil.rmtree, "holds no record.json"),
        (lambda folder: (folder / "samples.parquet").unlink(), "samples.parquet"),
        (lambda folder: (folder / "samples.parquet").write_bytes(b"PAR1"), "samples.parquet"),
        (lambda folder: (folder / FEATURES).write_bytes(b"no"), FEATURES),
        (lambda folder: alter(folder, lambda data: data.pop("protocol")), "protocol: Field required"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(copied: Path, prepare: Callable[[Path], object], words: str) -> None:
    prepare(copied)
    done = CliRunner().invoke(app, ["verify", str(copied)])
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_without_images_is_bad_input(copied: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(copied), "--images", str(tmp_path)])
    assert done.exit_code == 2
    assert "--save-images" in done.stderr
