from __future__ import annotations

import math

import numpy as np
import pytest

from harness.errors import MsbenchError
from harness.stats.estimate import Estimate, Interval, Student
from harness.stats.paired import paired_difference
from harness.stats.verdict import Direction, Margin, Verdict, decide, holm, parse_margins

BETTER, WORSE, NONE, WITHIN = Verdict.BETTER, Verdict.WORSE, Verdict.NO_DIFFERENCE, Verdict.NON_INFERIOR


@pytest.mark.parametrize(
    ("low", "high", "direction", "margin", "verdict", "difference", "non_inferior"),
    [
        (0.1, 0.5, "higher", None, BETTER, BETTER, None),
        (0.1, 0.5, "lower", None, WORSE, WORSE, None),
        (-0.5, -0.1, "higher", None, WORSE, WORSE, None),
        (-0.5, -0.1, "lower", None, BETTER, BETTER, None),
        (-0.1, 0.5, "higher", None, NONE, NONE, None),
        (0.0, 0.0, "lower", None, NONE, NONE, None),
        (-0.1, 0.5, "higher", 0.2, WITHIN, NONE, True),
        (-0.1, 0.5, "lower", 0.2, NONE, NONE, False),
        (-0.1, 0.5, "lower", 0.6, WITHIN, NONE, True),
        (0.1, 0.5, "lower", 0.6, WITHIN, WORSE, True),
        (0.1, 0.5, "lower", 0.5, WORSE, WORSE, False),
        (0.1, 0.5, "higher", 0.2, BETTER, BETTER, True),
        (-math.inf, math.inf, "higher", 0.2, NONE, NONE, False),
    ],
)
def test_verdicts(
    low: float,
    high: float,
    direction: Direction,
    margin: float | None,
    verdict: Verdict,
    difference: Verdict,
    non_inferior: bool | None,
) -> None:
    decision = decide(Interval(low, high, 0.95), direction, margin=margin)
    assert (decision.verdict, decision.difference, decision.non_inferior) == (verdict, difference, non_inferior)


def test_what_the_correction_does_not_reject_is_no_difference() -> None:
    assert decide(Interval(0.1, 0.5, 0.95), "higher", rejected=False).verdict is NONE
    assert decide(Interval(0.1, 0.5, 0.95), "lower", rejected=False).verdict is NONE


def test_what_is_better_is_non_inferior_whatever_the_margins_own_correction_says() -> None:
    wide = Interval(-0.3, 0.9, 0.999)
    one = decide(Interval(0.1, 0.5, 0.95), "higher", margin=0.2, margin_interval=wide)
    assert (one.verdict, one.difference, one.non_inferior) == (BETTER, BETTER, True)
    other = decide(Interval(0.1, 0.5, 0.95), "higher", rejected=False, margin=0.2, margin_interval=wide)
    assert (other.verdict, other.non_inferior) == (NONE, False)


@pytest.mark.parametrize(("direction", "first", "second"), [("higher", BETTER, WORSE), ("lower", WORSE, BETTER)])
def test_exact_everywhere_against_nowhere_is_decided_by_signs(direction: Direction, first: Verdict, second: Verdict) -> None:
    exact, other = np.full(12, math.inf), np.random.default_rng(0).normal(size=12)
    for pair, expected in (((exact, other), first), ((other, exact), second)):
        estimate = paired_difference(*pair)
        (corrected,) = holm([estimate.p_value()])
        one = decide(estimate.interval(), direction, value=estimate.value, rejected=corrected.rejected, margin=0.2)
        assert (one.verdict, one.non_inferior) == (expected, expected is BETTER)
        assert decide(estimate.interval(), direction, value=estimate.value, rejected=False).verdict is NONE


@pytest.mark.parametrize("margin", [0.0, -1.0, math.inf, math.nan])
def test_a_margin_is_positive(margin: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        decide(Interval(0.0, 1.0, 0.95), "higher", margin=margin)


def test_margins_are_read() -> None:
    margins = parse_margins(" lpips=0.01, rfid = 5% ", ("lpips", "rfid", "psnr"))
    assert margins == {"lpips": Margin(0.01, False), "rfid": Margin(0.05, True)}
    assert margins["rfid"].absolute(20.0) == pytest.approx(1.0)
    assert margins["rfid"].absolute(-20.0) == pytest.approx(1.0)
    assert margins["lpips"].absolute(20.0) == 0.01
    assert [str(margin) for margin in margins.values()] == ["0.01", "5%"]
    assert parse_margins("", ("lpips",)) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lpips", "'lpips' is not NAME=NUMBER"),
        ("lpips=", "is not NAME=NUMBER"),
        ("=3", "is not NAME=NUMBER"),
        ("lpips=small", "'small' is no number"),
        ("lpips=%", "'%' is no number"),
        ("lpips=0", "positive number"),
        ("lpips=-1%", "positive number"),
        ("lpips=nan", "positive number"),
        ("lpips=inf", "positive number"),
        ("lpips=1,lpips=2", "twice"),
        ("lpisp=1", "Did you mean 'lpips'"),
    ],
)
def test_what_is_no_margin_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(MsbenchError, match=message) as caught:
        parse_margins(text, ("lpips", "rfid"))
    assert "\n" not in str(caught.value)


def test_a_worked_example_of_holm() -> None:
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
