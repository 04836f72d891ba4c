"""The alternation: prepared workers are timed a few calls each, in turns A B C A B C …, so that drift hits them alike.

Everybody plays the same number of rounds, and ratios are taken within each round: a machine that slows down for a minute slows
both sides of a ratio.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from harness.speed.client import Client
from harness.speed.messages import BackToBack, Prepare, Prepared, Reply, Row, Turn
from harness.speed.protocol import SCOPES, Scope, Setting, SpeedProtocol

_ROW_SHARE = 0.5
_MOST_IN_A_ROW = 2000


@dataclass(slots=True)
class Timing:
    """What one worker's calls in one setting took."""

    label: str
    """whose"""
    reply: Reply
    """of the preparation at first; of the first request that failed, if one did"""
    prepared: Prepared | None = None
    """what the preparation said; None where it failed"""
    rounds: list[dict[Scope, list[float]]] = field(default_factory=list)
    """seconds of each call, one entry a turn"""
    rows: dict[Scope, Row] = field(default_factory=dict)
    """calls back to back; on a CPU, where nothing is queued, the turns themselves serve"""

    def samples(self, scope: Scope) -> list[float]:
        """Seconds of every call, in order."""
        return [sample for turn in self.rounds for sample in turn[scope]]

    @property
    def calls(self) -> int:
        """Calls timed so far, of either scope."""
        return len(self.samples("decode"))

    def per_image(self, scope: Scope) -> list[float]:
        """Seconds an image, the median of each turn."""
        if self.prepared is None:
            return []
        return [median(turn[scope]) / self.prepared.batch for turn in self.rounds]


@dataclass(frozen=True, slots=True)
class Table:
    """Who sits at the table: labels and their workers, in the order of their turns."""

    clients: dict[str, Client]
    """label -> worker"""
    on_gpu: bool
    """calls are queued, so rows are timed apart"""
    idle_w: float | None = None
    """watts of the idle GPU"""

    def pids(self) -> tuple[int, ...]:
        """Processes of this measurement."""
        return tuple(client.pid for client in self.clients.values())


def time_in_turns(
    table: Table,
    settings: Mapping[str, Setting],
    protocol: SpeedProtocol,
    over: Callable[[], bool] = lambda: False,
) -> dict[str, Timing]:
    """Prepare every worker and time them in turns.

    There are `protocol.turns` rounds, or as many as the slowest call fits into `cell_seconds`, but never below `min_calls`.
    In each, every worker has its share of `cell_seconds` and of `max_calls`, and at least one call; one that fails leaves.

    Args:
        table: the workers.
        settings: which of them play, in the order of their turns, and what each runs.
        protocol: limits.
        over: the budget is used up: no further turn starts.
    """
    numbers = [size for size in protocol.batch_sizes if isinstance(size, int)]
    timings = {}
    for label, setting in settings.items():
        reply = table.clients[label].ask(Prepare(setting, protocol.cell_seconds, max(numbers, default=1)))
        timings[label] = Timing(label, reply, reply.value if reply.status == "ok" else None)
    waiting = [timing for timing in timings.values() if timing.prepared]
    rounds = _rounds([timing.prepared for timing in waiting if timing.prepared], protocol)
    turn = Turn(max(1, protocol.max_calls // rounds), protocol.cell_seconds / rounds)
    for _ in range(rounds):
        if over():
            break
        for timing in waiting:
            reply = table.clients[timing.label].ask(turn)
            if reply.status == "ok":
                timing.rounds.append(reply.value)
            elif not (reply.status == "skipped_budget" and timing.calls >= protocol.min_calls):
                timing.reply = reply
        waiting = [timing for timing in waiting if timing.reply.status == "ok"]
    for timing in timings.values():
        if timing.reply.status == "ok" and timing.calls < protocol.min_calls:
            timing.reply = Reply("skipped_budget", f"--budget-seconds ran out after {timing.calls} calls of this cell")
    if table.on_gpu:
        for timing in timings.values():
            if timing.reply.status == "ok" and not over():
                _time_rows(table, timing, protocol)
    return timings


def _rounds(prepared: Sequence[Prepared], protocol: SpeedProtocol) -> int:
    """How often everybody's turn comes."""
    slowest = max((one.call_ms / 1e3 for one in prepared), default=0.0)
    fitting = protocol.turns if slowest <= 0 else min(protocol.turns, int(protocol.cell_seconds / slowest))
    return max(1, protocol.min_calls, fitting)


def time_ratio(first: Timing, other: Timing, scope: Scope) -> float | None:
    """How many times as fast an image of `other` is: the median, over the rounds of both, of the ratio within each round."""
    pairs = zip(first.per_image(scope), other.per_image(scope), strict=False)
    found = [slow / quick for slow, quick in pairs if quick > 0]
    return median(found) if found else None


def _time_rows(table: Table, timing: Timing, protocol: SpeedProtocol) -> None:
    """Calls back to back in each scope, as many as the latencies say fit into half a cell's time."""
    for scope in SCOPES:
        samples = timing.samples(scope)
        typical = sum(samples) / len(samples)
        calls = min(_MOST_IN_A_ROW, max(protocol.min_calls, int(_ROW_SHARE * protocol.cell_seconds / typical)))
        reply = table.clients[timing.label].ask(BackToBack(calls, scope == "end-to-end", table.pids(), table.idle_w))
        if reply.status != "ok":
            timing.reply = reply
            return
        timing.rows[scope] = reply.value


def deadline_of(protocol: SpeedProtocol, begin: float) -> float | None:
    """`time.monotonic` at which the budget is used up; None without one."""
    return None if protocol.budget_seconds is None else begin + protocol.budget_seconds


def is_over(deadline: float | None) -> bool:
    """The deadline has passed."""
    return deadline is not None and time.monotonic() >= deadline
