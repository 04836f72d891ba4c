"""Where commands end: one line and an exit code for whatever happens, and output that survives any terminal."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from harness.cli.shared import Commands, JsonFlag, finite, print_json, say, show
from harness.errors import ElsewhereError, MsbenchError
from harness.interrupt import Terminated
from harness.report.table import listing

ROOT = Path(__file__).resolve().parents[3]


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def group(command: Callable[..., None]) -> typer.Typer:
    app = typer.Typer(cls=Commands, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command("go")(command)
    app.command("other")(lambda: None)
    return app


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MsbenchError("no such\nthing \x1b[31m[red]"), 2, "msbench: no such thing \\x1b[31m[red]"),
        (PermissionError(errno.EACCES, "Permission denied", "/there"), 2, "msbench: /there: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
        (OSError(errno.EXDEV, "Invalid link", "a", None, "b"), 2, "a and b: Invalid link"),
        (MemoryError(), 2, "out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("kept in run"), 130, "msbench: interrupted; kept in run"),
        (Terminated("kept in run"), 75, "msbench: told to end (SIGTERM); kept in run"),
        (ElsewhereError("process 1 of 2: no"), 2, ""),
        (SystemExit(0), 3, "unexpected SystemExit: 0"),
        (SystemExit(), 3, "unexpected SystemExit"),
        (KeyError("rfid"), 3, "unexpected KeyError: 'rfid' (test_boundary.py, line"),
        (RecursionError("deep"), 3, "traceback in "),
        (typer.Exit(1), 1, ""),
    ],
)
def test_whatever_ends_a_command_is_one_line_and_a_code(
    error: BaseException, code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = CliRunner().invoke(group(raising(error)), ["go"])
    assert done.exit_code == code
    assert words in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == bool(words)
    files = list(tmp_path.iterdir())
    assert len(files) == (code == 3)
    for file in files:
        assert str(file) in done.stderr
        assert "Traceback" in file.read_text()


def test_debug_prints_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("MSBENCH_DEBUG", "1")
    assert "Traceback" in CliRunner().invoke(group(raising(KeyError("x"))), ["go"]).stderr
    monkeypatch.setenv("MSBENCH_DEBUG", "0")
    assert "Traceback" not in CliRunner().invoke(group(raising(KeyError("x"))), ["go"]).stderr


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_number_that_is_none_is_refused(value: str) -> None:
    def command(x: float = typer.Option(0.0, callback=finite)) -> None:
        """Take a number."""

    assert CliRunner().invoke(group(command), ["go", f"--x={value}"]).exit_code == 2


SCRIPT = """
import os, sys
from harness.cli import shared
import typer
app = typer.Typer(cls=shared.Commands)
@app.command("go")
def go(as_json: shared.JsonFlag = False) -> None:
    print("printed by a plug-in")
    os.write(1, b"written by a library\\n")
    shared.say("said", as_json)
    shared.print_json({"rfid": float("nan")})
@app.command("lines")
def lines() -> None:
    shared.show(shared.Table((), (), "caf\\udce9 \\u2191 x[bold] shot[/x].png :smile:"))
    for _ in range(5_000):
        shared.say("caf\\udce9 \\u2191 out[red]x")
shared.open_streams()
app()
"""


def start(*command: str, **extra: object) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **extra.pop("env", {})}  # type: ignore[dict-item]
    return subprocess.run(command, check=False, timeout=120, env=env, **{"capture_output": True, **extra})  # type: ignore[call-overload, no-any-return]


def test_nothing_but_the_document_reaches_stdout_under_json() -> None:
    done = start(sys.executable, "-c", SCRIPT, "go", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"rfid": None}
    for words in (b"printed by a plug-in", b"written by a library", b"said"):
        assert words in done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
def test_any_encoding_takes_any_text(encoding: str) -> None:
    done = start(sys.executable, "-c", SCRIPT, "lines", env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    arrow = "↑" if encoding == "utf-8" else "?"
    first, *_, last = done.stdout.decode(encoding).splitlines()
    assert last == rf"caf\xe9 {arrow} out[red]x"
    assert rf"caf\xe9 {arrow} x[bold] shot[/x].png :smile:" in first


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("command", ["lines", "go", "--help"])
def test_a_full_disk_behind_stdout_is_one_line(command: str) -> None:
    with open("/dev/full", "w") as full:
        done = start(sys.executable, "-c", SCRIPT, command, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == ["msbench: reading or writing: No space left on device"]


def test_a_closed_stdout_is_no_fault() -> None:
    done = start("sh", "-c", '"$0" -c "$1" lines >&-', sys.executable, SCRIPT)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_leaves_is_no_fault() -> None:
    script = '"$0" -c "$1" lines | head -n 1; echo "${PIPESTATUS[0]}"'
    done = start("bash", "-c", script, sys.executable, SCRIPT)
    assert done.stderr == b""
    assert done.stdout.decode().split()[-1] == str(128 + signal.SIGPIPE)


def test_lines_and_tables_say_what_they_were_told(capsys: pytest.CaptureFixture[str]) -> None:
    say("out[red]x\n:smile:")
    show(listing(["name"], [["x[bold]"]]), stderr=True)
    caught = capsys.readouterr()
    assert caught.out == "out[red]x\\n:smile:\n"
    assert "x[bold]" in caught.err


def test_json_goes_to_a_stdout_that_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    def command(as_json: JsonFlag = False) -> None:
        """Print a document."""
        print_json({"a": 1})

    done = CliRunner().invoke(group(command), ["go", "--json"])
    assert json.loads(done.stdout) == {"a": 1}
