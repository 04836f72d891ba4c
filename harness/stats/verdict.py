"""What may be said of differences: better, worse, no difference shown, or non-inferior within a margin stated beforehand.

Many comparisons at once are corrected by Holm's step-down procedure (Scandinavian Journal of Statistics 1979), which holds for
any dependence.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np

from harness.errors import MsbenchError, UnknownNameError
from harness.stats.estimate import Interval

Direction = Literal["higher", "lower"]


class Verdict(StrEnum):
    """The words of a table."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference shown"
    NON_INFERIOR = "non-inferior within the margin"


@dataclass(frozen=True, slots=True)
class Margin:
    """The loss that still counts as none."""

    amount: float
    """in the metric's unit, or a fraction of the baseline's value"""
    relative: bool
    """True: a fraction"""

    def absolute(self, baseline: float) -> float:
        """The margin in the metric's unit; a relative one takes the baseline's point estimate as given."""
        return self.amount * abs(baseline) if self.relative else self.amount

    def __str__(self) -> str:
        return f"{self.amount * 100:g}%" if self.relative else f"{self.amount:g}"


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one comparison."""

    verdict: Verdict
    """what to print"""
    difference: Verdict
    """better, worse or no difference shown, whatever the margin"""
    non_inferior: bool | None
    """better, or the interval excludes a loss of the margin or more; None where no margin was stated"""


@dataclass(frozen=True, slots=True)
class Corrected:
    """One hypothesis after correction."""

    p_value: float
    """Holm-adjusted: the smallest family-wise error rate at which it is rejected"""
    rejected: bool
    """decided at the family's error rate"""
    level: float
    """confidence level at which its own interval leaves the null out exactly when it is rejected; the intervals at these levels
    show the decision and do not cover jointly, which takes 1 - alpha / m for all"""


def holm(p_values: Sequence[float], alpha: float = 0.05) -> list[Corrected]:
    """Correct a family of m p-values, in their order.

    Sorted upwards, p₍ₖ₎ is multiplied by m - k + 1 and never let below its predecessor. Rejected are those at or below alpha;
    each was tested at alpha / (m - k + 1), and all that were not at the level where the procedure stopped.

    Raises:
        ValueError: a p-value outside [0, 1] or NaN; alpha outside (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"an error rate lies between 0 and 1, not {alpha}")
    values = np.asarray(p_values, dtype=np.float64)
    if np.isnan(values).any() or (values < 0.0).any() or (values > 1.0).any():
        raise ValueError("p-values lie in [0, 1]")
    m = len(values)
    order = np.argsort(values, kind="stable")
    remaining = m - np.arange(m)
    adjusted = np.minimum(np.maximum.accumulate(values[order] * remaining), 1.0)
    rejected = adjusted <= alpha
    stop = int(rejected.sum())
    found: list[Corrected] = [Corrected(1.0, False, 1.0 - alpha)] * m
    for rank, index in enumerate(order):
        step = min(rank, stop)
        found[int(index)] = Corrected(float(adjusted[rank]), bool(rejected[rank]), 1.0 - alpha / float(m - step))
    return found


def decide(
    interval: Interval,
    direction: Direction,
    *,
    value: float = 0.0,
    rejected: bool = True,
    margin: float | None = None,
    margin_interval: Interval | None = None,
) -> Decision:
    """Put a paired difference (decoder minus baseline) into words.

    A decoder is better or worse where its interval leaves out zero and the correction for many comparisons rejects equality. It
    is non-inferior where the interval lies on the good side of the margin, which a small but sure loss may do as well: then the
    verdict says non-inferior and `difference` says worse. An infinite difference (one decoder exact on every image) has no
    interval; its sign decides, where equality is rejected. What is better is non-inferior at any margin.

    Args:
        interval: of the difference; its level is the confidence of the verdict.
        direction: which way the metric is better.
        value: of the difference; only an infinite one is looked at.
        rejected: the outcome of `holm`; True where this is the only comparison.
        margin: the loss that counts as none, > 0, in the metric's unit.
        margin_interval: what the margin is held against, where a correction for many margins asks for another level.

    Raises:
        ValueError: the margin is not a positive number.
    """
    if margin is not None and not 0.0 < margin < math.inf:
        raise ValueError(f"a margin is a positive number, not {margin}")
    least, most = _gain(Interval(value, value, interval.level) if math.isinf(value) else interval, direction)
    difference = Verdict.NO_DIFFERENCE
    if rejected and least > 0.0:
        difference = Verdict.BETTER
    elif rejected and most < 0.0:
        difference = Verdict.WORSE
    better = difference is Verdict.BETTER
    non_inferior = None if margin is None else better or _gain(margin_interval or interval, direction)[0] > -margin
    shown = Verdict.NON_INFERIOR if non_inferior and not better else difference
    return Decision(shown, difference, non_inferior)


def _gain(interval: Interval, direction: Direction) -> tuple[float, float]:
    """Ends of the interval turned so that more is better."""
    return (interval.low, interval.high) if direction == "higher" else (-interval.high, -interval.low)


def parse_margins(text: str, known: Collection[str]) -> dict[str, Margin]:
    """Read margins such as `lpips=0.01,rfid=5%`; an empty text has none.

    Args:
        text: NAME=NUMBER or NAME=NUMBER%, separated by commas.
        known: the metrics there are.

    Raises:
        MsbenchError: a part that is not of this form, a margin that is not a positive number, a metric named twice.
        UnknownNameError: a metric that is not known.
    """
    margins: dict[str, Margin] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, amount = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not amount:
            raise MsbenchError(f"--margin {part!r} is not NAME=NUMBER or NAME=NUMBER%, as in lpips=0.01,rfid=5%")
        if name not in known:
            raise UnknownNameError("metric", name, known)
        if name in margins:
            raise MsbenchError(f"--margin names {name} twice")
        margins[name] = _margin(name, amount)
    return margins


def merge_margins(defaults: str, given: str, known: Collection[str]) -> str:
    """The defaults with the given margins in their place, in one canonical order, so that equal margins are equal text.

    Raises:
        MsbenchError, UnknownNameError: see `parse_margins`.
    """
    margins = {**parse_margins(defaults, known), **parse_margins(given, known)}
    return ",".join(f"{name}={margins[name]}" for name in sorted(margins))


def _margin(name: str, text: str) -> Margin:
    relative = text.endswith("%")
    try:
        amount = float(text.removesuffix("%"))
    except ValueError:
        raise MsbenchError(f"--margin {name}={text}: {text!r} is no number") from None
    if not 0.0 < amount < math.inf:
        raise MsbenchError(f"--margin {name}={text}: a margin is a positive number, the loss that still counts as none")
    return Margin(amount / 100.0 if relative else amount, relative)
