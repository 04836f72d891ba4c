from __future__ import annotations

import numpy as np
import pytest

from harness.stats.estimate import Estimate, Student
from harness.stats.multiple import holm


def test_a_worked_example() -> None:
    # 4 hypotheses: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 made monotone
    found = holm([0.01, 0.04, 0.03, 0.005])
    assert [c.p_value for c in found] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [c.rejected for c in found] == [True, False, False, True]
    assert [c.level for c in found] == pytest.approx([1 - 0.05 / 3, 1 - 0.05 / 2, 1 - 0.05 / 2, 1 - 0.05 / 4])


def test_one_comparison_needs_no_correction() -> None:
    (only,) = holm([0.049])
    assert (only.p_value, only.rejected, only.level) == (0.049, True, 0.95)


def test_nothing_to_correct() -> None:
    assert holm([]) == []


def test_intervals_at_the_given_levels_show_the_decisions() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        estimates = [Estimate(value, 20, 20, Student(1.0, 20)) for value in generator.normal(1.5, 1.5, 5)]
        for estimate, corrected in zip(estimates, holm([e.p_value() for e in estimates]), strict=True):
            interval = estimate.interval(corrected.level)
            assert (interval.low > 0.0 or interval.high < 0.0) == corrected.rejected


def test_the_family_errs_no_more_often_than_promised() -> None:
    generator = np.random.default_rng(0)
    wrong = sum(any(c.rejected for c in holm(generator.random(6))) for _ in range(2000))
    assert wrong / 2000 < 0.065


@pytest.mark.parametrize("values", [[1.2], [-0.1], [float("nan")]])
def test_what_is_no_p_value_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm(values)


def test_an_error_rate_lies_between_0_and_1() -> None:
    with pytest.raises(ValueError, match="error rate"):
        holm([0.1], alpha=5)
