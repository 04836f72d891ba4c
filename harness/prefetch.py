"""Work done ahead in one background thread, in order: loading goes on while the networks compute."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class _End:
    """The producer is done."""

    error: BaseException | None
    """what stopped it; None where the items ran out"""


def prefetch(items: Iterable[Item], ahead: int = 2) -> Generator[Item, None, None]:
    """The same items in the same order, up to `ahead` of them made before they are asked for.

    An error of `items` is raised here, in its place. Closing this generator (also by an error of the caller) stops the thread
    after the item in hand and closes `items`; no thread outlives it.

    Raises:
        ValueError: `ahead` is below 1.
    """
    if ahead < 1:
        raise ValueError(f"prefetch needs room for at least one item, not {ahead}")
    return _consume(items, queue.Queue(ahead), threading.Event())


def _consume(items: Iterable[Item], ready: queue.Queue[Item | _End], stop: threading.Event) -> Generator[Item, None, None]:
    thread = threading.Thread(target=_produce, args=(items, ready, stop), name="msbench-prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        while not ready.empty():  # a producer may wait for room
            ready.get_nowait()
        thread.join()


def _produce(items: Iterable[Item], ready: queue.Queue[Item | _End], stop: threading.Event) -> None:
    error: BaseException | None = None
    try:
        iterator = iter(items)
        try:
            for item in iterator:
                if stop.is_set():
                    break
                ready.put(item)
        finally:
            if isinstance(iterator, Generator):
                iterator.close()
    except BaseException as caught:  # noqa: BLE001 - handed to the consumer, which raises it
        error = caught
    if not stop.is_set():
        ready.put(_End(error))
