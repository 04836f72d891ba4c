"""results/manifest.toml against the folder, the commands it names and the columns the code writes today."""

from __future__ import annotations

import csv
import math
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from harness.cli import app
from harness.metrics.registry import METRICS
from harness.record.schema import SCHEMA_VERSION
from harness.report import published
from harness.report.comparison import difference_columns
from harness.report.results import results_table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
MANIFEST = RESULTS / "manifest.toml"
CONTENT = tomllib.loads(MANIFEST.read_text(encoding="utf-8"))
FILES: dict[str, dict[str, Any]] = {name: entry for name, entry in CONTENT.items() if isinstance(entry, dict)}
CSV_FILES = sorted(name for name in FILES if name.endswith(".csv"))
BY_HAND = ("literature", "text")
TEXTS = ("decoder", "dataset", "trained_on", "protocol_hash", "device", "dtype", "caveat")


def committed() -> set[str]:
    """Files below results/: what git tracks, or all but runs/ where this is no git checkout."""
    if shutil.which("git") and (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z", "results"], cwd=ROOT, capture_output=True, text=True, check=True)
        names = {Path(name).relative_to("results").as_posix() for name in listed.stdout.split("\0") if name}
        return {name for name in names if (RESULTS / name).exists()}
    found = {path.relative_to(RESULTS) for path in RESULTS.rglob("*") if path.is_file()}
    return {path.as_posix() for path in found if path.parts[0] != "runs"}


def header(name: str) -> list[str]:
    with (RESULTS / name).open(encoding="utf-8", newline="") as stream:
        return next(csv.reader(stream))


def entry_for(name: str) -> str:
    """A table to paste into the manifest."""
    lines = [f'["{name}"]', 'what = "one line"', 'command = "the command that writes it"']
    if name.endswith(".csv"):
        columns = ", ".join(f'"{column}"' for column in header(name))
        lines += ['layout = "results"  # or leave it out', f"columns = [{columns}]"]
    return "\n".join(lines)


def test_every_committed_file_is_named() -> None:
    missing = sorted(committed() - set(FILES))
    assert not missing, "add to results/manifest.toml:\n\n" + "\n\n".join(entry_for(name) for name in missing)


def test_every_named_file_is_there() -> None:
    gone = sorted(name for name in FILES if not (RESULTS / name).is_file())
    assert not gone, f"results/manifest.toml names files that are not there; write them or remove their entries: {gone}"


def test_every_entry_says_what_it_is_and_what_writes_it() -> None:
    for name, entry in FILES.items():
        allowed = {"what", "command", "layout", "columns"} if name.endswith(".csv") else {"what", "command"}
        assert {"what", "command"} <= set(entry) <= allowed, f"{name}: keys {sorted(entry)}, known are {sorted(allowed)}"
        by_hand = entry["command"] == "text"
        assert by_hand == (name.endswith("README.md") or name == MANIFEST.name), f"{name}: only texts are written by hand"


def test_the_schema_version_is_the_code_s() -> None:
    assert CONTENT["schema_version"] == SCHEMA_VERSION, (
        "run the commands of results/manifest.toml again where the columns changed, then set schema_version there"
    )


@pytest.mark.parametrize("name", CSV_FILES)
def test_the_columns_of_a_file_are_those_named(name: str) -> None:
    assert header(name) == FILES[name].get("columns"), f"results/{name} and its columns in results/manifest.toml differ"


def written_today(name: str, layout: str) -> Sequence[str]:
    """The columns that the code gives a file of this layout and content."""
    if layout == "published":
        return published.COLUMNS
    assert layout in ("results", "compared"), f"{name}: unknown layout {layout!r}"
    added: list[str] = []
    if layout == "compared":  # every usual metric is held against the baseline, and the extra ones that were measured
        compared = [metric for metric, info in METRICS.items() if not info.extra or metric in header(name)]
        added = ["baseline", *(column for metric in compared for column in difference_columns(metric))]
    with (RESULTS / name).open(encoding="utf-8", newline="") as stream:
        rows = [{column: text for column, text in row.items() if column not in added} for row in csv.DictReader(stream)]
    return [*columns([result_of(row) for row in rows]), *added]


def columns(results: Sequence[dict[str, Any]]) -> list[str]:
    return [column.key for column in results_table(results).columns if column.key]


def result_of(row: dict[str, str]) -> dict[str, Any]:
    """A row of a results table as the mapping it was made of: times by batch and intervals together again."""
    result: dict[str, Any] = {"ms_per_image": {}, "intervals": {}}
    for column, text in row.items():
        value: Any = text if column in TEXTS else float(text) if text else None
        if time := re.fullmatch(r"ms_per_image_b(\d+)", column):
            result["ms_per_image"] |= {} if value is None else {time[1]: value}
        elif bound := re.fullmatch(r"(.+)_(low|high)", column):
            result["intervals"].setdefault(bound[1], [math.nan, math.nan])[bound[2] == "high"] = value
        elif column.startswith("bits_per_"):
            nothing = {"kind": "nominal", "codebook_sizes": [], "perplexity": [], "tokens": 0}
            result["rate"] = result.get("rate", nothing) | {column: value}
        elif column == "top_octave_db":
            result["octaves_db"] = {"0": value}
        elif column != "caveat":
            result[column] = value
    return result | {"n": int(result["n"]), "parameters": result["parameters"] and int(result["parameters"])}


@pytest.mark.parametrize("name", [name for name in CSV_FILES if "layout" in FILES[name]])
def test_the_columns_of_a_file_are_those_the_code_writes(name: str) -> None:
    entry = FILES[name]
    assert list(written_today(name, entry["layout"])) == header(name), (
        f"the code writes other columns than results/{name} has: run `{entry['command']}`, then correct them in the manifest"
    )


def test_a_changed_table_would_be_noticed() -> None:
    row = {"decoder": "a", "dataset": "b", "n": "3", "psnr": "20", "psnr_low": "19", "psnr_high": "21", "parameters": ""}
    result = result_of({**row, "ms_per_image_b4": "2.5", "top_octave_db": "-1"})
    assert result["intervals"] == {"psnr": [19.0, 21.0]}
    assert result["ms_per_image"] == {"4": 2.5}
    assert {"psnr_low", "ms_per_image_b4", "top_octave_db", "caveat"} <= set(columns([result])) != set(row)


def script_exists(script: str, commit: str) -> bool:
    """The script stands in the checkout or, where a commit is named, in that: true where its history is not here."""
    if not commit:
        return (ROOT / script).is_file()
    git = ["git", "-C", str(ROOT), "cat-file", "-e"]
    known = shutil.which("git") and subprocess.run([*git, commit], capture_output=True, check=False).returncode == 0
    return not known or subprocess.run([*git, f"{commit}:{script}"], capture_output=True, check=False).returncode == 0


def check_command(name: str, command: str) -> None:
    """Fail where a command of the manifest does not exist any more."""
    then = re.match(r"at ([0-9a-f]{7,40}): (?=python )", command)
    words = shlex.split(command[then.end() if then else 0 :].partition(">")[0])
    if words[0] == "make":
        printed = dry_run(words[1])
        assert f"results/{Path(name).with_suffix('')}" in printed, f"`{command}` does not write results/{name}"
    elif words[0] == "msbench":
        parse(words[1:])
    else:
        assert words[0] == "python", f"{name}: `{command}` is neither make, msbench, python nor one of {BY_HAND}"
        assert script_exists(words[1], then[1] if then else ""), f"{name}: {words[1]} does not exist"


def dry_run(target: str) -> str:
    """What a target of the Makefile would run."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"make has no target {target!r}: {done.stderr}"
    return done.stdout


def parse(arguments: list[str]) -> None:
    """Let the command line parse its arguments without running anything; it raises on an unknown command or option."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *arguments = arguments
        assert name in command.commands, f"msbench has no command {name!r}"
        command = command.commands[name]
    command.make_context(command.name, list(arguments))


@pytest.mark.parametrize("name", sorted(name for name, entry in FILES.items() if entry["command"] not in BY_HAND))
def test_the_command_of_a_file_exists(name: str) -> None:
    check_command(name, FILES[name]["command"])


@pytest.mark.parametrize(
    "command",
    [
        *("make nonsense", "make test", "msbench nonsense", "msbench sweep --nonsense 1", "python benchmarks/nonsense.py"),
        *("at 6a3e9b3: python benchmarks/nonsense.py", "sh x"),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(command: str) -> None:
    with pytest.raises(Exception, match=r"nonsense|does not write|neither make"):
        check_command("photos-cpu.csv", command)
