"""What TensorBoard reads of a run: each row's figures under their CSV names, the saved images, once."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from harness.cli import app
from harness.report.results import results_table
from harness.report.table import csv_text
from harness.report.tensorboard import write_events
from harness.run import runner
from tests.harness.run.conftest import make_images
from tests.harness.run.light import LightSuite

OPTIONS = ("--resolution", "32", "--no-cost", "--tensorboard")


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Any:
    monkeypatch.setattr(runner, "MetricSuite", LightSuite)
    images = make_images(tmp_path / "images", 10)
    place = ["--dataset", f"folder:{images}", "--output-dir", str(tmp_path / "run")]
    return CliRunner().invoke(app, ["run", "--decoder", "bicubic,a=jpeg", *place, *OPTIONS, *options])


def test_a_run_writes_its_figures_and_saved_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.record.record import read_record

    done = measure(tmp_path, monkeypatch, "--save-images", str(tmp_path / "saved"))
    assert done.exit_code == 0, done.output
    root, record = tmp_path / "run" / "tensorboard", read_record(tmp_path / "run")
    assert {path.name for path in root.iterdir()} == {"reference", "bicubic", "a"}
    assert f"for TensorBoard: {root}" in done.output
    write_events(record)  # again: replaces what was there
    for row in csv.DictReader(io.StringIO(csv_text(results_table(record.rows_for_people())))):
        events = read(root / row["decoder"])
        scalars = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
        texts = ("decoder", "dataset", "n", "trained_on", "protocol_hash", "device", "dtype", "caveat")
        wanted = {
            key: float(text) for key, text in row.items() if text and key not in texts and key[-4:] not in ("_low", "high")
        }
        assert {name: [event.value for event in found] for name, found in scalars.items()} == {
            name: [pytest.approx(value, rel=1e-6)] for name, value in wanted.items()
        }
        assert {"psnr", "lpips", "bits_per_pixel"} <= wanted.keys()
        assert len(events.Tags()["images"]) == 8
        (image,) = events.Images("n03")
        pixels = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
        assert np.array_equal(pixels, np.asarray(Image.open(tmp_path / "saved" / row["decoder"] / "n03.png")))
    reference = read(root / "reference")
    assert (reference.Tags()["scalars"], len(reference.Tags()["images"])) == ([], 8)


def test_without_saved_images_there_are_figures_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure(tmp_path, monkeypatch).exit_code == 0
    root = tmp_path / "run" / "tensorboard"
    assert {path.name for path in root.iterdir()} == {"bicubic", "a"}
    assert not read(root / "a").Tags()["images"]


def test_without_tensorboard_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # its import fails
    done = measure(tmp_path, monkeypatch)
    assert done.exit_code == 2
    assert "pip install msbench[train]" in done.stderr
    assert not (tmp_path / "run").exists()
