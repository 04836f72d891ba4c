"""What --help promises: examples that can be typed, one name and one meaning for one thing, groups, former names."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from harness.cli import EXIT_CODES, app
from harness.cli.command import FORMER, GROUP_OF, Command


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if hasattr(command, "commands"):
        for name, one in command.commands.items():
            yield from walk(one, (*path, name))
    else:
        yield path, command


COMMANDS = dict(walk(typer.main.get_command(app)))


def flags(command: Any) -> dict[str, Any]:
    """Every visible long option -> its parameter."""
    return {name: one for one in command.params for name in (*one.opts, *one.secondary_opts) if name.startswith("--")}


def examples(path: tuple[str, ...]) -> list[list[str]]:
    shown = CliRunner().invoke(app, [*path, "--help"]).stdout
    start = " ".join(["msbench", *path])
    return [
        shlex.split(line) for line in shown.splitlines() if line.strip().startswith(start + " ") and line.startswith("    ")
    ]


def distance(one: str, other: str) -> int:
    """Letters to put in, take out or change."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def test_exit_codes_name_commands_that_exist() -> None:
    named = EXIT_CODES.partition("a check failed (")[2].partition(")")[0].split(", ")
    assert "verify" in named
    for one in named:
        words = tuple(word for word in one.split() if not word.startswith("--"))
        assert all(option in flags(COMMANDS[words]) for option in one.split() if option.startswith("--"))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_examples_that_its_options_allow(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert isinstance(command, Command)
    known, found = flags(command), examples(path)
    assert found, f"no example in the help of {' '.join(path)}"
    for words in found:
        for word in words:
            name = word.partition("=")[0]
            assert not word.startswith("--") or name in known, f"{shlex.join(words)}: no option {name}"
        given = {one.name for word in words if (one := known.get(word.partition("=")[0]))}
        needed = {one.name for one in known.values() if one.required}
        assert needed <= given or "config" in given, f"{shlex.join(words)} lacks {needed - given}"


def test_no_two_options_differ_by_one_letter() -> None:
    assert distance("--batch-size", "--batch-sizes") == distance("--a", "--b") == 1
    names = sorted({name for command in COMMANDS.values() for name in flags(command)})
    assert [pair for pair in combinations(names, 2) if distance(*pair) == 1] == []


def test_one_option_means_one_thing_in_every_command() -> None:
    meanings: dict[str, dict[str, str]] = {}
    for path, command in COMMANDS.items():
        for name, one in flags(command).items():
            meanings.setdefault(name, {})[" ".join(path)] = one.help.partition(". ")[0].rstrip(".")
    assert {name: found for name, found in meanings.items() if len(set(found.values())) > 1} == {}


def test_every_parameter_has_a_text_and_every_text_a_parameter() -> None:
    assert [(path, one.name) for path, command in COMMANDS.items() for one in command.params if not one.help] == []
    taken = {one.name for command in COMMANDS.values() for one in command.params}
    taken |= {f"{one.name} in {command.name}" for command in COMMANDS.values() for one in command.params}
    assert GROUP_OF.keys() - taken == set()


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_options_stand_in_groups(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    shown = CliRunner().invoke(app, [*path, "--help"]).stdout
    ungrouped = [name for name, one in flags(command).items() if one.name not in GROUP_OF]
    assert ungrouped == []
    titles = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    groups = {GROUP_OF[one.name] for one in flags(command).values()}
    assert [title.rstrip(":") for title in titles if title.rstrip(":") in groups] != [] or not groups
    for name in flags(command):
        assert name in shown


@pytest.mark.parametrize("former", FORMER)
def test_former_names_are_taken_and_not_shown(former: str) -> None:
    takers = [(path, flags(command)) for path, command in COMMANDS.items() if FORMER[former] in flags(command)]
    assert takers
    for path, known in takers:
        assert former not in known
        assert former not in CliRunner().invoke(app, [*path, "--help"]).stdout.split()
    for words in ([former, "nonsense"], [f"{former}=nonsense"]):
        done = CliRunner().invoke(app, ["sweep", *words])
        assert done.exit_code == 2
        assert "No such option" not in done.stderr
        assert (FORMER[former] if former != "--baselines" else "nonsense") in done.stderr
    unknown = CliRunner().invoke(app, ["ls", former, "1"])
    assert "No such option" in unknown.stderr


def test_what_follows_two_dashes_is_no_option() -> None:
    assert "--cell-seconds" in CliRunner().invoke(app, ["compare", "--", "--cell-seconds"]).stderr
