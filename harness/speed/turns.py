"""The alternation: prepared workers are timed a few calls each, in turns A B C A B C …, so that drift hits them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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

    @property
    def measured_seconds(self) -> float:
        """Time of the longer scope's calls, which contains the other's work."""
        return sum(self.samples("end-to-end"))


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
    labels: Sequence[str],
    setting: Setting,
    protocol: SpeedProtocol,
    over: Callable[[], bool] = lambda: False,
) -> dict[str, Timing]:
    """Prepare every worker and time them in turns.

    Each turn is at most a tenth of the cell's calls and seconds (`protocol.turns`). A worker is done with `max_calls` calls or
    `cell_seconds`, whichever comes first, but never below `min_calls`; one that fails leaves the table.

    Args:
        table: the workers.
        labels: which of them play.
        setting: what they run.
        protocol: limits.
        over: the budget is used up: no further turn starts.
    """
    numbers = [size for size in protocol.batch_sizes if isinstance(size, int)]
    prepare = Prepare(setting, protocol.cell_seconds, max(numbers, default=1))
    timings = {}
    for label in labels:
        reply = table.clients[label].ask(prepare)
        timings[label] = Timing(label, reply, reply.value if reply.status == "ok" else None)
    turn = Turn(max(1, protocol.max_calls // protocol.turns), protocol.cell_seconds / protocol.turns)
    waiting = [timing for timing in timings.values() if timing.prepared]
    while waiting and not over():
        for timing in waiting:
            reply = table.clients[timing.label].ask(turn)
            if reply.status == "ok":
                timing.rounds.append(reply.value)
            elif not (reply.status == "skipped_budget" and timing.calls >= protocol.min_calls):
                timing.reply = reply
        waiting = [timing for timing in waiting if _goes_on(timing, protocol)]
    for timing in timings.values():
        if timing.reply.status == "ok" and timing.calls < protocol.min_calls:
            timing.reply = Reply("skipped_budget", f"--budget-seconds ran out after {timing.calls} calls of this cell")
    if table.on_gpu:
        for timing in timings.values():
            if timing.reply.status == "ok" and not over():
                _time_rows(table, timing, protocol)
    return timings


def _goes_on(timing: Timing, protocol: SpeedProtocol) -> bool:
    if timing.reply.status != "ok":
        return False
    if timing.calls < protocol.min_calls:
        return True
    return timing.calls < protocol.max_calls and timing.measured_seconds < protocol.cell_seconds


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
