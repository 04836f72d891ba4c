"""SIGTERM, by which schedulers end a job: a command leaves with exit code 75 once what it has in hand is written.

Outside `finishing` the signal raises `Terminated` where the command stands, as Ctrl-C does KeyboardInterrupt; inside it waits.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

EXIT_CODE = 75
"""EX_TEMPFAIL: started again in the same way, the command goes on"""


class Terminated(BaseException):
    """The process was told to end; no `Exception`, so that nobody takes it for a failure of a decoder."""


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated`."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    with _handler(end):
        yield


@contextmanager
def finishing() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM waits: what is yielded says whether it came, and the block then raises `Terminated` as soon as it can."""
    came: list[int] = []
    with _handler(lambda number, frame: came.append(number)):
        yield lambda: bool(came)


@contextmanager
def _handler(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """A handler of SIGTERM, and afterwards the one before; outside the main thread, which alone may set one, nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
