"""Settings from the command line: lines "group.field=value" over frozen dataclasses, each value read as its field's type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from harness.errors import MsbenchError, UnknownNameError

ConfigT = TypeVar("ConfigT")


def apply_settings(group: str, config: ConfigT, settings: Sequence[str]) -> ConfigT:
    """`config` with those of `settings` that name its group; the rest is somebody else's.

    Args:
        group: name of the config on the command line, as in "denoiser.width=96".
        settings: lines "group.field=value". Where a field is a list of numbers, the field's name without its final "s" gives
            every entry the same value: denoiser.width=96 makes all grids 96 wide.

    Raises:
        UnknownNameError: the config has no such field.
        MsbenchError: the value is not of the field's type.
    """
    for setting in settings:
        name, value = _split(setting)
        if name[0] == group:
            config = _with(config, name[1], value, setting)
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


def _split(setting: str) -> tuple[tuple[str, str], str]:
    name, equals, value = setting.partition("=")
    group, dot, field = name.strip().partition(".")
    if not (equals and dot and group and field and value.strip()):
        raise MsbenchError(f"--set {setting}: expected group.field=value, for example denoiser.width=96")
    return (group, field), value.strip()


def _with(config: ConfigT, field: str, value: str, setting: str) -> ConfigT:
    types = get_type_hints(type(config))
    names = [entry.name for entry in fields(config)]  # type: ignore[arg-type]
    every = f"{field}s"
    if field not in names and every in names and get_origin(types[every]) is tuple:
        entry = _parse(get_args(types[every])[0], value, setting)
        return replace(config, **{every: (entry,) * len(getattr(config, every))})  # type: ignore[type-var]
    if field not in names:
        raise UnknownNameError(f"field of {setting.partition('.')[0]}", field, names)
    return replace(config, **{field: _parse(types[field], value, setting)})  # type: ignore[type-var]


def _parse(kind: Any, value: str, setting: str) -> Any:
    """`value` as `kind`: bool, int, float, str, a Literal, a tuple of one kind, or any of these or None."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if NoneType in arguments and value.lower() == "none":
            return None
        return _parse(next(part for part in arguments if part is not NoneType), value, setting)
    if origin is Literal:
        if value not in arguments:
            raise UnknownNameError(f"value of {setting.partition('=')[0]}", value, list(arguments))
        return value
    if origin is tuple:
        return tuple(_parse(arguments[0], part.strip(), setting) for part in value.split(","))
    return _parse_plain(kind, value, setting)


def _parse_plain(kind: Any, value: str, setting: str) -> Any:
    if kind is str:
        return value
    if kind is bool and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            pass  # said below, in words
    raise MsbenchError(f"--set {setting}: {value!r} is not {_NAMES.get(kind, str(kind))}")


_NAMES: Mapping[Any, str] = {int: "a whole number", float: "a number", bool: "true or false"}
