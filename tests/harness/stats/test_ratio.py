"""Ratios of medians: value by hand, coverage by simulation, few calls, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.stats.ratio import ENOUGH_CALLS, median_ratio


def test_value_is_the_ratio_of_the_medians() -> None:
    ratio = median_ratio([1.0, 2.0, 90.0], [8.0, 4.0, 6.0])
    assert ratio.value == 3.0
    assert ratio.low <= 3.0 <= ratio.high
    assert "Welch" in ratio.method


def test_a_single_call_has_no_interval() -> None:
    ratio = median_ratio([2.0], [4.0, 5.0])
    assert (ratio.low, ratio.high) == (-math.inf, math.inf)


def test_equal_times_are_known_exactly() -> None:
    ratio = median_ratio([2.0] * 3, [6.0] * 3)
    assert [ratio.low, ratio.value, ratio.high] == pytest.approx([3.0] * 3, rel=1e-12)


@pytest.mark.parametrize("calls", [4, 40])
def test_intervals_hold_the_true_ratio(calls: int) -> None:
    held = 0
    for draw in range(200):
        generator = np.random.default_rng(draw)
        own, other = 10.0 * np.exp(generator.normal(0.0, 0.1, calls)), 30.0 * np.exp(generator.normal(0.0, 0.05, calls))
        ratio = median_ratio(own.tolist(), other.tolist(), seed=draw)
        assert ("bootstrap" in ratio.method) == (calls >= ENOUGH_CALLS)
        held += ratio.low <= 3.0 <= ratio.high
    assert held >= 0.9 * 200  # 95 % expected, 12 draws of slack for chance


@pytest.mark.parametrize("times", [[], [0.0, 1.0], [-1.0]])
def test_times_must_be_positive(times: list[float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        median_ratio(times, [1.0])
