"""Conventions on what a run keeps: which images count, the mean taken in another order, KID over subsets."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from harness.explain.sources import Needs
from harness.metrics.metric import Whole
from harness.metrics.registry import METRICS
from harness.stats.kid import kid_statistic
from harness.stats.rfid import rfid_value

Rows = Callable[[int], NDArray[np.intp]]
"""Number of images -> the rows that count; raises `Needs` where there are none such."""
SIX_DB = 20.0 * math.log10(2.0)
"""what a peak twice as high adds, dB"""
SEED = 2020
"""of torch-fidelity's random generator (its `rng_seed`)"""


def figure(metric: str, whole: Whole) -> float:
    """A metric of some pairs by the protocol's definition."""
    if metric == "rfid":
        return rfid_value(whole.reference_features, whole.features)
    if metric == "kid":
        return kid_statistic(whole.reference_features, whole.features).value
    return METRICS[metric].mean(whole.columns[metric])


def psnr_of_mean_error(whole: Whole) -> float:
    """PSNR in dB of the mean squared error over all images, instead of the mean of their dB; inf where nothing differs."""
    error = float(np.mean(255.0**2 * 10.0 ** (-whole.columns["psnr"] / 10.0)))
    return 10.0 * math.log10(255.0**2 / error) if error else math.inf


def kid_of_subsets(whole: Whole, subsets: int = 100, size: int = 1000) -> float:
    """KID as torch-fidelity computes it: the mean over subsets, drawn apart from references and from reconstructions, of the
    unbiased estimate with all cross terms kept."""
    random, n, found = np.random.RandomState(SEED), len(whole.features), []
    for _ in range(subsets):
        x, y = (side[random.choice(n, size, replace=False)] for side in (whole.reference_features, whole.features))
        found.append(_unbiased(x, y))
    return float(np.mean(found))


def kid_of_all(whole: Whole) -> float:
    """KID of all images at once, the cross terms of pairs with themselves kept."""
    return _unbiased(whole.reference_features, whole.features)


def _unbiased(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """The unbiased estimate of Bińkowski et al. (ICLR 2018) for two sets of one size that are independent."""
    m, sums = len(x), []
    for a, b in ((x, x), (y, y), (x, y)):
        kernel = ((a @ b.T).astype(np.float64) / x.shape[1] + 1.0) ** 3
        sums.append(float(kernel.sum()) - (float(np.trace(kernel)) if a is b else 0.0))
    return (sums[0] + sums[1]) / (m * (m - 1)) - 2.0 * sums[2] / m**2


def first(count: int) -> Rows:
    """The first images in the order of their keys; never more than there are."""
    return lambda n: np.arange(_fewer(count, n))


def drawn(count: int) -> Rows:
    """A seeded draw."""
    return lambda n: np.sort(np.random.default_rng(0).choice(n, _fewer(count, n), replace=False))


def between(least: int, most: int) -> Rows:
    """All images, where their number is in a range."""
    return lambda n: np.arange(_need(n, least <= n <= most, f"{least:,} to {most:,} images"))


def whole_batches(size: int) -> Rows:
    """Without the images of a last batch that is not full (`drop_last`)."""
    return lambda n: np.arange(_need(n, n > size and n % size > 0, f"above {size} images, and no multiple") // size * size)


def padded(parts: int) -> Rows:
    """The first images once more until all processes have as many (torch's `DistributedSampler`)."""
    return lambda n: np.arange(_need(n, n % parts > 0, f"no multiple of {parts} images") + -n % parts) % n


def _fewer(count: int, n: int) -> int:
    return min(count, _need(n, n > count, f"more than {count:,} images"))


def _need(n: int, enough: bool, what: str) -> int:
    if not enough:
        raise Needs(f"{what}; the run has {n:,}")
    return n
