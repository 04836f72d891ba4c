"""rFID of infinitely many images, by extrapolation over 1 / n (Chong & Forsyth, CVPR 2020), and the bias of a finite number.

The expectation of a Fréchet distance over n images falls like a + b / n once n is well above the rank of the features. Here the
n are those of equal parts of the set: whole, halves, thirds and quarters, every part disjoint and every image used at every n,
so that what these images happen to be is common to all points and only the slope is left to see. There is no figure unless even
a quarter has more images than the features have dimensions and a parabola through the same points ends near the line.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np
from numpy.typing import NDArray

from harness.stats.rfid import Moments, rfid_of_moments, rfid_value

PARTS = (1, 2, 3, 4)
"""into how many equal parts the set is cut for each point of the line"""
ENOUGH = 10_000
"""images from which on no warning is due"""
BENT = 0.2
"""share of the bias by which line and parabola may differ in their ends"""


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """rFID over the number of images."""

    value: float
    """rFID of all n images"""
    infinity: float | None
    """intercept of the line over 1 / n, which may fall below zero for a very good decoder; None where it cannot be trusted"""
    n: int
    """number of images"""
    dimensions: int
    """of the features"""
    sizes: tuple[int, ...] = ()
    """images a part; empty where the parts were too small"""
    means: tuple[float, ...] = ()
    """mean rFID over the parts of each size"""

    @property
    def bias(self) -> float | None:
        """How far the value of n images lies above infinitely many, estimated."""
        return None if self.infinity is None else self.value - self.infinity

    def warning(self) -> str | None:
        """One line for fewer than 10,000 images, None from there on."""
        if self.n >= ENOUGH:
            return None
        if self.infinity is not None:
            bias = f"about {self.bias:.3g} (extrapolated to infinitely many: {self.infinity:.4g})"
        elif self.sizes:
            bias = "an amount that is unknown, and large (not linear in 1 / n)"
        else:
            bias = f"an amount that is unknown, and large (too few images for features of {self.dimensions:,} dimensions)"
        return f"rFID of {self.n:,} images is biased upwards by {bias}; not comparable with 50k figures"


def rfid_infinity(
    reference: NDArray[np.floating], reconstruction: NDArray[np.floating], whole: float | None = None, seed: int = 0
) -> Extrapolation:
    """Extrapolate rFID of features [n, D], row i of both from pair i.

    Args:
        reference, reconstruction: the features.
        whole: rFID of all of them, where it is known already.
        seed: of the one shuffle before cutting.

    Raises:
        ValueError: shapes differ or n < 2.
    """
    value = rfid_value(reference, reconstruction) if whole is None else whole
    n, dimensions = reference.shape
    sizes = tuple(n // count for count in PARTS)
    if min(sizes) <= dimensions:
        return Extrapolation(value, None, n, dimensions)
    order = np.random.default_rng(seed).permutation(n)
    # the cuts of halves, thirds and quarters together make pieces; the moments of each are summed once
    cuts = sorted({part * size for count, size in zip(PARTS[1:], sizes[1:], strict=True) for part in range(count + 1)})
    sets = [(features, features.mean(axis=0, dtype=np.float64)) for features in (reference, reconstruction)]
    gap = sets[0][1] - sets[1][1]
    pieces = [
        [Moments.of(features, origin, np.sort(order[low:high])) for features, origin in sets] for low, high in pairwise(cuts)
    ]
    means = [value]
    for count, size in zip(PARTS[1:], sizes[1:], strict=True):
        ends = [cuts.index(part * size) for part in range(count + 1)]
        parts = [[reduce(add, side) for side in zip(*pieces[low:high], strict=True)] for low, high in pairwise(ends)]
        means.append(float(np.mean([rfid_of_moments(first, second, gap) for first, second in parts])))
    inverse = 1.0 / np.asarray(sizes)
    line, parabola = (float(np.polyfit(inverse, means, degree)[-1]) for degree in (1, 2))
    straight = abs(line - parabola) <= BENT * abs(value - line) + 1e-9
    return Extrapolation(value, line if straight else None, n, dimensions, sizes, tuple(means))
