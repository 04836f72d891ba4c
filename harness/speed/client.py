"""A worker process as its starter sees it: ask, and always get a reply, also from one that died or takes too long."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.process import BaseProcess
from typing import TypeVarTuple

from harness.cost.attempt import Outcome
from harness.speed.bench import Bench
from harness.speed.messages import Job
from harness.speed.worker import serve

_END_SECONDS = 5.0
_DEATH_SECONDS = 30.0  # of a process that closed its end: a busy machine takes a while
_KILLED = -9
Given = TypeVarTuple("Given")


class Client:
    """One worker process, started at once by `spawn`; `close` ends it.

    Args:
        job: what it runs; `started` is set here.
        deadline: `time.monotonic` after which it is killed in the middle of whatever it does; None = never.
    """

    def __init__(self, job: Job, deadline: float | None = None) -> None:
        self._job, self._deadline = job, deadline
        self.start()

    def start(self) -> None:
        """Start the process; in place of one that ended, close that one first."""
        context = multiprocessing.get_context("spawn")
        self._end: Outcome | None = None
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, replace(self._job, started=time.monotonic())))
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        """It still answers."""
        return self._end is None

    def ask(self, method: Callable[[Bench, *Given], object], *arguments: *Given) -> Outcome:
        """What a method of `Bench` gives there; "skipped_budget" where the deadline passed, "failed" where the process died."""
        if self._end is not None:
            return self._end
        try:
            self._connection.send((method, arguments))
            if not self._connection.poll(None if self._deadline is None else max(0.0, self._deadline - time.monotonic())):
                self._stop()
                self._end = Outcome("skipped_budget", "--budget-seconds ran out in the middle of this cell")
                return self._end
            reply: Outcome = self._connection.recv()
        except (EOFError, OSError):
            self._end = Outcome("failed", obituary(self._process))
            return self._end
        return reply

    def close(self) -> None:
        """End the process: asked to first, then made to."""
        if self._end is None:
            self._end = Outcome("failed", "the worker was closed")
            with suppress(OSError):  # it may be gone already
                self._connection.send(None)
            self._process.join(_END_SECONDS)
        self._stop()
        self._connection.close()

    def _stop(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()


def obituary(process: BaseProcess) -> str:
    """How a process ended, which is waited for."""
    process.join(_DEATH_SECONDS)
    code = process.exitcode
    cause = " (the system's way when host memory runs out)" if code == _KILLED else ""
    return f"the worker process died with exit code {code}{cause}"
