"""What else the machine did while calls were timed: threads that waited for a CPU, time stolen from it, load average."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_FEWEST_TICKS = 50  # a tick is 10 ms of one CPU: with fewer, one of them would already be 2 %
_STEAL = 8  # user nice system idle iowait irq softirq steal, of proc(5); what follows is counted in user already


@dataclass(frozen=True, slots=True)
class Load:
    """A window of time on this machine. None where the system does not tell (no /proc)."""

    seconds: float
    """length of the window"""
    run_delay: float | None
    """share of it in which the most delayed thread of this process was ready to run and got no CPU"""
    steal: float | None
    """share of all CPUs' time that a hypervisor gave to others; None also in a window too short to tell"""
    load_average: float | None
    """processes running or ready to, over the last minute"""


class LoadMeter:
    """Looks at the machine when it is made, and again at `load`.

    Args:
        proc: where Linux describes itself; tests bring their own.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._begin = time.perf_counter(), self._delays(), self._ticks()

    def load(self) -> Load:
        """From the making to now."""
        begin, delays_before, ticks_before = self._begin
        seconds, delays = max(time.perf_counter() - begin, 1e-9), self._delays()
        waited = [nanoseconds - delays_before.get(thread, 0) for thread, nanoseconds in delays.items()]
        ticks = [after - before for after, before in zip(self._ticks(), ticks_before, strict=False)]
        return Load(
            seconds,
            min(1.0, max(waited) / 1e9 / seconds) if waited else None,
            ticks[_STEAL - 1] / sum(ticks) if sum(ticks) >= _FEWEST_TICKS else None,
            os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        )

    def _delays(self) -> dict[str, int]:
        """Nanoseconds that each thread of this process has waited on a run queue; empty where the kernel keeps no account."""
        found = {}
        for path in self._proc.glob("self/task/*/schedstat"):
            try:
                found[path.parent.name] = int(path.read_text().split()[1])
            except (OSError, IndexError):
                continue  # a thread that has ended, or a kernel without the account
        return found

    def _ticks(self) -> list[int]:
        """CPU time of the machine so far by kind, `_STEAL` of them; empty where it is not told."""
        try:
            words = (self._proc / "stat").read_text().split(maxsplit=_STEAL + 1)
        except OSError:
            return []
        return [int(word) for word in words[1 : _STEAL + 1]]


def mean_load(loads: Sequence[Load]) -> Load | None:
    """Several windows as one, each weighted by its length; None for none."""
    if not loads:
        return None

    def mean(name: str) -> float | None:
        known = [(getattr(load, name), load.seconds) for load in loads if getattr(load, name) is not None]
        return sum(value * seconds for value, seconds in known) / sum(seconds for _, seconds in known) if known else None

    return Load(sum(load.seconds for load in loads), mean("run_delay"), mean("steal"), mean("load_average"))
