"""Latency: right on a known wait, exact on a scripted clock, bounded for slow calls."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.cost.latency import latency_of, measure_latency
from harness.cost.load import Load, LoadMeter, mean_load, others_busy

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


@pytest.mark.parametrize(
    ("seconds", "settled", "load", "words"),
    [
        ([1.0] * 10, True, Load(1.0, 0.05, 0.02, 9.0), None),
        ([1.0] * 10, True, Load(1.0, 0.31, 0.0, 9.0), "disturbed: its threads waited for a CPU 31 % of the time"),
        ([1.0] * 10, True, Load(1.0, None, 0.04, None), "disturbed: the hypervisor gave 4 % of the CPUs' time to others"),
        ([1.0, 2.0] * 5, False, None, "disturbed: the warm-up did not settle, and p90 is 2.0 times p10"),
        ([1.0, 2.0] * 5, True, Load(1.0, None, None, None), None),
        ([1.0, 1.4] * 5, False, Load(1.0, None, None, None), None),
    ],
)
def test_what_speaks_against_times_is_said(seconds: list[float], settled: bool, load: Load | None, words: str | None) -> None:
    assert latency_of(seconds, 4, settled, load).disturbance() == words


def proc(folder: Path, delays: dict[int, int], ticks: tuple[int, ...]) -> None:
    """What Linux says of this process's threads (nanoseconds waited) and of all CPUs."""
    for thread, nanoseconds in delays.items():
        (folder / "self" / "task" / str(thread)).mkdir(parents=True, exist_ok=True)
        (folder / "self" / "task" / str(thread) / "schedstat").write_text(f"123456 {nanoseconds} 7\n")
    (folder / "stat").write_text(f"cpu  {' '.join(map(str, ticks))} 0 0\ncpu0 1 2 3\n")


def test_load_is_that_of_the_most_delayed_thread_and_of_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr("harness.cost.load.time.perf_counter", lambda: now[0])
    proc(tmp_path, {1: 5 * 10**9, 2: 0}, (100, 0, 100, 800, 0, 0, 0, 50))
    meter = LoadMeter(tmp_path)
    now[0] = 14.0
    proc(tmp_path, {1: 6 * 10**9, 2: 10**8, 3: 2 * 10**9}, (200, 0, 110, 880, 0, 0, 0, 60))  # a third thread has begun
    load = meter.load()
    assert (load.seconds, load.run_delay, load.steal) == (4.0, 0.5, 10 / 200)
    proc(tmp_path, {}, (201, 0, 110, 880, 0, 0, 0, 61))
    assert LoadMeter(tmp_path).load().steal is None  # too short to tell
    assert mean_load([load, Load(12.0, 0.1, None, 1.0)]) == Load(
        16.0,
        pytest.approx(0.2),
        0.05,
        pytest.approx((4 * (load.load_average or 0) + 12) / 16),  # type: ignore[arg-type]
    )
    assert mean_load([]) is None


def test_a_system_without_proc_tells_nothing(tmp_path: Path) -> None:
    load = LoadMeter(tmp_path / "nothing").load()
    assert (load.run_delay, load.steal) == (None, None)


def test_cpus_that_others_keep_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPUs 1 and 3 of four, for one second of 100 ticks: 40 and 60 of them are not idle, and 0.25 s are this process's own."""
    clocks = {"perf_counter": [5.0, 6.0], "process_time": [2.0, 2.25]}
    for name, times in clocks.items():
        monkeypatch.setattr(f"harness.cost.load.time.{name}", lambda left=times: left.pop(0))
    monkeypatch.setattr("harness.cost.load.allowed_cpus", lambda: [1, 3])

    def stat(one: str, other: str) -> None:
        (tmp_path / "stat").write_text(f"cpu  9 9\ncpu0 {other} 0 0\ncpu1 {one} 7 7\ncpu3 {other} 0 0\ncpu30 1 2\nintr 1 2\n")

    stat("100 0 10 1000 50 0 0 5", "0 0 0 0 0 0 0 0")
    # user 20, nice 5, system 5, steal 10, idle 55, waiting for a disk 5; the other 60 of low priority, idle 40
    monkeypatch.setattr("harness.cost.load.time.sleep", lambda _: stat("120 5 15 1055 55 0 0 15", "0 60 0 40 0 0 0 0"))
    assert others_busy(1.0, tmp_path) == pytest.approx(0.4 + 0.6 - 0.25)


@pytest.mark.parametrize("text", [None, "", "cpu 0 0 0 0\ncpu0 0 0 0 0\ncpu1 0 0 0 0\n"])
def test_where_nothing_is_told_nobody_is_waited_for(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "stat").write_text(text)
    assert others_busy(0.01, tmp_path) == 0.0


def test_competing_processes_are_noticed() -> None:
    """Two processes on one core: this one waits about half of the time."""
    if LoadMeter().load().run_delay is None or not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system does not tell how long a process waits")
    core = min(os.sched_getaffinity(0))
    code = f"import os\nos.sched_setaffinity(0, {{{core}}})\nprint(flush=True)\nwhile True: pass"
    before = os.sched_getaffinity(0)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as rival:
        assert rival.stdout is not None
        rival.stdout.readline()
        os.sched_setaffinity(0, {core})
        try:
            latency = measure_latency(lambda: sum(range(100_000)), CPU, min_calls=3, max_calls=10_000, max_seconds=0.5)
        finally:
            os.sched_setaffinity(0, before)
            rival.kill()
    assert latency.load is not None
    assert (latency.load.run_delay or 0.0) > 0.2
    assert "waited for a CPU" in str(latency.disturbance())
