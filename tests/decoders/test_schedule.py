"""The step schedule."""

from __future__ import annotations

import pytest

from decoders.schedule import split_steps
from harness.errors import MsbenchError


@pytest.mark.parametrize(
    ("steps", "scales", "expected"),
    [(50, 3, (16, 17, 17)), (50, 1, (50,)), (3, 3, (1, 1, 1)), (50, 4, (12, 12, 13, 13)), (5, 3, (1, 2, 2)), (1, 1, (1,))],
)
def test_steps_are_split_evenly_and_the_rest_goes_to_the_finest(steps: int, scales: int, expected: tuple[int, ...]) -> None:
    assert split_steps(steps, scales) == expected
    assert sum(expected) == steps


@pytest.mark.parametrize(
    ("steps", "scales", "words"), [(2, 3, "at least one step a scale"), (0, 1, "step"), (5, 0, "at least one")]
)
def test_impossible_splits_are_refused(steps: int, scales: int, words: str) -> None:
    with pytest.raises(MsbenchError, match=words):
        split_steps(steps, scales)
