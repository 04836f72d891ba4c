"""The leaderboard's workflow: its script is run over a repository of odd names, with a command that notes its arguments."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
FOLDER = Path(__file__).resolve().parents[1] / ".github" / "workflows"
CONTENT: dict[Any, Any] = yaml.safe_load((FOLDER / "leaderboard.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = CONTENT["jobs"]["site"]["steps"]
ODD = ("it's $(touch gone)", "-n", 'a "b"\nc', ";touch gone", "* ?", ":(top)")


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def record(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(text)


@pytest.mark.skipif(not (shutil.which("git") and shutil.which("bash")), reason="needs git and bash")
@pytest.mark.parametrize("pull_request", [True, False])
def test_changed_records_are_verified_under_any_name(pull_request: bool, tmp_path: Path) -> None:
    root, tools = tmp_path / "submitted", tmp_path / "bin"
    tools.mkdir()
    command = tools / "msbench"
    command.write_text(f'#!/bin/sh\nprintf "%s\\0" "$2" >> {tmp_path}/seen\necho "{{}}"\ncase "$2" in *bad) exit 1;; esac\n')
    command.chmod(0o755)
    record(root / "leaderboard" / "same", "{}")
    record(root / "leaderboard" / "samples", "{}")
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", "-A")
    git(root, "commit", "-qm", "base")
    base = git(root, "rev-parse", "HEAD")
    for name in (*ODD, "bad"):
        record(root / "leaderboard" / name, "{}")
        (root / "leaderboard" / name / "verify.json").write_text("forged")
    (root / "leaderboard" / "same" / "verify.json").write_text("forged")
    (root / "leaderboard" / "samples" / "samples.parquet").write_text("changed")
    git(root, "add", "-A")
    git(root, "reset", "-q", "leaderboard/same/verify.json")
    git(root, "commit", "-qm", "submission")
    (script,) = [step["run"] for step in STEPS if step.get("name") == "Verify"]
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "BASE": base if pull_request else ""}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script], cwd=root, env=environment, capture_output=True, check=False
    )
    seen = set((tmp_path / "seen").read_text().split("\0")[:-1])
    changed = {f"./leaderboard/{name}" for name in (*ODD, "bad", "samples")}
    assert seen == (changed if pull_request else changed | {"./leaderboard/same"})
    assert done.returncode == 1  # one disagreed, the others were looked at all the same
    assert not (root / "gone").exists()
    assert {path.read_text() for path in root.rglob("verify.json")} == {"{}\n"}


def test_nothing_of_a_pull_request_reaches_a_script_s_text() -> None:
    assert CONTENT["permissions"] == {"contents": "read"}
    assert not any("${{" in step.get("run", "") for step in STEPS)
    assert "pull_request_target" not in CONTENT.get("on", CONTENT.get(True))
    known = set(re.findall(r"uses: (\S+)", (FOLDER / "ci.yml").read_text(encoding="utf-8")))
    assert {step["uses"] for step in STEPS if "uses" in step} <= known  # pinned as there
