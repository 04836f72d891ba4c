"""The script for a GPU: shellcheck where there is one, what it asks for within which budgets, and its rehearsal on a CPU."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
STUB = """#!/bin/bash
echo "$*" >>"$LOG"
[[ "$*" != *compile* ]]
"""


def run(tmp_path: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The script with a temporary folder of its own, below which it writes."""
    told = {**os.environ, "TMPDIR": str(tmp_path), "DATA": "", "TAEF2": "", "QUICK": "", **environment}
    done = subprocess.run(["bash", SCRIPT], env=told, capture_output=True, text=True, check=False)
    return done, next(path for path in tmp_path.glob("tmp.*"))


def test_it_is_a_script() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    if checker := shutil.which("shellcheck"):
        subprocess.run([checker, SCRIPT], check=True)


def test_on_a_gpu_its_budgets_are_below_ten_minutes_and_a_failed_step_is_named(tmp_path: Path) -> None:
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    log = tmp_path / "log"
    done, _ = run(tmp_path, PYTHON=str(stub), LOG=str(log), DEVICE="cuda", TAEF2="weights", DATA="data folder")
    assert done.returncode == 1
    assert "failed: compile\n" in done.stdout
    lines = log.read_text().splitlines()
    speed = [line.split() for line in lines if line.startswith("msbench.py speed")]
    assert len(speed) == 4
    assert all("--device cuda" in " ".join(words) for words in speed)
    budgets = [int(words[words.index("--budget-seconds") + 1]) for words in speed]
    assert sum(budgets) + 60 < 570
    written = {line.split()[-1] for line in lines if line.startswith("benchmarks/")}
    names = ("speed-cuda", "speed-cuda-max", "speed-cuda-peers", "peers-cuda")
    assert written == {f"results/{name}.csv" for name in names}
    assert any("taef2=taef2@checkpoint=weights" in line and "--data-dir data folder" in line for line in lines)


@pytest.mark.slow
def test_the_rehearsal_takes_the_whole_path_and_leaves_the_results_alone(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    before = sorted((ROOT / "results").iterdir())
    done, work = run(tmp_path, DEVICE="cpu", QUICK="1", PYTHON=sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "images a second" in done.stdout
    tables = {path.name: list(csv.DictReader(path.open(encoding="utf-8"))) for path in (work / "results").glob("*.csv")}
    assert set(tables) == {
        "speed-cuda.csv",
        "speed-cuda-max.csv",
        "speed-cuda-compile.csv",
        "speed-cuda-peers.csv",
        "peers-cuda.csv",
    }
    assert {(row["mode"], row["status"]) for row in tables["speed-cuda.csv"]} == {("eager", "ok"), ("cudagraph", "unsupported")}
    assert {row["status"] for row in tables["speed-cuda-compile.csv"]} == {"ok"}
    assert [row["decoder"] for row in tables["peers-cuda.csv"] if row["lpips"]] == ["vae"]
    assert (work / "results" / "peers-cuda.svg").is_file()
    assert sorted((ROOT / "results").iterdir()) == before
