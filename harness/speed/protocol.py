"""What `msbench speed` measures and how: who competes, in which settings, for how long."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from harness.cost.cost import LARGEST_BATCH
from harness.cost.modes import Mode
from harness.errors import MsbenchError, UnknownNameError
from harness.registry import decoder_entries

Scope = Literal["decode", "end-to-end"]
"""Latents on the device to float pixels on the device; the same plus uint8 and the copy to the host. Never the encoder."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
Batch = int | Literal["max"]
Cores = int | Literal["all"]
SMALLEST_SIDE = 32
"""pixels"""


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
    """What one group of cells shares beside its processes; they differ in decoder and scope."""

    resolution: int
    """side of the decoded image in pixels"""
    mode: Mode
    """how the decoder runs"""
    batch: Batch
    """images per call; "max" is the largest power-of-two multiple that fits"""


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

    def __post_init__(self) -> None:
        for option, seconds, least in (
            ("--cell-seconds", self.cell_seconds, 1e-3),
            ("--budget-seconds", self.budget_seconds, 0),
        ):
            if seconds is not None and not least <= seconds < math.inf:
                raise MsbenchError(f"{option} {seconds:g}: give a number of seconds, {least:g} or more")
        for side in self.resolutions:
            if side < SMALLEST_SIDE:
                raise MsbenchError(f"--resolution {side}: metrics and decoders need {SMALLEST_SIDE} pixels or more")

    def settings(self) -> Iterator[Setting]:
        """Every setting, in the order measured."""
        for resolution in self.resolutions:
            for mode in self.modes:
                for batch in self.batch_sizes:
                    yield Setting(resolution, mode, batch)


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


def parse_batches(text: str) -> tuple[Batch, ...]:
    """Batch sizes from "1,8,max"; raises `MsbenchError`."""
    return tuple("max" if part == "max" else _count("--batch-sizes", text, part, "1,8,max") for part in _parts(text))


def parse_dtypes(text: str, known: Collection[str]) -> tuple[str, ...]:
    """dtypes from "fp32,bf16"; raises `UnknownNameError`."""
    names = tuple(_parts(text))
    for name in names:
        if name not in known:
            raise UnknownNameError("dtype", name, known)
    return names


def parse_cores(text: str, available: int) -> tuple[Cores, ...]:
    """Numbers of cores from "1,all"; raises `MsbenchError`, also for more than there are."""
    cores: tuple[Cores, ...] = tuple(
        "all" if part == "all" else _count("--cores", text, part, "1,all") for part in _parts(text)
    )
    too_many = [count for count in cores if isinstance(count, int) and count > available]
    if too_many:
        raise MsbenchError(f"--cores {text}: this process may use {available} cores")
    return cores


def _parts(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def _count(option: str, text: str, part: str, example: str) -> int:
    if not part.isdecimal() or not 1 <= int(part) <= LARGEST_BATCH:
        raise MsbenchError(f"{option} {text}: give whole numbers from 1 to {LARGEST_BATCH} or a word, such as {example}")
    return int(part)
