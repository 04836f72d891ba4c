"""Latency: right on a known wait, exact on a scripted clock, bounded for slow calls."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from harness.cost.latency import measure_latency

CPU = torch.device("cpu")


class ScriptedClock:
    """A clock whose calls take the scripted seconds; the last one repeats."""

    def __init__(self, *durations: float) -> None:
        self.durations: Iterator[float] = iter(durations)
        self.last = 0.0
        self.now = 0.0
        self.calls = 0

    def __call__(self) -> float:
        return self.now

    def decode(self) -> None:
        self.last = next(self.durations, self.last)
        self.now += self.last
        self.calls += 1


def test_a_sleep_is_measured_right() -> None:
    latency = measure_latency(lambda: time.sleep(0.02), CPU, min_calls=5, max_calls=5, max_seconds=5.0)
    assert 20.0 <= latency.median_ms < 40.0
    assert latency.p10_ms <= latency.median_ms <= latency.p90_ms <= latency.p99_ms
    assert latency.n_calls == len(latency.samples_ms) == 5
    assert latency.ms_per_image(4) == latency.median_ms / 4


def test_percentiles_are_those_of_the_samples() -> None:
    clock = ScriptedClock(1.0, 1.0, 1.0, 1.0, *(0.001 * value for value in range(1, 11)))
    latency = measure_latency(clock.decode, CPU, min_calls=10, max_calls=10, max_seconds=60.0, clock=clock)
    assert latency.samples_ms == pytest.approx(range(1, 11))
    expected = np.percentile(np.arange(1, 11), [50, 10, 90, 99])
    assert (latency.median_ms, latency.p10_ms, latency.p90_ms, latency.p99_ms) == pytest.approx(tuple(expected))


def test_warm_up_waits_until_the_medians_agree() -> None:
    # Windows of two: 5 | 3 | 1 | 1 seconds; only the last pair agrees.
    clock = ScriptedClock(6.0, 4.0, 3.0, 3.0, 1.0, 1.0, 1.0)
    latency = measure_latency(clock.decode, CPU, min_calls=3, max_calls=3, max_seconds=1e6, clock=clock)
    assert (latency.warmup_calls, latency.settled) == (8, True)
    assert latency.samples_ms == pytest.approx([1000.0] * 3)


def test_a_slow_call_is_warmed_up_once_and_measured_min_calls_times() -> None:
    clock = ScriptedClock(30.0)
    latency = measure_latency(clock.decode, CPU, min_calls=2, max_calls=100, max_seconds=10.0, clock=clock)
    assert (latency.warmup_calls, latency.settled, latency.n_calls, clock.calls) == (1, False, 2, 3)


def test_measuring_stops_at_the_time_limit_or_at_max_calls() -> None:
    by_time, by_calls = ScriptedClock(1.0), ScriptedClock(0.001)
    assert measure_latency(by_time.decode, CPU, min_calls=1, max_calls=100, max_seconds=10.0, clock=by_time).n_calls == 10
    assert measure_latency(by_calls.decode, CPU, min_calls=1, max_calls=100, max_seconds=10.0, clock=by_calls).n_calls == 100


def test_a_gpu_is_waited_for_on_both_sides_and_warmed_up_ten_times(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: events.append("wait"))
    clock = ScriptedClock(0.5)

    def decode() -> None:
        events.append("call")
        clock.decode()

    latency = measure_latency(decode, torch.device("cuda"), min_calls=2, max_calls=2, max_seconds=60.0, clock=clock)
    assert latency.warmup_calls == 10
    assert events == ["wait", "call", "wait"] * 12


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="min_calls"):
        measure_latency(lambda: None, CPU, min_calls=5, max_calls=4, max_seconds=1.0)
