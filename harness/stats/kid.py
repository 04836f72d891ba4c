"""KID on pairs as a U-statistic, and its value without each unit, in one pass over the kernel matrices.

With h(i, j) = k(xᵢ, xⱼ) + k(yᵢ, yⱼ) - k(xᵢ, yⱼ) - k(yᵢ, xⱼ) over references x and reconstructions y, and the kernel
k(x, y) = (x·y / D + 1)³ (Bińkowski et al., ICLR 2018), KID is the mean of h over i ≠ j. Leaving a unit out takes its rows and
columns away, so sums of rows and of blocks on the diagonal are all that is needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.stats.estimate import Clusters, Values, unit_numbers
from harness.stats.sets import SetStatistic

_ROWS = 1024  # rows of a kernel matrix held at once


def kid_statistic(
    reference: NDArray[np.floating], reconstruction: NDArray[np.floating], clusters: Clusters = None
) -> SetStatistic:
    """KID of features [n, D] of references and their reconstructions, row i of both from pair i.

    Raises:
        ValueError: shapes differ, n < 2, or clusters of another length.
    """
    x, y = np.asarray(reference, dtype=np.float64), np.asarray(reconstruction, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 2 or len(x) < 2:
        raise ValueError(f"pairs need two arrays [n, D] of one shape, n ≥ 2; got {x.shape} and {y.shape}")
    n = len(x)
    units = unit_numbers(clusters, n)
    rows = np.zeros(n)
    for start in range(0, n, _ROWS):
        part = slice(start, start + _ROWS)
        cross = _kernel(x[part], y)
        rows[part] += _kernel(x[part], x).sum(axis=1) + _kernel(y[part], y).sum(axis=1) - cross.sum(axis=1)
        rows -= cross.sum(axis=0)
    diagonal = _powers(np.einsum("nd,nd->n", x, x), x) + _powers(np.einsum("nd,nd->n", y, y), x)
    diagonal -= 2.0 * _powers(np.einsum("nd,nd->n", x, y), x)
    rows -= diagonal
    sizes = np.bincount(units).astype(np.float64)
    remaining = n - sizes
    total = rows.sum()
    sums = total - 2.0 * np.bincount(units, weights=rows) + _blocks(x, y, units, diagonal)
    pairs = remaining * (remaining - 1.0)
    without = np.divide(sums, pairs, out=np.full(len(sizes), np.nan), where=pairs > 0.0)
    return SetStatistic(float(total / (n * (n - 1))), without, n, tuple(units.tolist()))


def _blocks(x: Values, y: Values, units: NDArray[np.intp], diagonal: Values) -> Values:
    """Σ of h over i ≠ j within each unit."""
    sizes = np.bincount(units)
    found = np.zeros(len(sizes))
    order = np.argsort(units, kind="stable")
    for unit, members in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
        if len(members) > 1:
            a, b = x[members], y[members]
            block = _kernel(a, a).sum() + _kernel(b, b).sum() - 2.0 * _kernel(a, b).sum()
            found[unit] = block - diagonal[members].sum()
    return found


def _kernel(a: Values, b: Values) -> Values:
    return _powers(a @ b.T, a)


def _powers(inner: Values, like: Values) -> Values:
    """(⟨x, y⟩ / D + 1)³ of inner products."""
    base = inner / like.shape[1] + 1.0
    return np.asarray(base * base * base, dtype=np.float64)
