"""A worker process as its starter sees it: ask, and always get a reply, also from one that died or takes too long."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType

from harness.cost.attempt import Outcome
from harness.speed.messages import Job, Message
from harness.speed.worker import serve

_END_SECONDS = 5.0
_KILLED = -9


class Client:
    """Context manager around one worker process, started at once by `spawn`.

    Args:
        job: what it runs; `started` is set here.
        deadline: `time.monotonic` after which it is killed in the middle of whatever it does; None = never.
    """

    def __init__(self, job: Job, deadline: float | None = None) -> None:
        self._deadline = deadline
        self._end: Outcome | None = None
        self._connection, self._process = _start(job)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        """It still answers."""
        return self._end is None

    def ask(self, message: Message) -> Outcome:
        """The worker's reply; "skipped_budget" where the deadline passed first, "failed" where the process died."""
        if self._end is not None:
            return self._end
        try:
            self._connection.send(message)
            if not self._connection.poll(self._left()):
                self._stop()
                self._end = Outcome("skipped_budget", "--budget-seconds ran out in the middle of this cell")
                return self._end
            reply: Outcome = self._connection.recv()
        except (EOFError, OSError):
            self._end = Outcome("failed", self._obituary())
            return self._end
        return reply

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def restart(self, job: Job) -> None:
        """A new process in place of one that ended."""
        self.close()
        self._end = None
        self._connection, self._process = _start(job)

    def close(self) -> None:
        """End the process: asked to first, then made to."""
        if self._end is None:
            self._end = Outcome("failed", "the worker was closed")
            with suppress(OSError):  # it may be gone already
                self._connection.send(None)
            self._process.join(_END_SECONDS)
        self._stop()
        self._connection.close()

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _stop(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def _obituary(self) -> str:
        self._process.join(_END_SECONDS)
        code = self._process.exitcode
        cause = " (the system's way when host memory runs out)" if code == _KILLED else ""
        return f"the worker process died with exit code {code}{cause}"


def _start(job: Job) -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, replace(job, started=time.monotonic())))
    process.start()
    theirs.close()
    return ours, process
