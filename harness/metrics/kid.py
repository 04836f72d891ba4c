"""Kernel Inception Distance (Bińkowski et al., ICLR 2018): squared MMD under k(x, y) = (x·y / D + 1)³, in float64.

The protocol's number is `kid_pairs`, one estimate over the whole set. The usual average over random subsets of 1,000 estimates
the same quantity with more noise, needs a seed and a set of that size, and its ± says how subsets vary, not how sure the
estimate is. `kid_subsets` is there to compare with tools that print it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1024  # rows of a kernel matrix held at once


def kid_pairs(reference: NDArray[np.floating], reconstruction: NDArray[np.floating]) -> float:
    """KID of features [n, D] against those of their reconstructions, row i of one belonging to row i of the other.

    A reconstruction is not independent of its own reference, so k(refᵢ, recᵢ) is far above what an independent pair gives and
    would push the estimate below zero; the cross terms i = i are left out, as those within each set always are.
    Unbiased where the pairs are independent of each other; may be slightly negative; multiply by 1,000 to compare with papers
    that do.

    Raises:
        ValueError: shapes differ or n < 2.
    """
    ref, rec = _as_float64(reference), _as_float64(reconstruction)
    if ref.shape != rec.shape:
        raise ValueError(f"pairs need features of one shape; got {ref.shape} and {rec.shape}")
    count = len(ref)
    total = _off_diagonal(ref, ref) + _off_diagonal(rec, rec) - 2.0 * _off_diagonal(ref, rec)
    return total / (count * (count - 1))


def kid_unpaired(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Unbiased squared MMD of two independent sets of features, [n₁, D] and [n₂, D], over all of them.

    Raises:
        ValueError: dimensions differ or a set has fewer than two samples.
    """
    a, b = _as_float64(first), _as_float64(second)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features of {a.shape[1]} and {b.shape[1]} dimensions cannot be compared")
    within = _off_diagonal(a, a) / (len(a) * (len(a) - 1)) + _off_diagonal(b, b) / (len(b) * (len(b) - 1))
    return within - 2.0 * _total(a, b) / (len(a) * len(b))


def kid_subsets(
    first: NDArray[np.floating], second: NDArray[np.floating], *, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Mean and standard deviation of `kid_unpaired` over random subsets, drawn in torch-fidelity's order (its seed: 2020).

    Raises:
        ValueError: a set is smaller than `size`.
    """
    if min(len(first), len(second)) < size:
        raise ValueError(f"a subset of {size} cannot be drawn from {min(len(first), len(second))} samples")
    generator = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        one = first[generator.choice(len(first), size, replace=False)]
        other = second[generator.choice(len(second), size, replace=False)]
        values.append(kid_unpaired(one, other))
    return float(np.mean(values)), float(np.std(values))


def _as_float64(features: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"KID needs at least two feature vectors a set; got an array of shape {values.shape}")
    return values


def _kernel(inner: NDArray[np.float64], dimensions: int) -> NDArray[np.float64]:
    """(⟨x, y⟩ / D + 1)³ of inner products."""
    base = inner / dimensions + 1.0
    return base * base * base


def _total(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Σᵢⱼ k(aᵢ, bⱼ), in blocks of rows so that 50,000 samples need no 20 GB matrix."""
    blocks = (_kernel(a[start : start + _BLOCK] @ b.T, a.shape[1]).sum() for start in range(0, len(a), _BLOCK))
    return float(sum(blocks))


def _off_diagonal(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Σ over i ≠ j of k(aᵢ, bⱼ), for sets of one size."""
    diagonal = _kernel(np.einsum("nd,nd->n", a, b), a.shape[1]).sum()
    return _total(a, b) - float(diagonal)
