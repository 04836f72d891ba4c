"""The tutorial is run as it is printed: each file is written, each command ends well, and the rows it promises are there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.record.record import read_record

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(sh|python)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_every_block_of_the_tutorial_runs(tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text())
    assert len(blocks) >= 8
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": paths, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    for language, title, text in blocks:
        if language == "python":
            (tmp_path / title).write_text(text)
            continue
        done = subprocess.run(
            ["bash", "-ec", text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    assert [row["label"] for row in read_record(tmp_path / "runs" / "mine").results] == ["my_model", "bicubic", "jpeg"]
    mine, scored = (read_record(tmp_path / "runs" / name).results[0] for name in ("mine", "scored"))
    assert scored["psnr"] == pytest.approx(mine["psnr"], abs=1e-12)


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
