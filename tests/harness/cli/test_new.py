"""`msbench new decoder` writes a decoder that keeps the contract, and overwrites nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import msbench
from harness.cli import app


def new(file: Path) -> Result:
    return CliRunner().invoke(app, ["new", "decoder", str(file)])


def test_the_written_decoder_keeps_the_contract(tmp_path: Path) -> None:
    file, test = tmp_path / "my_model.py", tmp_path / "test_my_model.py"
    done = new(file)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [f"wrote {file}", f"wrote {test}", f"next: msbench check {file}"]
    assert "msbench check my_model.py" in file.read_text()
    for options in ("", "@dtype=bf16"):
        findings = msbench.check(f"{file}{options}", resolution=64)
        assert [one for one in findings if not one.passed or one.detail] == []


@pytest.mark.slow
def test_the_written_test_and_check_pass(tmp_path: Path) -> None:
    assert new(tmp_path / "my-model.py").exit_code == 0
    for command in (("pytest", "-q"), ("msbench", "check", "my-model.py")):
        done = subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("there", ["my_model.py", "test_my_model.py"])
def test_nothing_is_overwritten(there: str, tmp_path: Path) -> None:
    (tmp_path / there).write_text("mine")
    done = new(tmp_path / "my_model.py")
    assert done.exit_code == 2
    assert f"{tmp_path / there} exists already" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_what_exists_is_told_in_number(tmp_path: Path) -> None:
    for name in ("nd.py", "test_nd.py"):
        (tmp_path / name).write_text("mine")
    told = new(tmp_path / "nd.py").stderr
    assert f"{tmp_path / 'nd.py'} and {tmp_path / 'test_nd.py'} exist already and stay as they are: give another name" in told


def test_names_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    for file, words in (
        (tmp_path / "model", "give the name of a Python file"),
        (tmp_path / "no" / "m.py", "there is no folder"),
    ):
        done = new(file)
        assert done.exit_code == 2
        assert words in done.stderr
    assert list(tmp_path.iterdir()) == []
