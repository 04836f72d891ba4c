"""Fréchet distance between Gaussians fitted to two sets of features (Heusel et al., NeurIPS 2017), in float64.

With A and B the centred features, Σ₁ = AᵀA / (n₁ - 1) and Σ₂ = BᵀB / (n₂ - 1):

    d² = ‖μ₁ - μ₂‖² + Tr Σ₁ + Tr Σ₂ - 2 Tr √(Σ₁Σ₂),    Tr √(Σ₁Σ₂) = ‖A Bᵀ‖_* / √((n₁ - 1)(n₂ - 1))

The nuclear norm on the right is exact and fast while a set has no more samples than dimensions, where covariances are singular
and square roots of their product lose digits. Larger sets go through moments, which also add up across processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and covariance of a set of features."""

    count: int
    """number of samples"""
    mean: Array
    """[D]"""
    covariance: Array
    """[D, D], divided by count - 1"""


def moments(features: NDArray[np.floating]) -> Moments:
    """Mean and unbiased covariance of features [n, D], n ≥ 2."""
    centred, mean = _centre(features)
    return Moments(len(centred), mean, centred.T @ centred / (len(centred) - 1))


def frechet_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Squared Fréchet distance (the "FID" of the literature) of features [n₁, D] and [n₂, D]; ≥ 0, 0 for equal sets.

    Raises:
        ValueError: fewer than two samples, or different dimensions.
    """
    if min(len(first), len(second)) <= first.shape[1]:
        return frechet_low_rank(first, second)
    return frechet_from_moments(moments(first), moments(second))


def frechet_low_rank(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """The distance by the nuclear norm; exact for any n, cheap where one set is smaller than D. Arguments as above."""
    a, mean_a = _centre(first)
    b, mean_b = _centre(second)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features of {a.shape[1]} and {b.shape[1]} dimensions cannot be compared")
    scale_a, scale_b = len(a) - 1, len(b) - 1
    traces = np.square(a).sum() / scale_a + np.square(b).sum() / scale_b
    nuclear = np.linalg.svd(_shorten(a) @ _shorten(b).T, compute_uv=False).sum()
    return _not_negative(np.square(mean_a - mean_b).sum() + traces - 2.0 * nuclear / np.sqrt(scale_a * scale_b))


def frechet_from_moments(first: Moments, second: Moments) -> float:
    """The distance from moments, through the eigenvalues of √Σ₁ Σ₂ √Σ₁ (symmetric, so float64 stays real)."""
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    product = root @ second.covariance @ root
    eigenvalues = np.linalg.eigvalsh((product + product.T) / 2.0)
    trace_root = np.sqrt(np.clip(eigenvalues, 0.0, None)).sum()
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    return _not_negative(np.square(first.mean - second.mean).sum() + traces - 2.0 * trace_root)


def _centre(features: NDArray[np.floating]) -> tuple[Array, Array]:
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"a Fréchet distance needs at least two feature vectors a set; got an array of shape {values.shape}")
    mean = values.mean(axis=0)
    return values - mean, mean


def _shorten(centred: Array) -> Array:
    """A matrix R of at most D rows with RᵀR = AᵀA: nuclear norms of products are the same, and the SVD is smaller."""
    if len(centred) <= centred.shape[1]:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"), dtype=np.float64)


def _not_negative(value: np.floating) -> float:
    """Rounding leaves equal sets a hair below zero."""
    return max(float(value), 0.0)
