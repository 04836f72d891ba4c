"""rFID of infinitely many images, by extrapolation over 1 / n (Chong & Forsyth, CVPR 2020), and the bias of a finite number.

The expectation of a Fréchet distance over n images falls like a + b / n once n is well above the rank of the features. Here the
n are those of equal parts of the set: whole, halves, thirds and so on, every part disjoint and every image used at every n, so
that what these images happen to be is common to all points and only the slope is left to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import MsbenchError
from harness.stats.rfid import rfid_value

PARTS = (1, 2, 3, 4)
ENOUGH = 10_000
"""images from which on no warning is due"""


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """rFID over the number of images."""

    value: float
    """rFID of all n images"""
    infinity: float
    """intercept of the line over 1 / n; may fall below zero for a very good decoder"""
    n: int
    """number of images"""
    dimensions: int
    """of the features"""
    sizes: tuple[int, ...]
    """images a part"""
    means: tuple[float, ...]
    """mean rFID over the parts of each size"""

    @property
    def bias(self) -> float:
        """How far the value of n images lies above infinitely many, estimated."""
        return self.value - self.infinity

    @property
    def linear(self) -> bool:
        """The law holds: even the smallest part has more images than the features have dimensions."""
        return min(self.sizes) > self.dimensions

    def warning(self) -> str | None:
        """One line for fewer than 10,000 images, None from there on."""
        if self.n >= ENOUGH:
            return None
        doubt = (
            ""
            if self.linear
            else f", only a rough figure with parts of {min(self.sizes)} images in {self.dimensions} dimensions"
        )
        return (
            f"rFID of {self.n:,} images is biased upwards by about {self.bias:.3g} "
            f"(extrapolated to infinitely many: {self.infinity:.4g}{doubt}); not comparable with 50k figures"
        )


def rfid_infinity(
    reference: NDArray[np.floating], reconstruction: NDArray[np.floating], parts: Sequence[int] = PARTS, seed: int = 0
) -> Extrapolation:
    """Extrapolate rFID of features [n, D], row i of both from pair i.

    Args:
        reference, reconstruction: the features.
        parts: into how many equal parts the set is cut for each point of the line; 1 is the whole.
        seed: of the one shuffle before cutting.

    Raises:
        MsbenchError: fewer images than two for each part.
        ValueError: shapes differ, or fewer than two different numbers of parts.
    """
    n = len(reference)
    if len(set(parts)) < 2 or min(parts) < 1:
        raise ValueError(f"a line needs at least two different numbers of parts, not {tuple(parts)}")
    if n // max(parts) < 2:
        raise MsbenchError(f"{n} images are too few to extrapolate rFID: {max(parts)} parts need at least {2 * max(parts)}")
    order = np.random.default_rng(seed).permutation(n)
    sizes = tuple(n // count for count in parts)
    means = tuple(
        float(np.mean([rfid_value(reference[rows], reconstruction[rows]) for rows in _cut(order, count)])) for count in parts
    )
    _slope, infinity = np.polyfit(1.0 / np.asarray(sizes), np.asarray(means), 1)
    value = means[list(parts).index(1)] if 1 in parts else rfid_value(reference, reconstruction)
    return Extrapolation(value, float(infinity), n, reference.shape[1], sizes, means)


def _cut(order: NDArray[np.intp], count: int) -> list[NDArray[np.intp]]:
    size = len(order) // count
    return [order[part * size : (part + 1) * size] for part in range(count)]
