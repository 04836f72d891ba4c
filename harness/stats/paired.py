"""Per-image metrics: the mean over images and its difference between two decoders, with BCa bootstrap intervals.

Draws come from `scipy.stats.bootstrap`, seeded. What is resampled is the independent unit: the image, or the photograph that
several images were cut from. With clusters the mean is the ratio estimator Σ sums / Σ sizes, both resampled together, so that a
photograph with many crops weighs as it does in the table.

The bias-corrected and accelerated ends (Efron, JASA 1987) are computed here from those draws, because the acceleration of a
ratio of sums needs no n x n jackknife; a test holds them against scipy's. Levels are widened from normal to Student quantiles
("expanded", Hesterberg, The American Statistician 2015), which matters for a few dozen photographs and vanishes for many
images. Beyond the draws, of which the outermost say little, the studentised score goes on in a straight line, as Student's t
does; so ends and p-values of any level are resolved. p-values invert the interval.

Exact images have an infinite PSNR. They are left out of a mean, as they are of the table's. A difference leaves out the images
that are exact in either decoder, and says how many. Where none is left, the difference is 0 if both are exact everywhere; else
it is infinite, has no interval, and a sign test over the units decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from harness.stats.estimate import (
    FEW_UNITS,
    Clusters,
    Estimate,
    Student,
    Values,
    few_units_note,
    no_interval,
    two_sided,
    unit_numbers,
)

RESAMPLES = 9_999
_OUTERMOST = 10  # draws at either end that say too little: beyond them the score rises in a line
_STEEP = 2.0  # of this many per standard error, so that Student's t, which rises by one, is soon what counts
_LOPSIDED = 0.1  # least share of draws on either side of the mean for the correction of bias to be one
_MOST_DRAWS = 200_000_000  # resamples x units: a few seconds
_BATCH = 4_000_000  # values gathered at once: 32 MB


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Bias-corrected and accelerated bootstrap, but no surer than Student's t."""

    draws: Values
    """sorted bootstrap means"""
    bias: float
    """z₀: normal quantile of the share of draws below the value"""
    acceleration: float
    """a: a sixth of the skewness of the influence values, over √units"""
    student: Student
    """from the same influence values"""

    @property
    def method(self) -> str:
        """A few words for a caption."""
        return f"BCa bootstrap, {len(self.draws):,} resamples, or Student t where that is wider"

    @property
    def standard_error(self) -> float:
        """Of Student's t."""
        return self.student.standard_error

    def interval(self, value: float, level: float) -> tuple[float, float]:
        """Ends of the interval; the bootstrap's part of `value` is in the draws already."""
        low, high = self.student.interval(value, level)
        z = self._widening * float(stats.t.ppf(0.5 + level / 2.0, self.student.units - 1))
        return min(low, self._end(-z)), max(high, self._end(z))

    def p_value(self, value: float, null: float) -> float:
        """Two-sided p-value by inversion."""
        own = two_sided(abs(self._score(null)) / self._widening, self.student.units - 1)
        return max(own, self.student.p_value(value, null))

    @property
    def _widening(self) -> float:
        return math.sqrt(self.student.units / (self.student.units - 1))

    def _score(self, null: float) -> float:
        """The normal quantile of the level whose end of the bootstrap's interval is `null`."""
        for place, sign in self._outermost():
            beyond = float(null - self.draws[place])
            if beyond * sign > 0.0:
                return self._quantile(place) + _STEEP * beyond / self.standard_error
        # counted from 0 with fractions, as `numpy.quantile` does
        between = float(np.interp(null, self.draws, np.arange(len(self.draws))))
        below, upto = np.searchsorted(self.draws, null, "left"), np.searchsorted(self.draws, null, "right")
        return self._quantile(between if below == upto else float(below + upto - 1) / 2.0)

    def _end(self, z: float) -> float:
        """Where the score is z."""
        for place, sign in self._outermost():
            beyond = z - self._quantile(place)
            if beyond * sign > 0.0:
                return float(self.draws[place]) + beyond * self.standard_error / _STEEP
        shifted = self.bias + z
        share = float(stats.norm.cdf(self.bias + shifted / (1.0 - self.acceleration * shifted)))
        return float(np.quantile(self.draws, share))

    def _quantile(self, place: float) -> float:
        """The score at a place among the draws, counted from 0."""
        w = float(stats.norm.ppf(place / (len(self.draws) - 1))) - self.bias
        return w / (1.0 + self.acceleration * w) - self.bias

    def _outermost(self) -> tuple[tuple[int, float], tuple[int, float]]:
        """(place, side) of the draws up to which the bootstrap is taken at its word."""
        return (_OUTERMOST, -1.0), (len(self.draws) - 1 - _OUTERMOST, 1.0)


@dataclass(frozen=True, slots=True)
class Signs:
    """A sign test of an infinite difference."""

    p: float
    """two-sided p-value of units being as often exact in one decoder alone as in the other alone"""
    method: str = "sign test"
    """how tables name it"""
    standard_error: float = math.inf
    """not known"""

    def interval(self, value: float, level: float) -> tuple[float, float]:
        """None."""
        return -math.inf, math.inf

    def p_value(self, value: float, null: float) -> float:
        """Of any finite null."""
        return self.p


