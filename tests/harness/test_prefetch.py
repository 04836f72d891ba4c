from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from harness.prefetch import prefetch


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "msbench-prefetch"]


@pytest.mark.parametrize("ahead", [1, 2, 50])
def test_same_items_in_the_same_order(ahead: int) -> None:
    assert list(prefetch(range(20), ahead)) == list(range(20))
    assert list(prefetch([], ahead)) == []
    assert list(prefetch([None, 0, False], ahead)) == [None, 0, False]
    assert not _threads()


def test_no_more_than_asked_for_is_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(10):
            made.append(item)
            yield item

    ahead = prefetch(items(), ahead=2)
    assert next(ahead) == 0
    for _ in range(200):
        if len(made) >= 4:
            break
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]  # one taken, two waiting, one in the thread's hand
    assert list(ahead) == list(range(1, 10))


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("disk gone")

    ahead = prefetch(items())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(OSError, match="disk gone"):
        next(ahead)
    assert not _threads()


@pytest.mark.parametrize("ahead", [1, 3])
def test_closing_early_ends_the_thread_and_the_items(ahead: int) -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.set()

    taken = prefetch(items(), ahead)
    assert next(taken) == 0
    taken.close()
    assert closed.is_set()
    assert not _threads()


def test_room_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="not 0"):
        prefetch([1], 0)
