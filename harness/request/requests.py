"""What is asked of each decoder: `[LABEL=]NAME[@option=value]…`, read once for every command.

NAME is a registry name, KIND:LOCATION, or the path of a file, `my_model.py` or `my_model.py:attribute`. Options begin only at
an `@` that `identifier=` follows, so that an `@` in a path or a revision stays where it is; and a path that exists stays one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch

from harness.decoder import DTYPES, Decoder, DecoderOptions, parse_dtype
from harness.errors import MsbenchError, UnknownNameError
from harness.registry import FILE, KINDS, DecoderEntry, build_decoder, find_entry
from harness.request.hub import fetch, written

_OPTION = re.compile(r"@([A-Za-z_]\w*)=")
_MOST = {"steps": 100_000, "scales": 16}
"""largest value of the options that are whole numbers from 1"""


@dataclass(frozen=True, slots=True)
class DecoderRequest:
    """One row of a table, before anything is built."""

    label: str
    """what tables and records call the row, unique in a run; never a path: `files.safe_name` makes one of it"""
    name: str
    """registry name, KIND:LOCATION or a file's path, as written"""
    steps: int | None = None
    """see `DecoderOptions.steps`"""
    scales: int | None = None
    """see `DecoderOptions.scales`"""
    checkpoint: Path | None = None
    """see `DecoderOptions.checkpoint`"""
    weights: Literal["trained", "random"] | None = None
    """see `DecoderOptions.weights`; None = trained"""
    preset: str | None = None
    """see `DecoderOptions.preset`"""
    dtype: str | None = None
    """arithmetic of this row, fp32, bf16 or fp16; None = that of the run"""
    own: Mapping[str, str] = field(default_factory=dict)
    """see `DecoderOptions.own`"""

    def asked(self) -> dict[str, Any]:
        """The options that were given, as records keep them; `request_of` reads them back."""
        common = {name: getattr(self, name) for name in _COMMON} | {"checkpoint": written(self.checkpoint)}
        return {name: value for name, value in common.items() if value is not None} | dict(self.own)

    def text(self) -> str:
        """`[LABEL=]NAME[@option=value]…`, which `parse_request` reads back."""
        asked = [(option, str(value)) for option, value in self.asked().items()]
        label = "" if self.label == _default_label(self.name, asked) else f"{self.label}="
        return f"{label}{self.name}" + "".join(f"@{option}={value}" for option, value in asked)

    def with_defaults(self, steps: int | None, scales: int | None, checkpoint: Path | None) -> DecoderRequest:
        """The same row, where it does not say these itself."""
        return replace(self, steps=self.steps or steps, scales=self.scales or scales, checkpoint=self.checkpoint or checkpoint)

    def pinned(self, offline: bool = False) -> DecoderRequest:
        """The same row, files of the hub under their commit; fetches them, and raises as `harness.request.hub.fetch`."""
        checkpoint = self.checkpoint and Path(fetch(str(self.checkpoint), offline)[1])
        return replace(self, checkpoint=checkpoint, own=self._own(1, offline))

    def _own(self, part: int, offline: bool) -> dict[str, str]:
        """`own`, and of an encoder of the hub that part of what `fetch` finds."""
        return {name: fetch(value, offline)[part] if name == "encoder" else value for name, value in self.own.items()}

    def options(self, device: torch.device, dtype: torch.dtype, offline: bool = False, resolution: int = 0) -> DecoderOptions:
        """What its factory is given; `dtype` counts where the row names none."""
        checkpoint = self.checkpoint and Path(fetch(str(self.checkpoint), offline)[0])
        own_dtype = dtype if self.dtype is None else DTYPES[self.dtype]
        sizes = self.steps, self.scales, self.weights or "trained", self.preset
        return DecoderOptions(
            device, own_dtype, checkpoint, *sizes, own=self._own(0, offline), offline=offline, resolution=resolution
        )

    def build(self, device: torch.device, dtype: torch.dtype, offline: bool = False, resolution: int = 0) -> Decoder:
        """The decoder; raises as `build_decoder` does."""
        return build_decoder(self.name, self.options(device, dtype, offline, resolution))


_COMMON = tuple(one.name for one in fields(DecoderRequest) if one.name not in ("label", "name", "own"))


def parse_request(text: str, label: str = "") -> DecoderRequest:
    """The row that `[LABEL=]NAME[@option=value]…` asks for; `label` goes before one in the text and must have a place there.

    Without either a row is called as it is written, a path by its last part without `.py`.

    Raises:
        UnknownNameError: no such decoder, or no such option of it.
        MsbenchError: a value that does not fit, an option given twice, or an empty label.
    """
    head, values = _split(text)
    written, equals, name = (part.strip() for part in head.partition("="))
    if not equals or _exists(head):
        written, equals, name = "", "", head
    if equals and not written:
        raise MsbenchError(f"--decoder {text}: the label before '=' is empty")
    _check_label(label, label in (_default_label(name, values), _default_label(name, ())))
    if len({option for option, _ in values}) < len(values):
        raise MsbenchError(f"--decoder {text}: an option is given twice")
    return request_of(label or written or _default_label(name, values), name, dict(values))


