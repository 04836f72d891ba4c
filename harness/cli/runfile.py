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

_OUTPUTS = ("output_dir", "save_images")
_FLAGS = {"decoders": "decoder", "margins": "margin"}
"""field of `RunConfig` -> the option that sets it, where the names differ"""


def read_run_file(context: Any, path: Path | None) -> Path | None:
    """Callback of the eager option --config: what the file says counts for options that are not given.

    Raises:
        MsbenchError: the file cannot be read, or a value is of another type than the option's.
        UnknownNameError: a key is no option; the message suggests the nearest one.
    """
    if path is None or context.resilient_parsing:
        return path
    options = _of_record(path) if path.is_dir() or path.suffix == ".json" else _of_toml(path)
    names = {flag.lstrip("-"): one.name for one in context.command.params for flag in one.opts if one.name != "config"}
    names |= {old.lstrip("-"): names[new.lstrip("-")] for old, new in FORMER.items() if new.lstrip("-") in names}
    names = {name.replace("-", "_"): parameter for name, parameter in names.items()}
    hints = typing.get_type_hints(inspect.unwrap(context.command.callback))
    for key, value in options.items():
        name = names.get(key.replace("-", "_"))
        if name is None:
            raise UnknownNameError(f"key of {path}", key, names)
        context.default_map = {**(context.default_map or {}), name: _checked(f"{path}: {key}", value, hints[name])}
    return path


def _checked(where: str, value: Any, hint: Any) -> Any:
    """The value as an option takes it."""
    from pydantic import TypeAdapter, ValidationError

    if "list" in str(hint):
        value = [value] if isinstance(value, str) else value
    elif isinstance(value, list) and not any(isinstance(part, (dict, list)) for part in value):
        value = ",".join(map(str, value))
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise MsbenchError(f"{where} = {str(value)[:60]!r}: {first['msg']}") from error


def _of_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MsbenchError(f"{path} is no TOML file ({error})") from error


def _of_record(path: Path) -> dict[str, Any]:
    """The options of the run that wrote a record, but where it wrote: figures come out the same."""
    from harness.record.record import read_record

    config: dict[str, Any] = dict(read_record(path).data.config)
    cost = config.pop("cost")
    config |= {"cost": cost is not None}
    if cost is not None:
        sizes = ",".join(map(str, cost["batch_sizes"])) or "none"
        config |= {"cost_batch_sizes": sizes, "cost_seconds": cost["max_seconds"], "decoder_seconds": cost["decoder_seconds"]}
    found = {_FLAGS.get(key, key): value for key, value in config.items() if key not in (*_OUTPUTS, "sheet_rows")}
    return {key: value for key, value in found.items() if value is not None}
