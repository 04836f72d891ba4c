"""The table of speed runs: what a second run must agree with, and what is no run."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import speed_table as bench
from benchmarks.plumbing import run_script


def run(folder: Path, ratio: float, floor: float = 0.05, decoder: str = "b") -> Path:
    """A run of two decoders, the second `ratio` times as fast as the first."""
    setting = {"batch": 8, "mode": "eager", "dtype": "fp32", "scope": "decode", "resolution": 256, "cores": "all"}

    def cell(name: str, times: float) -> dict[str, Any]:
        known = {**setting, "decoder": name, "status": "ok", "median_ms": 100 / times, "ratio_to_first": times}
        known |= {"ms_per_image": 12.5 / times, "share_of_flop_ratio": 0.9, "side_by_side": True}
        return {**dict.fromkeys(bench.COLUMNS), **known}

    cells = [cell("a", 1.0), cell(decoder, ratio)]
    document = {
        "cells": cells,
        "fastest": cells,
        "noise_floor": [{**setting, "decoder": "a", "floor": floor}],
        "environment": {"cpu_model": "any", "torch": "2"},
    }
    folder.mkdir()
    (folder / "speed.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize(("again", "agrees"), [(10.4, "True"), (9.6, "True"), (11.0, "False"), (9.0, "False")])
def test_runs_agree_within_the_noise_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: float, agrees: str) -> None:
    one, other = run(tmp_path / "1", 10.0), run(tmp_path / "2", again, floor=0.01)
    target = tmp_path / "table.csv"
    monkeypatch.setattr(sys, "argv", ["speed_table", str(one), str(other), "--output", str(target)])
    assert run_script(bench.main) == 0
    first, second = csv.DictReader(target.read_text().splitlines())
    assert (first["decoder"], first["agrees"]) == ("a", "True")
    assert (second["again_ratio"], second["noise_floor"], second["again_floor"]) == (f"{again:.6g}", "0.05", "0.01")
    assert second["agrees"] == agrees


@pytest.mark.parametrize("disturbed", [0, 1])
def test_a_disturbed_time_agrees_with_nothing(tmp_path: Path, disturbed: int) -> None:
    """It has no ratio, in either run."""
    documents = [bench.read_speed(run(tmp_path / name, 10.0)) for name in "ab"]
    documents[disturbed]["cells"][1]["ratio_to_first"] = None
    first, second = bench.rows(*documents)
    assert first["agrees"]
    assert not {"agrees", "again_ratio"} & second.keys()


def test_one_run_is_a_table_too(tmp_path: Path) -> None:
    lines = bench.rows(bench.read_speed(run(tmp_path / "1", 10.0)), None)
    assert [line["decoder"] for line in lines] == ["a", "b"]
    assert all(line["fastest"] for line in lines)
    assert [(line["fastest_ratio"], line["fastest_ms_per_image"]) for line in lines] == [(1.0, 12.5), (10.0, 1.25)]
    assert not any("agrees" in line for line in lines)


def test_the_fastest_is_marked_in_its_own_setting_alone(tmp_path: Path) -> None:
    path = run(tmp_path / "1", 10.0) / "speed.json"
    document = json.loads(path.read_text())
    document["cells"] += [{**cell, "dtype": "bf16"} for cell in document["cells"]]
    document["cells"] += [{**cell, "batch": 1} for cell in document["cells"]]
    path.write_text(json.dumps(document))
    lines = bench.rows(bench.read_speed(path.parent), None)
    assert [(line["batch"], line["dtype"]) for line in lines if line["fastest"]] == [(8, "fp32")] * 2
    assert [line["batch"] for line in lines if "fastest_ratio" in line] == [8, 8]


@pytest.mark.parametrize("broken", ["missing", "no json", "nothing in common"])
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    one, other = run(tmp_path / "1", 10.0), run(tmp_path / "2", 10.0)
    path = other / "speed.json"
    if broken == "missing":
        path.unlink()
    elif broken == "no json":
        path.write_text("{")
    else:
        document = json.loads(path.read_text())
        document["cells"] = [{**cell, "batch": 1} for cell in document["cells"]]
        path.write_text(json.dumps(document))
    target = tmp_path / "table.csv"
    monkeypatch.setattr(sys, "argv", ["speed_table", str(one), str(other), "--output", str(target)])
    assert run_script(bench.main) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not target.exists()
