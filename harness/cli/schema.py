"""The command that explains a record: schema."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from harness.cli.shared import JsonFlag, print_json, say


def schema_command(as_json: JsonFlag = False) -> None:
    """List every key of record.json with its type and meaning.

    \b
    Example:
      msbench schema --json
    """
    from harness.record.schema import SCHEMA_VERSION, RunData

    keys = list(describe(RunData))
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "keys": keys})
        return
    say(f"record.json, schema {SCHEMA_VERSION}")
    for key in keys:
        say(f"{key['key']}  ({key['type']})  {key['meaning']}")


def describe(section: type, path: str = "") -> Iterator[dict[str, str]]:
    """Key, type and meaning of every field, depth first; `[]` stands for each item, NAME for each name of a mapping."""
    meanings, hints = _field_lines(section), typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        key, hint = f"{path}{field.name}", hints[field.name]
        inner, step = _section(hint)
        if key == "dataset.info":  # as `flatten` has them, its fields stand beside the others
            yield from describe(typing.cast(type, inner), path)
            continue
        key = "results[].METRIC" if key == "results[].metrics" else key
        yield {"key": key, "type": _words(hint), "meaning": meanings.get(field.name, "")}
        if inner is not None:
            yield from describe(inner, f"{key}{step}.")


def _section(hint: Any, step: str = "") -> tuple[type | None, str]:
    """The dataclass that a type holds, and how a key steps into it."""
    if dataclasses.is_dataclass(hint):
        return typing.cast(type, hint), step
    inside = step + {tuple: "[]", Mapping: ".NAME"}.get(typing.cast(Any, typing.get_origin(hint)), "")
    found = (_section(part, inside) for part in typing.get_args(hint))
    return next((one for one in found if one[0] is not None), (None, ""))


def _words(hint: Any) -> str:
    """A type as JSON has it."""
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return "object"
    if origin is typing.Literal:
        return " | ".join(f'"{argument}"' for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_words(argument) for argument in arguments)
    if origin is tuple:
        return f"[{', '.join(_words(argument) for argument in arguments if argument is not Ellipsis)}]"
    if origin is Mapping:
        return f"{{name: {_words(arguments[1])}}}"
    return {str: "text", int: "integer", float: "number", bool: "true | false", type(None): "null"}.get(hint, "any JSON")


def _field_lines(section: type) -> dict[str, str]:
    """Field -> the docstring under it."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(body, ast.ClassDef)
    lines = {}
    for field, line in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):
            lines[typing.cast(ast.Name, field.target).id] = " ".join(str(line.value.value).split())
    return lines
