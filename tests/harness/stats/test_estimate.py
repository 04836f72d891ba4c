from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats.estimate import Estimate, Student, no_interval, unit_numbers


def test_student_interval_and_p_value_are_those_of_a_t_test() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 12)
    estimate = Estimate(values.mean(), 12, 12, Student(values.std(ddof=1) / math.sqrt(12), 12))
    expected = stats.ttest_1samp(values, 0.0)
    interval = estimate.interval(0.9)
    assert (interval.low, interval.high) == pytest.approx(tuple(expected.confidence_interval(0.9)))
    assert estimate.p_value() == pytest.approx(expected.pvalue)


def test_units_that_all_say_the_same_are_worth_a_sign_test() -> None:
    constant = Estimate(2.0, 5, 5, Student(0.0, 5))
    assert (constant.interval().low, constant.interval().high) == (2.0, 2.0)
    assert constant.p_value() == 2 * 0.5**5
    assert constant.p_value(2.0) == 1.0


def test_without_an_interval_nothing_is_shown() -> None:
    estimate = no_interval(3.0, 4, 1, "one photograph")
    assert not estimate.interval().known
    assert estimate.p_value() == 1.0
    assert estimate.note == "one photograph"


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Estimate(0.0, 3, 3, Student(1.0, 3)).interval(level)


def test_units_are_numbered_by_first_appearance_and_a_missing_label_stands_alone() -> None:
    assert unit_numbers(None, 3).tolist() == [0, 1, 2]
    assert unit_numbers(["b", None, "a", "b", float("nan"), ""], 6).tolist() == [0, 1, 2, 0, 3, 4]
    with pytest.raises(ValueError, match="2 cluster labels for 3 images"):
        unit_numbers(["a", "b"], 3)
