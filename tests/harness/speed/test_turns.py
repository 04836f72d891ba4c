"""The alternation, with workers that answer from a script instead of a process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import pytest

from harness.cost.attempt import Outcome
from harness.request.requests import DecoderRequest
from harness.speed.bench import Bench
from harness.speed.client import Client
from harness.speed.messages import Burst, Job, Prepared, TurnTimes
from harness.speed.protocol import Setting, SpeedProtocol
from harness.speed.turns import TimedCalls, Workers, time_in_turns, time_ratio

SETTING = Setting(256, "eager", 1)


class FakeClient:
    """Each call takes `seconds`; `fails` maps the number of a turn to the outcome it gets instead."""

    pid = 7

    def __init__(self, name: str, log: list[str], seconds: float = 0.001, fails: dict[int, Outcome] | None = None) -> None:
        self.name, self.log, self.seconds, self.fails = name, log, seconds, fails or {}
        self.turns = 0
        self.bursts: list[tuple[Any, ...]] = []

    def ask(self, method: Callable[..., Any], *arguments: Any) -> Outcome:
        match method.__name__, arguments:
            case "prepare", _:
                return self.fails.get(0, Outcome("ok", value=Prepared(1, 5000.0, 1000 * self.seconds, 4, True, True)))
            case "turn", (calls, seconds):
                self.turns += 1
                self.log.append(self.name)
                if self.turns in self.fails:
                    return self.fails[self.turns]
                count = max(1, min(calls, int(seconds / self.seconds)))
                return Outcome(
                    "ok", value=TurnTimes({"decode": [self.seconds] * count, "end-to-end": [self.seconds * 1.5] * count})
                )
            case "back_to_back", (calls, scope, pids, _):
                self.bursts.append((calls, scope, pids))
                return Outcome("ok", value=Burst(calls, calls * self.seconds, None))
        raise AssertionError(method)


def workers(*clients: FakeClient, on_gpu: bool = False) -> Workers:
    faked: dict[str, Any] = {client.name: client for client in clients}
    return Workers(faked, on_gpu)


def protocol(**changes: Any) -> SpeedProtocol:
    return SpeedProtocol(cell_seconds=10.0, **changes)


def play(clients: Sequence[FakeClient], on_gpu: bool = False, **changes: Any) -> dict[str, Any]:
    settings = dict.fromkeys([c.name for c in clients], SETTING)
    return time_in_turns(workers(*clients, on_gpu=on_gpu), settings, protocol(**changes), lambda: False)


def test_turns_alternate_and_the_quick_one_ends_at_a_hundred_calls() -> None:
    log: list[str] = []
    timings = play([FakeClient("a", log), FakeClient("b", log), FakeClient("c", log)])
    assert "".join(log) == "abc" * 10
    assert [timing.calls for timing in timings.values()] == [100, 100, 100]


def test_the_slowest_call_sets_the_rounds_and_everybody_plays_them_all() -> None:
    log: list[str] = []
    timings = play([FakeClient("slow", log, 2.0), FakeClient("quick", log, 0.01)])
    assert log == ["slow", "quick"] * 5  # five calls of two seconds fit into ten
    assert (timings["slow"].calls, timings["quick"].calls) == (5, 100)


def test_a_very_slow_decoder_is_called_three_times_and_nobody_is_left_alone_with_the_drift() -> None:
    log: list[str] = []
    timings = play([FakeClient("slower", log, 60.0), FakeClient("quick", log, 0.01)])
    assert log == ["slower", "quick"] * 3
    assert (timings["slower"].calls, timings["quick"].calls) == (3, 3 * 33)  # never more than a hundred
    assert {timing.outcome.status for timing in timings.values()} == {"ok"}


def test_ratios_are_taken_within_each_round() -> None:
    """The machine slows down threefold after two rounds, and the slow one has a round more: medians would say 15."""

    def timing(seconds: list[float], batch: int) -> TimedCalls:
        rounds = [TurnTimes({"decode": [value, value], "end-to-end": [3 * value]}) for value in seconds]
        return TimedCalls("x", SETTING, Outcome("ok"), Prepared(batch, 1.0, 1.0, 4, True, True), rounds)

    slow, quick = timing([1.0, 1.0, 3.0, 3.0, 3.3], 1), timing([0.2, 0.2, 0.6, 0.6], 2)
    assert time_ratio(slow, quick, "decode") == pytest.approx(10.0)
    assert time_ratio(slow, TimedCalls("gone", SETTING, Outcome("failed")), "decode") is None


def test_who_fails_leaves_and_the_others_go_on() -> None:
    log: list[str] = []
    gone = Outcome("out of memory", "all of it")
    timings = play([FakeClient("a", log), FakeClient("never", log, fails={0: gone}), FakeClient("late", log, fails={3: gone})])
    assert timings["a"].calls == 100
    assert (timings["never"].outcome, timings["never"].calls) == (gone, 0)
    assert (timings["late"].outcome, timings["late"].calls) == (gone, 20)
    assert log.count("late") == 3
    assert "never" not in log


def test_the_budget_ends_turns_and_keeps_what_is_enough() -> None:
    log: list[str] = []
    clients = [FakeClient("quick", log), FakeClient("slow", log, 2.0)]
    checks = iter([False, True, True, True])
    timings = time_in_turns(workers(*clients), dict.fromkeys(["quick", "slow"], SETTING), protocol(), lambda: next(checks))
    assert (timings["quick"].outcome.status, timings["quick"].calls) == ("ok", 20)
    assert (timings["slow"].outcome.status, timings["slow"].calls) == ("skipped_budget", 1)


def test_a_turn_cut_short_keeps_earlier_ones() -> None:
    log: list[str] = []
    cut = Outcome("skipped_budget", "cut")
    clients = [FakeClient("a", log, fails={2: cut})]
    timings = time_in_turns(workers(*clients), {"a": SETTING}, protocol(), lambda: clients[0].turns >= 2)
    assert (timings["a"].outcome.status, timings["a"].calls) == ("ok", 10)


def test_a_gpu_is_timed_back_to_back_as_well() -> None:
    clients = [FakeClient("a", [], 0.011), FakeClient("b", [], 9.0)]
    timings = play(clients, on_gpu=True)
    assert clients[0].bursts == [(454, "decode", (7, 7)), (303, "end-to-end", (7, 7))]  # half of ten seconds
    assert [calls for calls, *_ in clients[1].bursts] == [3, 3]
    assert timings["a"].bursts["decode"].seconds == pytest.approx(454 * 0.011)


def test_a_worker_that_takes_too_long_is_ended() -> None:
    """A real process; one second is less than it needs to import anything."""
    job = Job(DecoderRequest("identity", "identity"), "cpu", "fp32", None, "/nowhere", 0, 0.0)
    begin = time.monotonic()
    with closing(Client(job, deadline=begin + 0.2)) as client:
        outcome = client.ask(Bench.describe, 256)
        assert outcome.status == "skipped_budget"
        assert not client.alive
        assert client.ask(Bench.describe, 256) is outcome
    assert time.monotonic() - begin < 30.0
