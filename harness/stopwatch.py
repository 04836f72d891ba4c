"""Where a run's time goes: seconds a stage, and what lies between the stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Progress = Callable[[str, int, int], None]
"""Told how a long task goes: what it does now, how many of its parts are done, and of how many"""


@dataclass(frozen=True, slots=True)
class StageTime:
    """Time of one stage of a run."""

    seconds: float
    """spent in it"""
    share: float
    """of the whole run"""


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a run's time went."""

    seconds: float
    """in all"""
    stages: Mapping[str, StageTime]
    """longest first"""
    unaccounted: StageTime
    """between the stages"""


class Stages:
    """A stopwatch with one hand a stage. Stages do not overlap: the time of an inner one is taken from the outer one's.

    Args:
        device: on CUDA a stage ends when the device has done its work, so that no stage pays for another's kernels.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._seconds: dict[str, float] = {}
        self._inner = [0.0]
        self._started = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time inside the block to `name`, also where the block raises."""
        started = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
        finally:
            spent = time.perf_counter() - started
            own = spent - self._inner.pop()
            self._inner[-1] += spent
            self._seconds[name] = self._seconds.get(name, 0.0) + own

    def timing(self) -> Timing:
        """Since the stopwatch was made: each stage, and what no stage accounts for."""
        total = time.perf_counter() - self._started

        def entry(seconds: float) -> StageTime:
            return StageTime(round(seconds, 3), round(seconds / total, 4) if total > 0 else 0.0)

        longest = sorted(self._seconds.items(), key=lambda item: -item[1])
        lost = total - sum(self._seconds.values())
        return Timing(round(total, 3), {name: entry(seconds) for name, seconds in longest}, entry(lost))


def timing_line(timing: Timing, most: int = 6) -> str:
    """One line for people: the longest stages in percent, the others together, and the time between them."""
    stages = list(timing.stages.items())
    parts = [f"{name} {100 * entry.share:.0f}%" for name, entry in stages[:most]]
    if rest := stages[most:]:
        parts.append(f"{len(rest)} others {100 * sum(entry.share for _, entry in rest):.0f}%")
    return f"{timing.seconds:.1f} s: {', '.join(parts)}, between them {100 * timing.unaccounted.share:.1f}%"
