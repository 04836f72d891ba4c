"""Wall-clock of a call: warmed up until it settles, synchronised on both sides, every sample kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import torch

from harness.cost.load import Load, LoadMeter

MOST_RUN_DELAY, MOST_STEAL, MOST_SPREAD = 0.05, 0.02, 1.5
"""Beyond these other work disturbed the calls: share of the time threads waited for a CPU, share of the CPUs' time stolen, and,
where the warm-up did not settle, p90 over p10"""

_SETTLED = 0.02
_WARM_UP_WINDOW = {"cuda": 5, "cpu": 2}


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of repeated calls, in milliseconds per call (not per image). Percentiles interpolate linearly between samples."""

    median_ms: float
    """half of the calls were faster"""
    p10_ms: float
    """10th percentile"""
    p90_ms: float
    """90th percentile"""
    p99_ms: float
    """99th percentile; close to the slowest call below 100 calls"""
    n_calls: int
    """calls measured"""
    warmup_calls: int
    """calls thrown away before"""
    settled: bool
    """the warm-up ended because two successive medians differed by less than 2 %, not because its time was up"""
    samples_ms: tuple[float, ...]
    """every measured call, in order"""
    load: Load | None = None
    """what else the machine did meanwhile; None where nobody looked"""

    def disturbance(self) -> str | None:
        """One line why these times say little about the decoder; None where nothing speaks against them."""
        run_delay, steal = (self.load.run_delay or 0.0, self.load.steal or 0.0) if self.load else (0.0, 0.0)
        found = []
        if run_delay > MOST_RUN_DELAY:
            found.append(f"its threads waited for a CPU {100 * run_delay:.0f} % of the time")
        if steal > MOST_STEAL:
            found.append(f"the hypervisor gave {100 * steal:.0f} % of the CPUs' time to others")
        if not self.settled and self.p90_ms > MOST_SPREAD * self.p10_ms:
            found.append(f"the warm-up did not settle, and p90 is {self.p90_ms / max(self.p10_ms, 1e-9):.1f} times p10")
        return f"disturbed: {'; '.join(found)}" if found else None

    def ms_per_image(self, batch_size: int) -> float:
        """The median divided by the number of images a call decodes."""
        return self.median_ms / batch_size


def measure_latency(
    decode: Callable[[], object],
    device: torch.device,
    *,
    min_calls: int,
    max_calls: int,
    max_seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Warm `decode` up, then time it call by call: synchronise, clock, call, synchronise, clock.

    The warm-up compares the medians of successive windows of calls (5 on a GPU, 2 elsewhere: so 10 and 4 calls at least) and
    ends where they differ by less than 2 %, or after `max_seconds`; one call always runs.

    Args:
        decode: what is measured; its result is dropped.
        device: where it runs; a CUDA or MPS device is waited for.
        min_calls: measured calls whatever they take.
        max_calls: measured calls at most.
        max_seconds: no further call starts after this much measured time, once there are `min_calls`.
        clock: seconds, monotonic; tests bring their own.
    """
    timed = partial(timed_call, decode, device, clock)
    warmup_calls, settled = warm_up(timed, device, max_seconds)
    samples: list[float] = []
    meter = LoadMeter()
    while len(samples) < min_calls or (len(samples) < max_calls and sum(samples) < max_seconds):
        samples.append(timed())
    return latency_of(samples, warmup_calls, settled, meter.load())


def latency_of(seconds: Sequence[float], warmup_calls: int, settled: bool, load: Load | None = None) -> Latency:
    """Measured calls, in seconds, as a `Latency`; at least one."""
    samples_ms = [1000.0 * sample for sample in seconds]
    p10, p50, p90, p99 = (float(value) for value in np.percentile(samples_ms, [10, 50, 90, 99]))
    return Latency(p50, p10, p90, p99, len(samples_ms), warmup_calls, settled, tuple(samples_ms), load)


def timed_call(call: Callable[[], object], device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call: synchronise, clock, call, synchronise, clock."""
    synchronise(device)
    begin = clock()
    call()
    synchronise(device)
    return clock() - begin


def warm_up(timed: Callable[[], float], device: torch.device, max_seconds: float) -> tuple[int, bool]:
    """Call until two successive windows agree or time is up; returns the number of calls and whether they agreed.

    Args:
        timed: does one call and gives its seconds.
        device: says how long a window is, 5 calls on a GPU and 2 elsewhere.
        max_seconds: time limit; one call always runs.
    """
    window = _WARM_UP_WINDOW.get(device.type, _WARM_UP_WINDOW["cpu"])
    samples: list[float] = []
    total = 0.0
    while True:
        samples.append(timed())
        total += samples[-1]
        if len(samples) >= 2 * window and len(samples) % window == 0:
            before, after = median(samples[-2 * window : -window]), median(samples[-window:])
            if abs(after - before) < _SETTLED * before:
                return len(samples), True
        if total >= max_seconds:
            return len(samples), False


def synchronise(device: torch.device) -> None:
    """Wait for all work queued on `device`; CPU work is never queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
