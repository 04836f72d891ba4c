"""What else the machine does: before calls are timed, and meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

MOST_BUSY = 0.25
"""CPUs that other processes may keep busy on a quiet machine"""

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
        self._begin = time.perf_counter(), self._delays(), _ticks(proc)

    def load(self) -> Load:
        """From the making to now."""
        begin, delays_before, ticks_before = self._begin
        seconds, delays = max(time.perf_counter() - begin, 1e-9), self._delays()
        waited = [nanoseconds - delays_before.get(thread, 0) for thread, nanoseconds in delays.items()]
        ticks = [after - before for after, before in zip(_ticks(self._proc), ticks_before, strict=False)]
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


def _ticks(proc: Path, cpus: Collection[str] = ("cpu",)) -> list[int]:
    """CPU time so far by kind, `_STEAL` of them, of the machine or of some CPUs; empty where it is not told."""
    try:
        lines = [line.split() for line in (proc / "stat").read_text().splitlines()]
    except OSError:
        return []
    found = [map(int, words[1 : _STEAL + 1]) for words in lines if words and words[0] in cpus]
    return [sum(kind) for kind in zip(*found, strict=True)]


def allowed_cpus() -> list[int]:
    """CPUs that this process may use."""
    able = hasattr(os, "sched_getaffinity")
    return sorted(os.sched_getaffinity(0)) if able else list(range(os.cpu_count() or 1))


def others_busy(seconds: float = 0.5, proc: Path = Path("/proc")) -> float:
    """How many of the CPUs that this process may use others keep busy, from a window of so many seconds.

    That is what is neither idle nor this process's own: low-priority work counts, and what a hypervisor gives to others.
    Processes that this one waits for are taken to be idle. 0 where the system does not tell (no /proc).
    """
    cpus = {f"cpu{number}" for number in allowed_cpus()}
    begin, own, before = time.perf_counter(), time.process_time(), _ticks(proc, cpus)
    time.sleep(seconds)
    own = (time.process_time() - own) / (time.perf_counter() - begin)
    ticks = [after - then for after, then in zip(_ticks(proc, cpus), before, strict=False)]
    return max(0.0, len(cpus) * (1.0 - sum(ticks[3:5]) / sum(ticks)) - own) if any(ticks) else 0.0


def mean_load(loads: Sequence[Load]) -> Load | None:
    """Several windows as one, each weighted by its length; None for none."""
    if not loads:
        return None

    def mean(name: str) -> float | None:
        known = [(getattr(load, name), load.seconds) for load in loads if getattr(load, name) is not None]
        return sum(value * seconds for value, seconds in known) / sum(seconds for _, seconds in known) if known else None

    return Load(sum(load.seconds for load in loads), mean("run_delay"), mean("steal"), mean("load_average"))
