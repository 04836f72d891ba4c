"""SIGTERM, by which schedulers end a job, and Ctrl-C: a command leaves once what it has in hand is written."""

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
def terminable(finish: bool = False, interrupts: bool = False) -> Iterator[list[int]]:
    """Inside, SIGTERM raises `Terminated` where the command stands, as Ctrl-C does KeyboardInterrupt.

    Outside the main thread, which alone may handle signals, it does what it did before; a signal that is ignored stays so.

    Args:
        finish: it waits: what is yielded is no longer empty, and the block raises `Terminated` as soon as it can.
        interrupts: with `finish`, SIGINT waits too; what is yielded says which came. A third one raises
            KeyboardInterrupt (Ctrl-C under torchrun sends two).
    """
    came: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if not finish:
            raise Terminated
        if came.count(signal.SIGINT) > 2:
            raise KeyboardInterrupt

    able = threading.current_thread() is threading.main_thread()
    wanted = [signal.SIGTERM, *[signal.SIGINT] * interrupts] if able else []
    before = {one: signal.signal(one, handle) for one in wanted if signal.getsignal(one) != signal.SIG_IGN}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
