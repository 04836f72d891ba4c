"""Commands tried in this process: what is refused at once, and records whose names are hostile."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness.cli import app, doctor
from harness.environment import msbench_version
from harness.errors import MsbenchError
from harness.files import cache_dir
from tests.harness.conftest import MakeRun

NAME = "=cmd|' /C calc'!A0 <b>\x1b[31m[red]x[/nope]\n| next"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("speed", "--decoder", "jpeg", "--resolution", "7"), "at least 32"),
        (("speed", "--decoder", "jpeg", "--resolution", "99999999999999999999"), "at most"),
        (("speed", "--decoder", "jpeg", "--cost-batch-sizes", "0"), ""),
        (("speed", "--decoder", "jpeg", "--cost-seconds", "nan"), "--cost-seconds"),
        (("speed", "--decoder", "jpeg", "--budget-seconds", "inf"), "--budget-seconds"),
        (("speed", "--decoder", "jpeg", "--budget-seconds", "-1"), "--budget-seconds"),
        (("sweep", "--cost-seconds", "1e20"), "--cost-seconds"),
        (("sweep", "--seed", "99999999999999999999999"), "--seed"),
        (("sweep", "--seed", "-1"), "--seed"),
        (("sweep", "--resolution", "16"), "--resolution"),
        (("run", "--decoder", "jpeg", "--resolution", "24"), "--resolution"),
        (("claim", "a:b", "--data-dir", "x"), "--data-dir"),
        (("claim", "a:b"), "no run at a:b"),
        (("claim", "--dataset", "nothing"), "nothing"),
        (("claim", "--student", "nobody"), "nobody"),
        (("compare", "x", "--against", "y", "--update", "--fail-on-regression"), "--fail-on-regression"),
        (("compare", "x", "--against", "y", "--force"), "--force"),
        (("compare", "x", "--against", "y", "--published", "--format", "csv"), "--published, --format"),
        (("compare", "x", "--against", "y", "--baseline", "vae", "--margin", "psnr=1"), "--baseline, --margin"),
        (("compare", "x", "--update"), "--against"),
    ],
)
def test_numbers_out_of_range_and_contradictions_are_refused_at_once(arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert done.stdout == ""


def test_version_and_short_help() -> None:
    done = run("--version")
    assert (done.exit_code, done.stdout.split()) == (0, ["msbench", msbench_version()])
    assert "Exit codes: 0 done; 1 a check failed" in " ".join(run("-h").stdout.split())
    assert "--budget-seconds" in run("speed", "-h").stdout


@pytest.mark.parametrize("table_format", ["table", "markdown", "csv", "latex"])
def test_hostile_names_are_inert_in_every_format(table_format: str, tmp_path: Path, make_run: MakeRun) -> None:
    folder = tmp_path / "out[red]x"
    make_run(folder, {"vae": 0.0, NAME: 0.1})
    done = run("compare", str(folder), "--format", table_format)
    assert done.exit_code == 0, done.output
    assert not {sign for sign in done.output if not sign.isprintable()} - {"\n"}
    shown = r"\x1b[31m[red]x[/nope]\n| next"
    if table_format == "table":
        assert shown in done.stdout
    elif table_format == "markdown":
        assert "<b>" not in done.stdout
        assert r"\\x1b\[31m\[red\]x\[/nope\]\\n\| next" in done.stdout
    elif table_format == "csv":
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert [row["decoder"] for row in rows] == ["vae", f"'=cmd|' /C calc'!A0 <b>{shown}"]
    document = json.loads(run("compare", str(folder), "--json").stdout)
    assert [row["decoder"] for row in document["results"]] == ["vae", NAME]


def test_doctor_without_a_home_gives_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("MSBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(MsbenchError, match="MSBENCH_CACHE"):
        cache_dir()
    check = doctor._cache()
    assert not check.ok
    assert "MSBENCH_CACHE" in check.detail


def test_a_cache_that_is_a_file_or_read_only_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    assert not doctor._cache().ok
    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path / "not" / "yet"))
    assert doctor._cache().ok
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "set MSBENCH_CACHE" in doctor._cache().detail