def live_request(label: str) -> DecoderRequest:
    """The row of an object of the calling program: its label may carry options too, `mine@range=01`.

    Raises as `parse_request`.
    """
    name, values = _split(label)
    _check_label(name, False)
    return request_of(label, name, dict(values), FILE)


def _check_label(label: str, usual: bool) -> None:
    """Raise `MsbenchError` for one that no text can give a row; `usual` ones go without saying."""
    if not usual and re.search(r"[=,]|@[A-Za-z_]\w*$", label):
        raise MsbenchError(
            f"label {label!r}: leave out =, @ and the comma, which LABEL=NAME,… of a command or a record could not hold"
        )


def request_of(label: str, name: str, asked: Mapping[str, Any], entry: DecoderEntry | None = None) -> DecoderRequest:
    """A row by its parts; `asked` holds its options, as texts or as a record keeps them; `entry` is found by its name.

    Raises as `parse_request`.
    """
    known = (*_COMMON, *(entry or find_entry(name)[0]).own)
    unknown = [option for option in asked if option not in known]
    if unknown:
        raise UnknownNameError(f"option of decoder {name}", unknown[0], known)
    common: dict[str, Any] = {option: _value(name, option, str(value)) for option, value in asked.items() if option in _COMMON}
    own = {option: str(value) for option, value in asked.items() if option not in _COMMON}
    return DecoderRequest(label, name, **common, own=own)


def parse_requests(texts: Iterable[str]) -> tuple[DecoderRequest, ...]:
    """Every row, in order.

    Raises:
        MsbenchError: there is none, or two share a label; see `parse_request` for the rest.
    """
    requests = tuple(map(parse_request, texts))
    if not requests:
        raise MsbenchError("no decoder given: use --decoder NAME[,NAME…]; `msbench ls decoders` lists them")
    labels = [request.label for request in requests]
    for request in requests:
        if labels.count(request.label) > 1:
            example = replace(request, label="LABEL").text()
            raise MsbenchError(f"--decoder names {request.label} twice: write {example} to give a row a name of its own")
    return requests


def split_list(text: str) -> tuple[str, ...]:
    """The parts of "a,b"; commas of a path that exists separate nothing."""
    parts, found = text.split(","), list[str]()
    while parts:
        together = next((n for n in range(len(parts), 1, -1) if _is_one(",".join(parts[:n]))), 1)
        found.append(",".join(parts[:together]).strip())
        parts = parts[together:]
    return tuple(filter(None, found))


def _is_one(text: str) -> bool:
    """Each of its commas is part of a path that exists."""
    head, values = _split(text)
    label, _, name = head.partition("=")
    whole = "," not in head or _exists(head) or ("," not in label and _exists(name))
    return whole and all("," not in value or os.path.exists(value) for _, value in values)


def _split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """What comes before the options, and each option with its value; within a path that exists no option begins."""
    text, option, begin, found = text.strip(), "", 0, list[tuple[str, str]]()
    while True:
        ends = [*_OPTION.finditer(text, begin), None]
        parts = [text[begin : end and end.start()] for end in ends]
        longest = next((n for n in range(len(ends) - 1, 0, -1) if _is_path(parts[n], option)), 0)
        found.append((option, parts[longest]))
        if (end := ends[longest]) is None:
            return found[0][1], found[1:]
        option, begin = end[1], end.end()


def _is_path(part: str, option: str) -> bool:
    """An option's value, or without one a name with or without label, is a path that exists."""
    names = part, part.partition("=")[2]
    places = (name for name in names if _location(name) != name or re.search(r"\.py(:\w+)?$", name))
    return os.path.exists(part) if option else any(map(_exists, places))


def _location(name: str) -> str:
    """What follows a kind; any other name as it is."""
    kind, colon, location = name.partition(":")
    return location if colon and kind in KINDS else name


def _exists(name: str) -> bool:
    """The path in a name is there."""
    return os.path.exists(re.sub(r"(?<=\.py):\w+$", "", _location(name)))


def _default_label(name: str, values: Iterable[tuple[str, str]]) -> str:
    head = re.sub(r"\.py(?=$|:\w+$)", "", _last(_location(name)))
    return head + "".join(f"@{option}={_last(value)}" for option, value in values)


def _last(text: str) -> str:
    """The last part of a path; any other text as it is."""
    return text.rstrip("/").rpartition("/")[2] or text


def _value(name: str, option: str, value: str) -> int | Path | str:
    if option in _MOST:
        if not re.fullmatch(r"\d{1,9}", value) or not 1 <= int(value) <= _MOST[option]:
            raise MsbenchError(f"--decoder {name}: {option} is a whole number from 1 to {_MOST[option]:,}, not {value[:40]!r}")
        return int(value)
    if option == "weights" and value not in ("trained", "random"):
        raise MsbenchError(f"--decoder {name}: weights is trained or random, not {value!r}")
    if option == "dtype":
        parse_dtype(value)
    return Path(value) if option == "checkpoint" else value
