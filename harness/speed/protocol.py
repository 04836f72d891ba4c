"""What `msbench speed` measures and how: in which settings, for how long."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from harness.cost.modes import Mode
from harness.errors import MsbenchError

Scope = Literal["decode", "end-to-end"]
"""Latents on the device to float pixels on the device; the same plus uint8 and the copy to the host. Never the encoder."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
Batch = int | Literal["max"]
Cores = int | Literal["all"]


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
    wait_seconds: float = 60.0
    """time for other processes to end, and for timing again what they disturbed, of the whole run; 0 = no wait"""
    ceiling_seconds: float = 2.0
    """time for the device's own limits, once per dtype and number of cores; 0 = not measured"""
    memory: bool = True
    """memory and cold start too, in a fresh process a cell"""
    seed: int = 0
    """seeds the samples' noise"""

    def settings(self, device: str) -> list[Setting]:
        """Every setting, in the order measured: those of one dtype and number of cores follow each other."""
        on_cores: tuple[Cores | None, ...] = self.cores if device == "cpu" else (None,)
        every = itertools.product(on_cores, self.dtypes, self.resolutions, self.modes, self.batch_sizes)
        return [Setting(resolution, mode, batch, dtype, cores) for cores, dtype, resolution, mode, batch in every]


def parse_list(text: str) -> tuple[str, ...]:
    """The parts of "a,b", each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))


def parse_counts(option: str, text: str, word: str, most: int, why: str) -> tuple[Any, ...]:
    """Whole numbers and `word` from "1,8,word", each once.

    Raises:
        MsbenchError: something else, or a number outside 1 to `most`; `why` says what sets that limit.
    """
    parts = parse_list(text)
    if not all(part == word or (re.fullmatch(r"\d{1,9}", part) and 1 <= int(part) <= most) for part in parts):
        raise MsbenchError(f"{option} {text}: give whole numbers from 1 to {most} ({why}) or a word, such as 1,{word}")
    return tuple(word if part == word else int(part) for part in parts)
