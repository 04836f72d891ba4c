"""KID on pairs as a U-statistic, and its value without each unit, in one pass over the kernel matrices, in float64.

With h(i, j) = k(xᵢ, xⱼ) + k(yᵢ, yⱼ) - k(xᵢ, yⱼ) - k(yᵢ, xⱼ) over references x and reconstructions y, and the kernel
k(x, y) = (x·y / D + 1)³ (Bińkowski et al., ICLR 2018), KID is the mean of h over i ≠ j. A reconstruction is not independent of
its own reference, so the cross terms i = i are left out, as those within each set always are: unbiased where pairs are
independent of each other; may be slightly negative; multiply by 1,000 to compare with papers that do. The usual average over
random subsets of 1,000 estimates the same with more noise.

Above 10,000 images the mean is over pairs of different images within disjoint blocks of about 5,000, dealt by one seeded
shuffle: the same expectation at a cost in proportion to n. Leaving a unit out takes its rows and columns away, so sums of rows
and of the unit's own entries are all that is needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.stats.estimate import Clusters, Values, unit_numbers
from harness.stats.sets import MANY, SetStatistic, checked_pairs, chosen_units

BLOCK = 5_000
"""images a block, at least, where there are more than `MANY`"""
_ROWS = 1024  # rows of a kernel matrix held at once

Features = NDArray[np.floating]


def kid_statistic(reference: Features, reconstruction: Features, clusters: Clusters = None) -> SetStatistic:
    """KID of features [n, D] of references and their reconstructions, row i of both from pair i.

    Raises:
        ValueError: shapes differ, n < 2, or clusters of another length.
    """
    x, y = checked_pairs(reference, reconstruction)
    n, units, block = len(x), unit_numbers(clusters, len(x)), blocks(len(x))
    rows = np.zeros(n)
    for number in range(block.max() + 1):
        members = np.flatnonzero(block == number)
        rows[members] = _row_sums(x[members], y[members])
    held = np.zeros((units.max() + 1, block.max() + 1))
    np.add.at(held, (units, block), 1.0)
    # each unit's own entries, block by block, have been counted twice
    own = np.zeros(len(held))
    for unit, number in np.argwhere(held > 1.0):
        members = np.flatnonzero((units == unit) & (block == number))
        own[unit] += _row_sums(x[members], y[members]).sum()
    taken = 2.0 * np.bincount(units, weights=rows) - own
    total, size = rows.sum(), held.sum(axis=0)
    value = float(_mean(total, size))
    without = _mean(total - taken, size - held)
    chosen = chosen_units(len(held))
    interaction = np.zeros((len(chosen), len(chosen)))
    if len(chosen):
        gone = taken[chosen]
        left = size - held[chosen][:, None] - held[chosen]
        both = _mean(total - gone[:, None] - gone + 2.0 * _shared(x, y, units, block, chosen), left)
        interaction = value - without[chosen][:, None] - without[chosen] + both
        np.fill_diagonal(interaction, 0.0)
    return SetStatistic(value, without, interaction, n, tuple(units.tolist()))


def blocks(n: int) -> NDArray[np.intp]:
    """The block of each of n images: [n]."""
    count = n // BLOCK if n > MANY else 1
    return np.asarray(np.random.default_rng(0).permutation(n) % count, dtype=np.intp)


def _mean(sums: Values, left: Values) -> Values:
    """Mean over ordered pairs of images within a block, `left` [..., blocks] in each; NaN where there is no pair."""
    pairs = np.asarray((left * (left - 1.0)).sum(axis=-1))
    found = np.full(pairs.shape, np.nan)
    np.divide(sums, pairs, out=found, where=pairs > 0.0)
    return found


def _row_sums(x: Features, y: Features) -> Values:
    """Σ over j ≠ i of h(i, j): [n]."""
    scale = np.sqrt(x.shape[1])
    a, b = np.asarray(x, dtype=np.float64) / scale, np.asarray(y, dtype=np.float64) / scale
    found = -_diagonal(a, b)
    for start in range(0, len(a), _ROWS):
        part, rest = slice(start, start + _ROWS), slice(start + _ROWS, None)
        for one in (a, b):  # symmetric: what lies right of the diagonal blocks also lies below them
            kernel = _cube(one[part] @ one[start:].T)
            found[part] += kernel.sum(axis=1)
            found[rest] += kernel[:, _ROWS:].sum(axis=0)
        kernel = _cube(a[part] @ b.T)
        found[part] -= kernel.sum(axis=1)
        found -= kernel.sum(axis=0)
    return found


def _diagonal(a: Values, b: Values) -> Values:
    """h(i, i)."""
    xx, yy, xy = (_cube(np.einsum("nd,nd->n", one, other)) for one, other in ((a, a), (b, b), (a, b)))
    return xx + yy - 2.0 * xy


def _shared(x: Features, y: Features, units: NDArray[np.intp], block: NDArray[np.intp], chosen: NDArray[np.intp]) -> Values:
    """Σ of h within blocks between the images of each two of the chosen units: [q, q], its diagonal without meaning."""
    order = np.argsort(units, kind="stable")
    members = order[np.isin(units[order], chosen)]
    starts = np.searchsorted(units[members], chosen)
    scale = np.sqrt(x.shape[1])
    a, b = np.asarray(x[members], dtype=np.float64) / scale, np.asarray(y[members], dtype=np.float64) / scale
    cross = _cube(a @ b.T)
    h = _cube(a @ a.T) + _cube(b @ b.T) - cross - cross.T
    h[block[members][:, None] != block[members]] = 0.0
    return np.asarray(np.add.reduceat(np.add.reduceat(h, starts, axis=0), starts, axis=1), dtype=np.float64)


def _cube(inner: Values) -> Values:
    """(x·y / D + 1)³ of inner products over D."""
    inner += 1.0  # in place: these matrices are large, and nobody else's
    cubes = np.square(inner)
    cubes *= inner
    return cubes
