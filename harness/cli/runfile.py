"""Run files: the options of `msbench run` from a TOML file, or from the record of an earlier run.

A TOML file has a key for every option, `batch_size` or `batch-size` for --batch-size; an option that takes several values takes
a list too. Paths are those of the folder where the command is started, as they are on the command line.
"""

from __future__ import annotations

import inspect
import json
import tomllib
import typing
from pathlib import Path
from typing import Any

from harness.cli.command import FORMER
from harness.errors import MsbenchError, UnknownNameError

_COST = {"batch_sizes": "cost_batch_sizes", "max_seconds": "cost_seconds", "decoder_seconds": "decoder_seconds"}
_LEFT_OUT = ("output_dir", "save_images", "sheet_rows")


def read_run_file(context: Any, path: Path | None) -> Path | None:
    """Callback of the eager option --config: what the file says counts for options that are not given.

    Raises:
        MsbenchError: the file cannot be read, or a value is of another type than the option's.
        UnknownNameError: a key is no option; the message suggests the nearest one.
    """
    if path is None:
        return path
    try:
        options = _of_record(path) if path.is_dir() or path.suffix == ".json" else tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise MsbenchError(f"{path} is no TOML file ({error})") from error
    flags = {flag: one.name for one in context.command.params for flag in one.opts if one.name != "config"}
    flags |= {old: flags[new] for old, new in FORMER.items() if new in flags}
    names = {flag.lstrip("-").replace("-", "_"): name for flag, name in flags.items()}
    hints = typing.get_type_hints(inspect.unwrap(context.command.callback))
    for key, value in options.items():
        name = names.get(key.replace("-", "_"))
        if name is None:
            raise UnknownNameError(f"key of {path}", key, names)
        context.default_map = {**(context.default_map or {}), name: _checked(f"{path}: {key}", value, hints[name])}
    return path


def _checked(where: str, value: Any, hint: Any) -> Any:
    """The value as an option takes it: a list as "a,b", or "a,b" as a list."""
    from pydantic import TypeAdapter, ValidationError

    if "list" in str(hint):
        value = [value] if isinstance(value, str) else value
    elif isinstance(value, list) and all(isinstance(part, (str, int, float)) for part in value):
        value = ",".join(map(str, value))
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        raise MsbenchError(f"{where} = {str(value)[:60]!r}: {error.errors()[0]['msg']}") from error


def _of_record(path: Path) -> dict[str, Any]:
    """The options of the run that wrote a record, but where it wrote: figures come out the same."""
    from harness.record.record import read_record

    config: dict[str, Any] = dict(read_record(path).data.config)
    cost = config.pop("cost") or {}
    timed = {_COST[key]: value if value != [] else "none" for key, value in cost.items() if key in _COST}
    config |= {"decoder": config.pop("decoders"), "margin": config.pop("margins"), "cost": bool(cost), **timed}
    return {key: value for key, value in config.items() if value is not None and key not in _LEFT_OUT}
