"""rFID and KID once more, by other formulas than `harness.metrics` and `harness.stats` use.

rFID: Tr √(Σ₁Σ₂) is the sum of the square roots of the eigenvalues of Σ₁Σ₂, which are those of M Mᵀ / (n - 1)², M = A Bᵀ with
the centred features A and B. (The harness takes singular values of M up to 2,048 images, eigenvalues of √Σ₁ Σ₂ √Σ₁ beyond.)
KID: scikit-learn's polynomial kernel, summed over all pairs of different images (Bińkowski et al., ICLR 2018).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RFID_HOW = "eigenvalues of (A Bᵀ)(A Bᵀ)ᵀ of features"
KID_HOW = "scikit-learn's polynomial_kernel, i ≠ j"
RFID_SHARE = 1e-7
"""tolerance of rFID as a share of Tr Σ₁ + Tr Σ₂"""
RFID_REASON = "square roots of eigenvalues near zero keep half of float64's digits: 1e-7 of Tr Σ₁ + Tr Σ₂"
KID_ABSOLUTE = 1e-11
KID_REASON = "a small difference of kernel means in float64"
_ROWS = 1024  # rows of a kernel matrix held at once


def rfid(reference: Array, decoded: Array) -> float:
    """Fréchet distance of features [n, D], n ≥ 2."""
    a, b = reference - reference.mean(axis=0), decoded - decoded.mean(axis=0)
    gap = reference.mean(axis=0) - decoded.mean(axis=0)
    n = len(a)
    traces = traces_of(reference, decoded)
    if n > a.shape[1]:
        # A Bᵀ and R_A R_Bᵀ have the same singular values, and the second is D x D
        a, b = np.linalg.qr(a, mode="r"), np.linalg.qr(b, mode="r")
    product = a @ b.T
    eigenvalues = np.linalg.eigvalsh(product @ product.T)
    root = float(np.sqrt(np.clip(eigenvalues, 0.0, None)).sum()) / (n - 1)
    return max(float(gap @ gap) + traces - 2.0 * root, 0.0)


def traces_of(reference: Array, decoded: Array) -> float:
    """Tr Σ₁ + Tr Σ₂ of features [n, D]."""
    return float(reference.var(axis=0, ddof=1).sum() + decoded.var(axis=0, ddof=1).sum())


def kid(reference: Array, decoded: Array) -> float:
    """KID of features [n, D], row i of both from pair i, n ≥ 2."""
    from sklearn.metrics.pairwise import polynomial_kernel

    n = len(reference)
    total = 0.0
    for start in range(0, n, _ROWS):
        rows = np.arange(start, min(start + _ROWS, n))
        for first, second, weight in ((reference, reference, 1.0), (decoded, decoded, 1.0), (reference, decoded, -2.0)):
            kernel = polynomial_kernel(first[rows], second, degree=3, gamma=1.0 / first.shape[1], coef0=1.0)
            kernel[rows - start, rows] = 0.0
            total += weight * float(kernel.sum())
    return total / (n * (n - 1))


def rfid_line(reference: Array, decoded: Array, parts: Sequence[int], seed: int = 0) -> tuple[list[int], list[float], float]:
    """Sizes of the parts, mean rFID of each size, and the intercept of their line over 1 / size (SciPy's linregress).

    Chong & Forsyth, CVPR 2020; `parts` says into how many equal parts the shuffled set is cut for each point.
    """
    from scipy.stats import linregress

    order = np.random.default_rng(seed).permutation(len(reference))
    sizes = [len(reference) // count for count in parts]
    means = []
    for count, size in zip(parts, sizes, strict=True):
        cut = [order[start * size : (start + 1) * size] for start in range(count)]
        means.append(sum(rfid(reference[rows], decoded[rows]) for rows in cut) / count)
    return sizes, means, float(linregress([1.0 / size for size in sizes], means).intercept)
