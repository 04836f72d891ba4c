"""The alternation: prepared workers are timed a few calls each, in turns A B C A B C …, so that drift hits them alike.

Everybody plays the same number of rounds, and ratios are taken within each round: a machine that slows down for a minute slows
both sides of a ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from harness.cost.attempt import Outcome
from harness.cost.latency import Latency, latency_of
from harness.cost.load import mean_load
from harness.cost.roofline import Ceilings
from harness.speed.bench import Bench
from harness.speed.client import Client
from harness.speed.messages import Burst, Prepared, TurnTimes
from harness.speed.protocol import SCOPES, Scope, Setting, SpeedProtocol

_BURST_SHARE = 0.5
_MOST_IN_A_BURST = 2000


@dataclass(slots=True)
class TimedCalls:
    """What one worker's calls in one setting took."""

    label: str
    """whose"""
    setting: Setting
    """of what"""
    outcome: Outcome
    """of the preparation at first; of the first request that failed, if one did"""
    prepared: Prepared | None = None
    """what the preparation said; None where it failed"""
    rounds: list[TurnTimes] = field(default_factory=list)
    """what each turn took"""
    bursts: dict[Scope, Burst] = field(default_factory=dict)
    """calls back to back; on a CPU, where nothing is queued, the turns themselves serve"""

    def samples(self, scope: Scope) -> list[float]:
        """Seconds of every call, in order."""
        return [sample for turn in self.rounds for sample in turn.seconds[scope]]

    @property
    def calls(self) -> int:
        """Calls timed so far, of either scope."""
        return len(self.samples("decode"))

    def latency(self, scope: Scope) -> Latency | None:
        """What the calls make; None where the outcome is not ok."""
        if self.outcome.status != "ok" or self.prepared is None:
            return None
        load = mean_load([turn.load for turn in self.rounds if turn.load])
        return latency_of(self.samples(scope), self.prepared.warmup_calls, self.prepared.settled, load)

    @property
    def clean(self) -> bool:
        """It was timed, and no other work shows in either scope."""
        return all(latency and not latency.disturbance() for latency in map(self.latency, SCOPES))

    def per_image(self, scope: Scope) -> list[float]:
        """Seconds an image, the median of each turn."""
        if self.prepared is None:
            return []
        return [median(turn.seconds[scope]) / self.prepared.batch for turn in self.rounds]


@dataclass(frozen=True, slots=True)
class Workers:
    """Who is timed: labels and their workers, in the order of their turns."""

    clients: dict[str, Client]
    """label -> worker"""
    on_gpu: bool
    """calls are queued, so calls back to back are timed apart"""
    idle_w: float | None = None
    """watts of the idle GPU"""
    ceilings: Ceilings | None = None
    """of the device in their dtype; None where measuring them failed"""


def time_in_turns(
    workers: Workers, settings: Mapping[str, Setting], protocol: SpeedProtocol, over: Callable[[], bool]
) -> dict[str, TimedCalls]:
    """Prepare every worker and time them in turns.

    There are `protocol.turns` rounds, or as many as the slowest call fits into `cell_seconds`, but never below `min_calls`.
    In each, every worker has its share of `cell_seconds` and of `max_calls`, and at least one call; one that fails leaves.

    Args:
        workers: who may play.
        settings: which of them play, in the order of their turns, and what each runs.
        protocol: limits.
        over: the budget is used up: no further turn starts.
    """
    numbers = [size for size in protocol.batch_sizes if isinstance(size, int)]
    timings = {}
    for label, setting in settings.items():
        outcome = workers.clients[label].ask(Bench.prepare, setting, protocol.cell_seconds, max(numbers, default=1))
        timings[label] = TimedCalls(label, setting, outcome, outcome.value)
    waiting = [timing for timing in timings.values() if timing.prepared]
    rounds = _rounds([timing.prepared for timing in waiting if timing.prepared], protocol)
    calls, seconds = max(1, protocol.max_calls // rounds), protocol.cell_seconds / rounds
    for _ in range(rounds):
        if over():
            break
        for timing in waiting:
            outcome = workers.clients[timing.label].ask(Bench.turn, calls, seconds)
            if outcome.status == "ok":
                timing.rounds.append(outcome.value)
            elif not (outcome.status == "skipped_budget" and timing.calls >= protocol.min_calls):
                timing.outcome = outcome
        waiting = [timing for timing in waiting if timing.outcome.status == "ok"]
    for timing in timings.values():
        if timing.outcome.status == "ok" and timing.calls < protocol.min_calls:
            timing.outcome = Outcome("skipped_budget", f"--budget-seconds ran out after {timing.calls} calls of this cell")
    if workers.on_gpu:
        for timing in timings.values():
            if timing.outcome.status == "ok" and not over():
                _time_bursts(workers, timing, protocol)
    return timings


def _rounds(prepared: Sequence[Prepared], protocol: SpeedProtocol) -> int:
    """How often everybody's turn comes."""
    slowest = max((one.call_ms / 1e3 for one in prepared), default=0.0)
    fitting = protocol.turns if slowest <= 0 else min(protocol.turns, int(protocol.cell_seconds / slowest))
    return max(1, protocol.min_calls, fitting)


def time_ratio(first: TimedCalls, other: TimedCalls, scope: Scope) -> float | None:
    """How many times as fast an image of `other` is: the median, over the rounds of both, of the ratio within each round."""
    pairs = zip(first.per_image(scope), other.per_image(scope), strict=False)
    found = [slow / quick for slow, quick in pairs if quick > 0]
    return median(found) if found else None


def _time_bursts(workers: Workers, timing: TimedCalls, protocol: SpeedProtocol) -> None:
    """Calls back to back in each scope, as many as the latencies say fit into half a cell's time."""
    for scope in SCOPES:
        samples = timing.samples(scope)
        typical = sum(samples) / len(samples)
        calls = min(_MOST_IN_A_BURST, max(protocol.min_calls, int(_BURST_SHARE * protocol.cell_seconds / typical)))
        pids = tuple(client.pid for client in workers.clients.values())
        outcome = workers.clients[timing.label].ask(Bench.back_to_back, calls, scope, pids, workers.idle_w)
        if outcome.status != "ok":
            timing.outcome = outcome
            return
        timing.bursts[scope] = outcome.value