def mean_estimate(values: ArrayLike, clusters: Clusters = None, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Mean of a per-image metric [n] over its finite values.

    Args:
        values: one value an image; `inf` (an exact image's PSNR) is left out, and the mean is `inf` where nothing is left.
        clusters: see `estimate.unit_numbers`.
        resamples: bootstrap draws; fewer are made where draws x units would pass 2·10⁸.
        seed: seeds the draws.

    Raises:
        ValueError: no value, NaN or -inf among them, or clusters of another length.
    """
    numbers = _checked(values)
    units = unit_numbers(clusters, len(numbers))
    finite = np.isfinite(numbers)
    left_out = int((~finite).sum())
    if left_out == len(numbers):
        return Estimate(math.inf, left_out, len(np.unique(units)), Student(0.0, 2, "exact"), "every image is exact")
    note = f"{left_out} exact images left out" if left_out else ""
    return _estimate(numbers[finite], units[finite], clusters is not None, resamples, seed, note)


def paired_difference(
    values: ArrayLike, baseline: ArrayLike, clusters: Clusters = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean of `values` - `baseline`, image i of one against image i of the other: [n] each.

    Arguments as for `mean_estimate`; the rule for exact images is in the module's text.

    Raises:
        ValueError: lengths differ, and as for `mean_estimate`.
    """
    first, second = _checked(values), _checked(baseline)
    if len(first) != len(second):
        raise ValueError(f"pairs need equally many images; got {len(first)} and {len(second)}")
    units = unit_numbers(clusters, len(first))
    exact, exact_baseline = np.isinf(first), np.isinf(second)
    kept = ~(exact | exact_baseline)
    note = ""
    if not kept.all():
        note = f"left out as exact: {int(exact.sum())} images here, {int(exact_baseline.sum())} in the baseline"
    if not kept.any():
        n, count = len(first), len(np.unique(units))
        if exact.all() and exact_baseline.all():
            return Estimate(0.0, n, count, Student(0.0, max(count, 2), "exact"), "every image is exact in both")
        balance = np.bincount(units, weights=exact.astype(np.float64) - exact_baseline)
        won, lost = int((balance > 0.0).sum()), int((balance < 0.0).sum())
        value = math.copysign(math.inf, won - lost) if won != lost else 0.0
        p = float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0
        reason = f"a sign test: {won} exact here alone, {lost} in the baseline alone"
        return Estimate(value, n, count, Signs(p), _join(note, reason))
    return _estimate(first[kept] - second[kept], units[kept], clusters is not None, resamples, seed, note)


def _estimate(numbers: Values, units: NDArray[np.intp], clustered: bool, resamples: int, seed: int, note: str) -> Estimate:
    _, units = np.unique(units, return_inverse=True)
    sizes = np.bincount(units).astype(np.float64)
    sums = np.bincount(units, weights=numbers).astype(np.float64)
    n, count = len(numbers), len(sizes)
    value = float(sums.sum() / sizes.sum())
    if count < 2:
        reason = f"1 independent {'photograph' if clustered else 'image'}: no interval"
        return no_interval(value, n, count, _join(note, reason))
    influence = (sums - value * sizes) / sizes.mean()
    scale = float(np.abs(numbers).max())
    if np.abs(influence).max() <= 1e-12 * scale or scale == 0.0:
        return Estimate(value, n, count, Student(0.0, count, "constant"), _join(note, "no image differs from the mean"))
    note = _join(note, few_units_note(count, clustered))
    student = Student(math.sqrt(np.square(influence).sum() / (count - 1) / count), count)
    if count < FEW_UNITS:
        return Estimate(value, n, count, student, note)
    draws = _draws(sums, sizes, resamples, seed)
    share = float((np.count_nonzero(draws < value) + np.count_nonzero(draws <= value)) / (2 * len(draws)))
    if not _LOPSIDED < share < 1.0 - _LOPSIDED:
        return Estimate(value, n, count, student, _join(note, "bootstrap degenerate: Student t instead"))
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    pulls = without.mean() - without
    acceleration = float((pulls**3).sum() / (6.0 * np.square(pulls).sum() ** 1.5))
    return Estimate(value, n, count, Bootstrap(draws, float(stats.norm.ppf(share)), acceleration, student), note)


def _draws(sums: Values, sizes: Values, resamples: int, seed: int) -> Values:
    """Sorted bootstrap means."""
    count = max(min(resamples, _MOST_DRAWS // len(sums)), 999)
    batch = max(1, _BATCH // len(sums))
    generator = np.random.default_rng(seed)
    equal = np.ptp(sizes) == 0.0
    data: tuple[Values, ...] = (sums / sizes[0],) if equal else (sums, sizes)
    statistic = _mean if equal else _ratio
    result = stats.bootstrap(
        data, statistic, n_resamples=count, batch=batch, vectorized=True, paired=True, method="percentile", rng=generator
    )
    return np.sort(np.asarray(result.bootstrap_distribution, dtype=np.float64))


def _mean(*data: Values, axis: int) -> Values:
    return np.asarray(data[0].mean(axis=axis), dtype=np.float64)


def _ratio(*data: Values, axis: int) -> Values:
    return np.asarray(data[0].sum(axis=axis) / data[1].sum(axis=axis), dtype=np.float64)


def _checked(values: ArrayLike) -> Values:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"per-image values are a list of at least one number; got an array of shape {numbers.shape}")
    if np.isnan(numbers).any() or np.isneginf(numbers).any():
        raise ValueError("per-image values hold NaN or -inf")
    return numbers


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
