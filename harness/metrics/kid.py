"""KID: the kernel distance of the references' Inception features to the reconstructions' (`harness.stats.kid`)."""

from __future__ import annotations

import numpy as np

from harness.metrics.metric import Check, Metric, Whole, floor
from harness.stats.kid import blocks, kid_statistic

_ROWS = 1024  # rows of a kernel matrix held at once


def by_scikit_learn(whole: Whole) -> float:
    """KID by scikit-learn's polynomial kernel, summed over all pairs of different images (Bińkowski et al., ICLR 2018)."""
    from sklearn.metrics.pairwise import polynomial_kernel

    block = blocks(len(whole.features))
    total, pairs = 0.0, 0
    for number in range(block.max() + 1):
        members = np.flatnonzero(block == number)
        reference, decoded = (side[members].astype(np.float64) for side in (whole.reference_features, whole.features))
        n = len(members)
        pairs += n * (n - 1)
        for start in range(0, n, _ROWS):
            rows = np.arange(start, min(start + _ROWS, n))
            for first, second, weight in ((reference, reference, 1.0), (decoded, decoded, 1.0), (reference, decoded, -2.0)):
                kernel = polynomial_kernel(first[rows], second, degree=3, gamma=1.0 / first.shape[1], coef0=1.0)
                kernel[rows - start, rows] = 0.0
                total += weight * float(kernel.sum())
    return total / pairs


METRIC = Metric(
    name="kid",
    direction="lower",
    description="kernel distance of the same features (cubic, unbiased, a pair's own cross term left out)",
    definition="cubic kernel, unbiased, full set (above 10,000 images: seeded blocks of 5,000), pair cross terms left out",
    title="KID",
    digits=4,
    headline=True,
    margin="5%",
    weights=("inception",),
    statistic=lambda whole, clusters: kid_statistic(whole.reference_features, whole.features, clusters),
    tolerance=floor(2e-4),
    check=Check(
        how="scikit-learn's polynomial_kernel, i ≠ j",
        reason="a small difference of kernel means in float64",
        absolute=1e-11,
        relative=1e-9,
        whole=by_scikit_learn,
    ),
)
