from __future__ import annotations

import math

import pytest

from harness.errors import MsbenchError
from harness.stats.estimate import Interval
from harness.stats.verdict import Direction, Margin, Verdict, decide, parse_margins

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
