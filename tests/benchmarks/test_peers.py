"""Peers: cost joined with quality by label, one plot of one setting, and what is no input."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peers
from benchmarks.plumbing import run_script
from benchmarks.speed_table import COLUMNS, read_speed

MS = {"slow": 100.0, "fast": 10.0, "alone": 400.0}


def cell(name: str, **changes: Any) -> dict[str, Any]:
    setting = {"batch": 1, "mode": "eager", "dtype": "bf16", "scope": "decode", "resolution": 256, "cores": "all"}
    timed = {"status": "ok", "ms_per_image": MS[name], "gflops": 5.0, "mfu": 0.25}
    return {**dict.fromkeys(COLUMNS), "decoder": name, **setting, **timed, **changes}


@pytest.fixture
def speed(tmp_path: Path) -> Path:
    """Three decoders; each also end to end, on one core and at batch 8, where one was skipped; one also compiled."""
    cells = [cell(name, **other) for name in MS for other in ({}, {"scope": "end-to-end"}, {"cores": 1}, {"batch": 8})]
    cells += [cell("slow", mode="compile", ms_per_image=50.0)]
    cells[3] |= {"status": "skipped_budget", "ms_per_image": None}
    document = {"cells": cells, "fastest": [], "noise_floor": [], "disturbed": True}
    document["environment"] = {"cpu_model": "any", "torch": "2"}
    (tmp_path / "speed").mkdir()
    (tmp_path / "speed" / "speed.json").write_text(json.dumps(document))
    return tmp_path / "speed"


def quality(folder: Path, *names: str) -> Path:
    path = folder / "quality.csv"
    header = "decoder,dataset,n,rfid,lpips,lpips_low,lpips_high,psnr,more\n"
    path.write_text(header + "".join(f"{name},photos,15,20,0.{index}1,0,1,30,x\n" for index, name in enumerate(names)))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["peers", *map(str, arguments)])
    return run_script(peers.main)


def test_a_row_a_decoder_and_setting_with_quality_by_label(
    tmp_path: Path, speed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out" / "peers.csv"
    assert run(monkeypatch, speed, quality(tmp_path, "fast", "slow", "jpeg"), "--output", target) == 0
    assert "disturbed" in capsys.readouterr().err
    rows = list(csv.DictReader(target.read_text().splitlines()))
    assert [row["decoder"] for row in rows] == ["slow"] * 3 + ["fast"] * 3 + ["alone"] * 3 + ["slow"]
    assert {(row["decoder"], row["lpips"], row["n"]) for row in rows} == {
        ("fast", "0.01", "15"),
        ("slow", "0.11", "15"),
        ("alone", "", ""),
    }
    assert {(row["gflops"], row["mfu"]) for row in rows} == {("5", "0.25")}
    assert all(target.with_suffix(kind).stat().st_size > 1000 for kind in (".svg", ".png"))


def test_the_plot_shows_known_quality_as_points_and_the_rest_on_the_axis(tmp_path: Path, speed: Path) -> None:
    table = peers.joined(read_speed(speed), peers.read_quality(quality(tmp_path, "slow", "fast")))
    chosen = peers.of_setting(table, 1, "bf16")
    assert [(row["decoder"], row["ms_per_image"]) for row in chosen] == [("fast", 10.0), ("slow", 50.0), ("alone", 400.0)]
    axes = peers.plot(chosen).axes[0]
    points, marks = (list(zip(*line.get_data(), strict=True)) for line in axes.lines)
    assert points == [(10.0, 0.11), (50.0, 0.01)]
    assert marks == [(400.0, axes.get_ylim()[0])]
    assert {text.get_text() for text in axes.texts} == set(MS)
    assert [row["decoder"] for row in peers.of_setting(table, 8, "bf16")] == ["fast", "alone"]


def test_all_known_needs_no_marks(tmp_path: Path, speed: Path) -> None:
    table = peers.joined(read_speed(speed), peers.read_quality(quality(tmp_path, *MS)))
    assert {text.get_text() for text in peers.plot(peers.of_setting(table, 1, "bf16")).axes[0].texts} == set(MS)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("none in common", "no decoder of both: speed has alone, fast, slow, quality jpeg"),
        ("no file", "no table of"),
        ("no table", "no table of"),
        ("batch", "nothing was timed at batch 3 in bf16"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path, speed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str, words: str
) -> None:
    known = quality(tmp_path, "jpeg" if broken == "none in common" else "fast")
    if broken == "no file":
        known.unlink()
    elif broken == "no table":
        known.write_text("a,b\n1,2\n")
    target = tmp_path / "out" / "peers.csv"
    batch = "3" if broken == "batch" else "1"
    assert run(monkeypatch, speed, known, "--output", target, "--batch", batch) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not target.parent.exists()
