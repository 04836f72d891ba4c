"""rFID: the Fréchet distance of the references' Inception features to the reconstructions' (`harness.stats.rfid`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.metrics.metric import Check, Metric, Whole, floor
from harness.stats.rfid import rfid_statistic


def by_eigenvalues(whole: Whole) -> float:
    """rFID by another formula: Tr √(Σ₁Σ₂) is the sum of the square roots of the eigenvalues of Σ₁Σ₂, which are those of
    M Mᵀ / (n - 1)², M = A Bᵀ with the centred features A and B."""
    a, b = _centred(whole.reference_features), _centred(whole.features)
    gap = whole.reference_features.mean(axis=0, dtype=np.float64) - whole.features.mean(axis=0, dtype=np.float64)
    scale = len(a) - 1
    if len(a) > a.shape[1]:
        # A Bᵀ and R_A R_Bᵀ have the same singular values, and the second is D x D
        a, b = (np.asarray(np.linalg.qr(side, mode="r")) for side in (a, b))
    product = a @ b.T
    eigenvalues = np.linalg.eigvalsh(product @ product.T)
    root = float(np.sqrt(np.clip(eigenvalues, 0.0, None)).sum()) / scale
    return max(float(gap @ gap) + traces(whole) - 2.0 * root, 0.0)


def traces(whole: Whole) -> float:
    """Tr Σ₁ + Tr Σ₂."""
    return sum(float(f.var(axis=0, ddof=1, dtype=np.float64).sum()) for f in (whole.reference_features, whole.features))


def _centred(features: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(features - features.mean(axis=0, dtype=np.float64), dtype=np.float64)


METRIC = Metric(
    name="rfid",
    direction="lower",
    description="Fréchet distance of Inception-2015 pool3 features, references against reconstructions",
    definition="inception-2015-12-05 pool3, TF1 resize, float64, exact",
    title="rFID",
    digits=None,
    headline=True,
    margin="5%",
    weights=("inception",),
    statistic=lambda whole, clusters: rfid_statistic(whole.reference_features, whole.features, clusters),
    tolerance=floor(3e-8, 5e-4),
    check=Check(
        how="eigenvalues of (A Bᵀ)(A Bᵀ)ᵀ of features",
        reason="square roots of eigenvalues near zero keep half of float64's digits: 1e-7 of Tr Σ₁ + Tr Σ₂",
        relative=1e-7,
        scale=traces,
        whole=by_eigenvalues,
    ),
)
