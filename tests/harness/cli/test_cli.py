"""The command line as a user meets it: exit codes, one clear line, clean stdout under --json."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def msbench(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "msbench.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=300,
    )


def test_near_miss_is_suggested() -> None:
    done = msbench("run", "--decoder", "ms-onestp")
    assert done.returncode == 2
    assert "ms-onestep" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--decoder", "bicubic", "--dtype", "fp23"), "fp32"),
        (("run", "--decoder", "bicubic", "--cost-batch-sizes", "1,x"), "--cost-batch-sizes"),
        (("run", "--decoder", "bicubic", "--dataset", "folder:/nowhere"), "/nowhere"),
        (("compare", "no-such-run"), "no-such-run"),
        (("compare", "x", "--format", "latx"), "latex"),
        (("run", "--decoder", "bicubic", "--margin", "lpips=-1"), "positive"),
        (("run", "--decoder", "bicubic", "--extra-metrics", "dist"), "dists"),
        (("run", "--decoder", "bicubic", "--columns", "rfid,psnrr"), "'psnr'"),
        (("run", "--decoder", "bicubik", "--dry-run"), "'bicubic'"),
        (("ls", "decoder"), "decoders"),
        (("train-decoder", "vea", "--max-steps", "1"), "vae"),
        (("train-decoder", "vae"), "--max-minutes"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = msbench(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["decoders", "datasets", "metrics"])
def test_ls_prints_json(what: str) -> None:
    rows = json.loads(msbench("ls", what, "--json").stdout)["results"]
    assert len(rows) >= 4
    assert all(row["description"] for row in rows)


def test_run_and_compare_with_json(tmp_path: Path) -> None:
    done = msbench("run", "--decoder", "bicubic,jpeg", "--max-samples", "4", "--cost-seconds", "0.2", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["status"] == "complete"
    assert [row["decoder"] for row in document["results"]] == ["bicubic", "jpeg"]
    assert set(document["results"][0]["ms_per_image"]) == {"1", "8"}
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name in done.stderr
    assert done.stderr.index("quality; cost follows") < done.stderr.index("bicubic: ") < done.stderr.index("jpeg: ")
    assert done.stderr.count(" ms/image at batch 8") == 2

    compared = json.loads(msbench("compare", f"{folder}:jpeg", str(folder), "--json").stdout)
    assert [row["decoder"] for row in compared["results"]] == ["jpeg", "bicubic", "jpeg"]
    assert "50k" in " ".join(compared["warnings"])
    markdown = msbench("compare", str(folder), "--format", "markdown", "--published").stdout
    assert "| `jpeg` " in markdown
    assert "Differences to bicubic" in markdown
    assert "never ranked" in markdown
    narrow = msbench("compare", str(folder), "--format", "markdown", "--columns", "psnr,ms_per_image_b8").stdout
    assert narrow.startswith("| decoder | PSNR ↑ | ms/image, batch 8 ↓ |\n")
    latex = msbench("compare", str(folder), "--format", "latex", "--baseline", "jpeg").stdout
    assert r"\caption{Decoders on photos, n = 4.}" in latex
    assert "Differences to jpeg" in latex
    assert "50k figures" in latex
    with_itself = json.loads(msbench("compare", str(folder), str(folder), "--json").stdout)
    assert {one["difference"] for one in with_itself["comparisons"]} == {"no difference shown"}

    reference = str(tmp_path / "reference.json")
    assert msbench("compare", str(folder), "--against", reference, "--update").returncode == 0
    gate = ("--against", reference, "--fail-on-regression")
    assert msbench("compare", str(folder), *gate).returncode == 0
    content = json.loads(Path(reference).read_text())
    (figure,) = [one for one in content["figures"] if (one["decoder"], one["metric"]) == ("jpeg", "psnr")]
    figure["value"] += 5.0
    Path(reference).write_text(json.dumps(content))
    failed = msbench("compare", str(folder), *gate)
    assert failed.returncode == 1
    assert failed.stdout.count("regression: jpeg psnr") == 1
    assert msbench("compare", str(folder), "--fail-on-regression").returncode == 2

    other = msbench("run", "--decoder", "bicubic", "--max-samples", "3", "--no-cost", "--output-dir", "other", cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    assert other.stdout.count("bicubic") >= 1
    refused = msbench("compare", str(folder), str(tmp_path / "other"))
    assert refused.returncode == 2
    assert "max_samples" in refused.stderr
    assert msbench("compare", "--force", str(folder), str(tmp_path / "other")).returncode == 0

    again = msbench("run", "--decoder", "bicubic", "--no-cost", "--output-dir", "other", cwd=tmp_path)
    assert again.returncode == 2
    assert "already holds a run" in again.stderr
