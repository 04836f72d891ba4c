"""Per-image metrics: the mean over images and its difference between two decoders, with BCa bootstrap intervals.

Draws come from `scipy.stats.bootstrap`, seeded. What is resampled is the independent unit: the image, or the photograph that
several images were cut from. With clusters the mean is the ratio estimator Σ sums / Σ sizes, both resampled together, so that a
photograph with many crops weighs as it does in the table.

The bias-corrected and accelerated ends (Efron, JASA 1987) are computed here from those draws, because the acceleration of a
ratio of sums needs no n x n jackknife; a test holds them against scipy's. Levels are widened from normal to Student quantiles
("expanded", Hesterberg, The American Statistician 2015), which matters for a few dozen photographs and vanishes for many
images. p-values invert the interval.

Exact images have an infinite PSNR. They are left out of a mean, as they are of the table's. A difference leaves out the images
that are exact in either decoder, and says how many. Where none is left, the difference is 0 if both are exact everywhere and
infinite, without a test, if one is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from harness.stats.estimate import FEW_UNITS, Clusters, Estimate, Student, Values, few_units_note, no_interval, unit_numbers

RESAMPLES = 9_999
_MOST_DRAWS = 200_000_000  # resamples x units: a few seconds
_BATCH = 4_000_000  # values gathered at once: 32 MB


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Bias-corrected and accelerated bootstrap."""

    draws: Values
    """sorted bootstrap means"""
    bias: float
    """z₀: normal quantile of the share of draws below the value"""
    acceleration: float
    """a: a sixth of the skewness of the influence values, over √units"""
    units: int
    """independent units resampled"""

    @property
    def method(self) -> str:
        """A few words for a caption."""
        return f"BCa bootstrap, {len(self.draws):,} resamples"

    @property
    def standard_error(self) -> float:
        """Standard deviation of the draws."""
        return float(self.draws.std(ddof=1))

    def interval(self, value: float, level: float) -> tuple[float, float]:
        """Ends of the interval; `value` is part of the draws already."""
        z = math.sqrt(self.units / (self.units - 1)) * float(stats.t.ppf(0.5 + level / 2.0, self.units - 1))
        low, high = np.quantile(self.draws, [self._share(-z), self._share(z)])
        return float(low), float(high)

    def p_value(self, value: float, null: float) -> float:
        """Two-sided p-value by inversion; never below 1 / resamples, where the draws end."""
        below, upto = np.searchsorted(self.draws, null, "left"), np.searchsorted(self.draws, null, "right")
        share = _between(self.draws, null) if below == upto else (below + upto - 1) / 2.0
        floor = 0.5 / len(self.draws)
        w = float(stats.norm.ppf(min(max(share / (len(self.draws) - 1), floor), 1.0 - floor))) - self.bias
        bend = 1.0 + self.acceleration * w
        z = w / bend - self.bias if bend > 0.0 else math.copysign(math.inf, w)
        p = 2.0 * float(stats.t.sf(abs(z) * math.sqrt((self.units - 1) / self.units), self.units - 1))
        return min(1.0, max(p, 2.0 * floor))

    def _share(self, z: float) -> float:
        """Share of the draws below the end that a normal quantile z asks for."""
        shifted = self.bias + z
        bend = 1.0 - self.acceleration * shifted
        return float(stats.norm.cdf(self.bias + shifted / bend)) if bend > 0.0 else float(shifted > 0.0)


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
        sign = np.sign(int(exact.sum()) - int(exact_baseline.sum()))
        return no_interval(float(sign) * math.inf if sign else 0.0, n, count, note)
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
    if not 0.0 < share < 1.0:
        return Estimate(value, n, count, student, _join(note, "bootstrap degenerate: Student t instead"))
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    pulls = without.mean() - without
    acceleration = float((pulls**3).sum() / (6.0 * np.square(pulls).sum() ** 1.5))
    return Estimate(value, n, count, Bootstrap(draws, float(stats.norm.ppf(share)), acceleration, count), note)


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


def _between(draws: Values, null: float) -> float:
    """Place of a value among sorted draws, counted from 0 with fractions, as `numpy.quantile` does."""
    return float(np.interp(null, draws, np.arange(len(draws))))


def _checked(values: ArrayLike) -> Values:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"per-image values are a list of at least one number; got an array of shape {numbers.shape}")
    if np.isnan(numbers).any() or np.isneginf(numbers).any():
        raise ValueError("per-image values hold NaN or -inf")
    return numbers


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
