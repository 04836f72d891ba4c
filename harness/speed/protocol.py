"""What `msbench speed` measures and how: who competes, in which settings, for how long."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from harness.cost.modes import Mode
from harness.errors import MsbenchError, UnknownNameError
from harness.registry import decoder_entries

Scope = Literal["decode", "end-to-end"]
"""Latents on the device to float pixels on the device; the same plus uint8 and the copy to the host. Never the encoder."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
Batch = int | Literal["max"]
Cores = int | Literal["all"]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One decoder as it competes."""

    label: str
    """what tables call it: NAME, or NAME@steps=10 as the user wrote it"""
    name: str
    """registry name"""
    steps: int | None = None
    """see `DecoderOptions.steps`"""
    scales: int | None = None
    """see `DecoderOptions.scales`"""
    checkpoint: Path | None = None
    """see `DecoderOptions.checkpoint`"""
    weights: Literal["trained", "random"] = "trained"
    """see `DecoderOptions.weights`"""
    preset: str | None = None
    """see `DecoderOptions.preset`"""


@dataclass(frozen=True, slots=True)
class Setting:
    """What one group of cells shares; they differ in decoder and scope."""

    resolution: int
    """side of the decoded image in pixels"""
    mode: Mode
    """how the decoder runs"""
    batch: Batch
    """images per call; "max" is the largest power-of-two multiple that fits"""
    dtype: str = "fp32"
    """fp32, bf16 or fp16; of the processes"""
    cores: Cores | None = None
    """CPU cores they are pinned to; None on a GPU"""

    def __str__(self) -> str:
        cores = "" if self.cores is None else f", cores {self.cores}"
        return f"batch {self.batch}, {self.mode}, {self.dtype}, {self.resolution} px{cores}"


@dataclass(frozen=True, slots=True)
class SpeedProtocol:
    """How speed is measured; part of the record, since figures of different protocols do not compare."""

    batch_sizes: tuple[Batch, ...] = (1, 8)
    """images per call"""
    modes: tuple[Mode, ...] = ("eager",)
    """see `harness.cost.modes`"""
    dtypes: tuple[str, ...] = ("fp32",)
    """arithmetic of the decoders"""
    resolutions: tuple[int, ...] = (256,)
    """sides of the decoded images"""
    cores: tuple[Cores, ...] = (1, "all")
    """CPU cores to pin to; on a GPU one value that means nothing"""
    cell_seconds: float = 10.0
    """measured time per cell; the warm-up may take as much again"""
    min_calls: int = 3
    """measured calls per cell whatever they take"""
    max_calls: int = 100
    """measured calls per cell at most"""
    turns: int = 10
    """turns a cell's calls are spread over, at least as long as calls are short enough"""
    budget_seconds: float | None = None
    """time for everything; what does not fit is `skipped_budget`; None = no limit"""
    ceiling_seconds: float = 2.0
    """time for the device's own limits, once per dtype and number of cores; 0 = not measured"""
    seed: int = 0
    """seeds the samples' noise"""

    def settings(self, device: str) -> list[Setting]:
        """Every setting, in the order measured: those of one dtype and number of cores follow each other."""
        on_cores: tuple[Cores | None, ...] = self.cores if device == "cpu" else (None,)
        every = itertools.product(on_cores, self.dtypes, self.resolutions, self.modes, self.batch_sizes)
        return [Setting(resolution, mode, batch, dtype, cores) for cores, dtype, resolution, mode, batch in every]


_OPTIONS = tuple(field.name for field in fields(Contestant) if field.name not in ("label", "name"))


def parse_contestant(text: str) -> Contestant:
    """NAME, or NAME@OPTION=VALUE with as many options as wanted: steps, scales, checkpoint, weights, preset.

    Raises:
        UnknownNameError: no such decoder or option.
        MsbenchError: a value that does not fit.
    """
    name, *parts = text.split("@")
    entries = decoder_entries()
    if name not in entries:
        raise UnknownNameError("decoder", name, entries)
    values: dict[str, Any] = {}
    for part in parts:
        option, _, value = part.partition("=")
        if option not in _OPTIONS:
            raise UnknownNameError("decoder option", option, _OPTIONS)
        values[option] = _value(text, option, value)
    return Contestant(text, name, **values)


def _value(text: str, option: str, value: str) -> int | Path | str:
    if option in ("steps", "scales"):
        if not value.isdecimal() or int(value) < 1:
            raise MsbenchError(f"--decoder {text}: {option} is a whole number from 1, not {value!r}")
        return int(value)
    if option == "weights" and value not in ("trained", "random"):
        raise MsbenchError(f"--decoder {text}: weights is trained or random, not {value!r}")
    return Path(value) if option == "checkpoint" else value


def parse_contestants(names: Sequence[str]) -> tuple[Contestant, ...]:
    """Everybody who competes, first the one the others are held against.

    Raises:
        MsbenchError: nobody, or somebody twice; see `parse_contestant`.
    """
    if not names:
        raise MsbenchError("no decoder given: use --decoder NAME[,NAME…]; `msbench ls decoders` lists them")
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise MsbenchError(
            f"--decoder names {', '.join(sorted(repeated))} twice; the first decoder is timed against itself anyway"
        )
    return tuple(parse_contestant(name) for name in names)


def parse_list(text: str) -> tuple[str, ...]:
    """The parts of "a,b", each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))


def parse_counts(option: str, text: str, word: str, most: int, why: str) -> tuple[Any, ...]:
    """Whole numbers and `word` from "1,8,word", each once.

    Raises:
        MsbenchError: something else, or a number outside 1 to `most`; `why` says what sets that limit.
    """
    parts = parse_list(text)
    if not all(part == word or (part.isdecimal() and 1 <= int(part) <= most) for part in parts):
        raise MsbenchError(f"{option} {text}: give whole numbers from 1 to {most} ({why}) or a word, such as 1,{word}")
    return tuple(word if part == word else int(part) for part in parts)
