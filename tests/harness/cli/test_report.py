"""`msbench report` as its user meets it: what it writes, what it refuses, and that nothing is half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness.cli import app
from tests.harness.conftest import MakeRun


def report(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)], env={"COLUMNS": "160"})


def test_writes_one_file_and_says_its_size(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"one": 0.0, "two": 0.5})
    output = tmp_path / "out" / "page.html"
    output.parent.mkdir()
    output.write_text("before")
    done = report(tmp_path / "run", "-o", output)
    assert done.exit_code == 0, done.output
    assert "no images" in done.stdout
    assert output.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert list(output.parent.iterdir()) == [output]


def test_json_is_one_document(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"one": 0.0, "two": 0.5})
    output = tmp_path / "page.html"
    found = json.loads(report(tmp_path / "run", "-o", output, "--json").stdout)
    assert (found["output"], found["bytes"]) == (str(output), output.stat().st_size)
    assert found["verdict"].startswith("On 60 images of photos")


def test_bad_input_is_one_line_and_leaves_what_was_there(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"one": 0.0, "two": 0.5})
    (tmp_path / "empty").mkdir()
    output = tmp_path / "page.html"
    output.write_text("before")
    for arguments, words in (
        ((tmp_path / "absent",), "no run at"),
        ((tmp_path / "empty",), "holds no record.json"),
        ((tmp_path / "run", "--baseline", "onne"), "'one'"),
        ((f"{tmp_path / 'run'}:onne",), "'one'"),
        ((tmp_path / "run", "--images", tmp_path), "--images"),
        ((tmp_path / "run", "--images", tmp_path, "--images", tmp_path), "once a run"),
        ((tmp_path / "run", "-o", tmp_path / "nowhere" / "page.html"), "nowhere"),
        ((tmp_path / "run", "-o", tmp_path / "empty"), "is a folder"),
        ((), "runs"),
    ):
        done = report(*arguments, *(() if "-o" in arguments else ("-o", output)))
        assert done.exit_code == 2, done.output
        assert words in done.stderr, done.stderr
        assert "Traceback" not in done.output
    assert output.read_text() == "before"
    assert not (tmp_path / "nowhere").exists()
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("other", [{"source": "t"}])
def test_runs_that_do_not_compare_are_refused(make_run: MakeRun, tmp_path: Path, other: dict[str, str]) -> None:
    make_run(tmp_path / "one", {"a": 0.0})
    make_run(tmp_path / "two", {"a": 0.0}, **other)
    done = report(tmp_path / "one", tmp_path / "two", "-o", tmp_path / "page.html")
    assert done.exit_code == 2
    assert "do not compare" in done.stderr
    assert not (tmp_path / "page.html").exists()
