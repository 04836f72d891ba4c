"""How many times faster one decoder is than another: the ratio of two medians of repeated calls, with its interval.

Both sets of calls are resampled independently (percentile bootstrap, `scipy.stats.bootstrap`). A few calls are too few for
that: there the interval is Welch's on the logarithms, laid around the ratio of the medians. Either interval says how calls vary
within the runs; what changes from one run to the next (clock, temperature, neighbours) is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ENOUGH_CALLS = 10
"""calls on both sides from which on the medians are bootstrapped"""
_RESAMPLES = 4_999


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of medians."""

    value: float
    """baseline / decoder: above 1 the decoder is faster"""
    low: float
    """lower end of the interval; `-inf` where there is none"""
    high: float
    """upper end; `inf` where there is none"""
    level: float
    """confidence"""
    method: str
    """how the interval is made"""


def median_ratio(decoder: Sequence[float], baseline: Sequence[float], level: float = 0.95, seed: int = 0) -> Ratio:
    """Median of the baseline's times over the median of the decoder's, both per image.

    Args:
        decoder, baseline: positive times, in one unit.
        level: confidence of the interval.
        seed: seeds the resampling.

    Raises:
        ValueError: no times, or one that is not positive.
    """
    own, other = np.asarray(decoder, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if not len(own) or not len(other) or min(own.min(), other.min()) <= 0.0:
        raise ValueError("a ratio of times needs positive times on both sides")
    value = float(np.median(other) / np.median(own))
    if min(len(own), len(other)) < 2:
        return Ratio(value, -math.inf, math.inf, level, "none: a single call")
    if min(len(own), len(other)) < ENOUGH_CALLS:
        half = _welch(np.log(own), np.log(other), level)
        return Ratio(value, value * math.exp(-half), value * math.exp(half), level, "Welch t on log times")
    rng = np.random.default_rng(seed)
    found = stats.bootstrap(
        (own, other), _of_medians, n_resamples=_RESAMPLES, method="percentile", confidence_level=level, rng=rng
    ).confidence_interval
    return Ratio(value, float(found.low), float(found.high), level, f"bootstrap of medians, {_RESAMPLES:,} resamples")


def _welch(first: NDArray[np.float64], second: NDArray[np.float64], level: float) -> float:
    """Half width of Welch's interval for the difference of two means."""
    parts = [float(values.var(ddof=1)) / len(values) for values in (first, second)]
    total = sum(parts)
    if total == 0.0:
        return 0.0
    freedom = total**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    return float(stats.t.ppf(0.5 + level / 2.0, freedom)) * math.sqrt(total)


def _of_medians(own: NDArray[np.float64], other: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.asarray(np.median(other, axis=axis) / np.median(own, axis=axis), dtype=np.float64)
