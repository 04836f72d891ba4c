"""KID on pairs as a U-statistic, and its value without each unit, in one pass over the kernel matrices.

With h(i, j) = k(xᵢ, xⱼ) + k(yᵢ, yⱼ) - k(xᵢ, yⱼ) - k(yᵢ, xⱼ) over references x and reconstructions y, and the kernel
k(x, y) = (x·y / D + 1)³ (Bińkowski et al., ICLR 2018), KID is the mean of h over i ≠ j. Leaving a unit out takes its rows and
columns away, so sums of rows and of blocks on the diagonal are all that is needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.stats.estimate import Clusters, Values, unit_numbers
from harness.stats.sets import SetStatistic, chosen_units, no_interaction

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
    taken = 2.0 * np.bincount(units, weights=rows) - _blocks(x, y, units, diagonal)
    without = _mean(total - taken, remaining)
    value = float(total / (n * (n - 1)))
    chosen = chosen_units(len(sizes))
    interaction = no_interaction(len(chosen))
    if len(chosen):
        gone = taken[chosen]
        left = n - (sizes[chosen][:, None] + sizes[chosen])
        both = _mean(total - gone[:, None] - gone + 2.0 * _shared(x, y, units, chosen), left)
        interaction = value - without[chosen][:, None] - without[chosen] + both
        np.fill_diagonal(interaction, 0.0)
    return SetStatistic(value, without, interaction, n, tuple(units.tolist()))


def _mean(sums: Values, remaining: Values) -> Values:
    """Mean over ordered pairs of the remaining images; NaN where there is no pair."""
    pairs = np.asarray(remaining * (remaining - 1.0))
    found = np.full(pairs.shape, np.nan)
    np.divide(sums, pairs, out=found, where=pairs > 0.0)
    return found


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


def _shared(x: Values, y: Values, units: NDArray[np.intp], chosen: NDArray[np.intp]) -> Values:
    """Σ of h between the images of each two of the chosen units: [q, q], its diagonal without meaning."""
    order = np.argsort(units, kind="stable")
    members = order[np.isin(units[order], chosen)]
    starts = np.searchsorted(units[members], chosen)
    a, b = x[members], y[members]
    cross = _kernel(a, b)
    h = _kernel(a, a) + _kernel(b, b) - cross - cross.T
    return np.asarray(np.add.reduceat(np.add.reduceat(h, starts, axis=0), starts, axis=1), dtype=np.float64)


def _kernel(a: Values, b: Values) -> Values:
    return _powers(a @ b.T, a)


def _powers(inner: Values, like: Values) -> Values:
    """(⟨x, y⟩ / D + 1)³ of inner products."""
    base = inner / like.shape[1] + 1.0
    return np.asarray(base * base * base, dtype=np.float64)
