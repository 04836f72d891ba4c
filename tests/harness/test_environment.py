"""The environment: JSON types, this machine's facts, and no other project's commit."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.environment import command_line, cpu_model, environment, git_state


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def checkout(folder: Path, project: str = "msbench") -> Path:
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{project}"\nversion = "1"\n')
    git(folder, "add", "pyproject.toml")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_describes_this_process_in_json_types() -> None:
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert found["torch_threads"] == torch.get_num_threads()
    assert set(found["packages"]) >= {"numpy", "pillow", "torch-fidelity", "lpips"}
    assert found["msbench"]
    if not torch.cuda.is_available():
        assert (found["cuda"], found["driver"], found["gpus"]) == (None, None, [])


def test_git_state_follows_the_checkout(tmp_path: Path) -> None:
    root = checkout(tmp_path / "repo")
    assert git_state(root) == {"commit": git(root, "rev-parse", "HEAD"), "dirty": False}
    (root / "untracked.txt").write_text("x")
    assert git_state(root)["dirty"] is False
    (root / "pyproject.toml").write_text('[project]\nname = "msbench"\nversion = "2"\n')
    assert git_state(root)["dirty"] is True


def test_another_projects_commit_is_not_ours(tmp_path: Path) -> None:
    unknown = {"commit": None, "dirty": None}
    assert git_state(checkout(tmp_path / "other", project="other")) == unknown
    inside = checkout(tmp_path / "outer") / "site-packages"
    inside.mkdir()
    assert git_state(inside) == unknown
    plain = tmp_path / "plain"
    plain.mkdir()
    assert git_state(plain) == unknown


def test_a_machine_without_git_has_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = checkout(tmp_path / "repo")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(root) == {"commit": None, "dirty": None}


def test_a_mac_is_named_by_its_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    """`platform.processor()` says "arm" on all of them, so that times of any two would compare."""
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.processor", lambda: "arm")
    answers = iter([subprocess.CompletedProcess([], 0, "Apple M2 Pro\n"), subprocess.CompletedProcess([], 1, "")])
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: next(answers))
    assert [cpu_model(), cpu_model()] == ["Apple M2 Pro", "arm"]


def test_the_command_is_what_a_shell_takes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["run", "--decoder", "my model.py@range=01", "--dataset", "folder:it's; $HOME", ""]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/msbench", *given])
    assert shlex.split(command_line()) == ["msbench", *given]
    monkeypatch.setattr(sys, "argv", ["msbench", "run", "--decoder", "vae,jpeg@bits_per_pixel=1"])
    assert command_line() == "msbench run --decoder vae,jpeg@bits_per_pixel=1"
