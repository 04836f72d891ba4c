"""SIGTERM, by which schedulers end a job: a command leaves with exit code 75 once what it has in hand is written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 75
"""EX_TEMPFAIL: started again in the same way, the command goes on"""


class Terminated(BaseException):
    """The process was told to end; no `Exception`, so that nobody takes it for a failure of a decoder."""


@contextmanager
def terminable(finish: bool = False) -> Iterator[list[int]]:
    """Inside, SIGTERM raises `Terminated` where the command stands, as Ctrl-C does KeyboardInterrupt.

    Outside the main thread, which alone may handle signals, it does what it did before.

    Args:
        finish: it waits: what is yielded is no longer empty, and the block raises `Terminated` as soon as it can.
    """
    came: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if not finish:
            raise Terminated

    able = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, handle) if able else None
    try:
        yield came
    finally:
        if able:
            signal.signal(signal.SIGTERM, before)
