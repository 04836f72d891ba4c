"""Ranges of settings: every number of a config states its own in its type, and is held to it wherever it comes from.

From the command line come lines "group.field=value", from Python whole configs, from a checkpoint JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from harness.errors import MsbenchError, UnknownNameError

ConfigT = TypeVar("ConfigT")

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""a whole number from 1"""
Width = Annotated[int, Field(ge=1, le=2**14)]
"""channels of a layer"""
Widths = Annotated[tuple[Width, ...], Field(max_length=16)]
"""channels of each grid of a network"""
Depths = Annotated[tuple[Annotated[int, Field(ge=0, le=256)], ...], Field(max_length=16)]
"""blocks of each grid of a network"""
Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""a part of a whole, or a probability"""
Rate = Annotated[float, Field(ge=0.0, le=10.0)]
"""a learning rate"""
Weight = Annotated[float, Field(ge=0.0, le=1e9)]
"""factor on a term of a loss"""
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
"""a decay of AdamW"""
Positive = Annotated[float, Field(gt=0.0, le=1e9)]
"""a number above 0"""


def checked(group: str, config: ConfigT) -> ConfigT:
    """The config as it is, each field of the type and within the range it states.

    Raises:
        MsbenchError: the first one that is not, as "group.field=value".
    """
    hints = get_type_hints(type(config), include_extras=True)
    for entry in fields(config):  # type: ignore[arg-type]
        value = getattr(config, entry.name)
        _validated(hints[entry.name], value, f"{group}.{entry.name}={value}", strict=True)
    return config


def apply_settings(group: str, config: ConfigT, settings: Sequence[str]) -> ConfigT:
    """`config` with those of `settings` that name its group; the rest is somebody else's.

    Args:
        group: name of the config on the command line, as in "denoiser.width=96".
        settings: lines "group.field=value". Where a field is a list of numbers, the field's name without its final "s" gives
            every entry the same value: denoiser.width=96 makes all grids 96 wide.

    Raises:
        UnknownNameError: the config has no such field.
        MsbenchError: the value is not of the field's type or outside its range.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for setting in settings:
        (named, field), value = _split(setting)
        if named != group:
            continue
        every = f"{field}s"
        if field not in hints and (kind := _tuple_in(hints.get(every))):
            entry = _parse(get_args(kind)[0], value, setting)
            config = replace(config, **{every: (entry,) * len(getattr(config, every))})  # type: ignore[type-var]
        elif field in hints:
            config = replace(config, **{field: _parse(hints[field], value, setting)})  # type: ignore[type-var]
        else:
            raise UnknownNameError(f"field of {group}", field, hints)
    return config


def check_settings(settings: Sequence[str], groups: Sequence[str]) -> None:
    """Refuse lines that are not "group.field=value" or that name no group of this run.

    Raises:
        UnknownNameError: a group that this run does not have.
        MsbenchError: a line of another form.
    """
    for setting in settings:
        (group, _), _ = _split(setting)
        if group not in groups:
            raise UnknownNameError("group of settings", group, groups)


def first_problem(error: ValidationError) -> str:
    """The first complaint of pydantic, in one line: where, what was wanted, what came."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    words = problem["msg"][:1].lower() + problem["msg"][1:]
    return f"{where}: {words}, got {problem['input']!r:.60}" if where else words


def _split(setting: str) -> tuple[tuple[str, str], str]:
    name, equals, value = setting.partition("=")
    group, dot, field = name.strip().partition(".")
    if not (equals and dot and group and field and value.strip()):
        raise MsbenchError(f"--set {setting}: expected group.field=value, for example denoiser.width=96")
    return (group, field), value.strip()


def _parse(hint: Any, text: str, setting: str) -> Any:
    """`text` as the type `hint`; a list is separated by commas, "none" leaves out what may be left out."""
    if NoneType in get_args(hint) and text.lower() == "none":
        return None
    value = [part.strip() for part in text.split(",")] if _tuple_in(hint) else text
    return _validated(hint, value, f"--set {setting}", strict=False)


def _tuple_in(hint: Any) -> Any:
    """The type of a list, with or without a bound on its length; None of anything else."""
    return next((one for one in (hint, *get_args(hint)[:1]) if get_origin(one) is tuple), None)


def _validated(hint: Any, value: Any, where: str, strict: bool) -> Any:
    try:
        return TypeAdapter(hint).validate_python(value, strict=strict)
    except ValidationError as error:
        raise MsbenchError(f"{where}: {first_problem(error)}") from error
