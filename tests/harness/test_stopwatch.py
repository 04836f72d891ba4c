from __future__ import annotations

import time

import pytest
import torch

from harness.stopwatch import Stages, StageTime, Timing, timing_line


def test_stages_do_not_overlap_and_everything_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 2.0, 5.0, 6.0, 10.0])  # made, outer in, inner in, inner out, outer out, asked
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    stages = Stages()
    with stages.stage("outer"), stages.stage("inner"):
        pass
    timing = stages.timing()
    assert timing == Timing(10.0, {"inner": StageTime(3.0, 0.3), "outer": StageTime(2.0, 0.2)}, StageTime(5.0, 0.5))
    assert timing_line(timing) == "10.0 s: inner 30%, outer 20%, between them 50.0%"
    assert timing_line(timing, most=1) == "10.0 s: inner 30%, 1 others 20%, between them 50.0%"


def test_a_stage_that_fails_is_counted_and_repeats_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 1.0, 1.0, 3.0, 4.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    stages = Stages()
    with pytest.raises(ZeroDivisionError), stages.stage("decode"):
        raise ZeroDivisionError
    with stages.stage("decode"):
        pass
    assert stages.timing().stages == {"decode": StageTime(3.0, 0.75)}


def test_the_device_of_the_run_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    with Stages("cuda:3").stage("decode"):
        pass
    assert waited == [torch.device("cuda:3")]
