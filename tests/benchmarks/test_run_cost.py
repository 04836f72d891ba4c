"""The table of what runs cost, against sums done by hand."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import run_cost as bench
from benchmarks.plumbing import run_script
from harness.record.record import write_record
from harness.record.schema import SampleCounts
from harness.stopwatch import StageTime, Timing
from tests.harness.records import details, result, run_data

SPENT = {
    "loading decoders": 3.0,
    "loading metrics": 1.0,
    "measuring cost": 6.0,
    "statistics": 5.0,
    "waiting for images": 2.0,
    "reference features": 8.0,
    "writing": 1.0,
    "cache": 1.0,
    "decoding": 20.0,
    "inception": 24.0,
    "lpips": 10.0,
    "psnr": 2.0,
    "another's metric": 4.0,
}


def run(folder: Path, n: int = 100, times: float = 1.0, **changes: Any) -> Path:
    """Two decoders, the second with two noise seeds; 13 s lie between the stages."""
    stages = {name: StageTime(times * seconds, 0.0) for name, seconds in SPENT.items()}
    timing = Timing(times * 100.0, stages, StageTime(times * 13.0, 0.13))
    pairs = [(result("one"), details()), (result("two"), details(seeds=(0, 1)))]
    data = run_data(pairs, **{"timing": timing, **changes})
    facts = replace(data.dataset, n_samples=SampleCounts(3925, n, n))
    folder.mkdir()
    return write_record(folder, replace(data, dataset=facts)).folder


def table(monkeypatch: pytest.MonkeyPatch, target: Path, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["run_cost", *map(str, arguments), "--output", str(target)])
    return run_script(bench.main)


def test_times_add_up_and_what_grows_is_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "table.csv"
    assert table(monkeypatch, target, run(tmp_path / "a"), run(tmp_path / "b", times=2.0), "--images", 1000) == 0
    first, second = csv.DictReader(target.read_text().splitlines())
    assert (first["decoder"], first["n"], first["decodes"], first["seconds"]) == ("one,two", "100", "3", "100")
    assert (first["images_per_s"], second["images_per_s"]) == ("1", "0.5")
    assert (first["slowest"], first["slowest_share"], first["limit_images_per_s"]) == ("inception", "0.24", "4.16667")
    assert first["once_s"] == "10"
    assert first["shared_ms"] == "250"  # 2 + 8 + 1 + 1 + 13 seconds for 100 images
    assert first["own_ms"] == "200"  # 60 seconds for 100 images, three times each
    assert (first["predicted_n"], first["predicted_s"]) == ("1000", "860")  # 10 and 1000 (0.25 + 3 * 0.2)
    assert second["predicted_s"] == "1720"
    assert (first["waiting_for_images_s"], first["another's_metric_s"], first["between_s"]) == ("2", "4", "13")
    assert sum(float(first[f"{name.replace(' ', '_')}_s"]) for name in (*SPENT, "between")) == pytest.approx(100.0)
    assert "limit_images_per_s" in capsys.readouterr().out


def test_in_its_own_row_the_prediction_is_the_run_without_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "table.csv"
    assert table(monkeypatch, target, run(tmp_path / "a", n=3925)) == 0
    (row,) = csv.DictReader(target.read_text().splitlines())
    assert float(row["predicted_s"]) == pytest.approx(100.0 - 5.0)


@pytest.mark.parametrize("broken", ["nothing there", "interrupted", "merged", "no images"])
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    changes = {"interrupted": {"status": "interrupted"}, "merged": {"timing": None}}.get(broken, {})
    folder = tmp_path / "nothing" if broken == "nothing there" else run(tmp_path / "a", **changes)
    target = tmp_path / "table.csv"
    assert table(monkeypatch, target, folder, "--images", 0 if broken == "no images" else 10) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not target.exists()
