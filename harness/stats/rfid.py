"""rFID and its exact value without each unit, from one singular value decomposition.

With A, B the centred features of references and reconstructions, Σ = AᵀA / (n - 1) and so on, and M = A Bᵀ = U S Vᵀ,

    rFID = ‖μ₁ - μ₂‖² + Tr Σ₁ + Tr Σ₂ - 2 ‖M‖_* / (n - 1).

Leaving a unit c of m pairs out takes J C Jᵀ off the identity between the factors, where J picks the unit's rows and
C = I + 11ᵀ / (n - m) moves the means along: the new singular values are the roots of the eigenvalues of E M E Mᵀ,
E = I - J C Jᵀ. Their sum follows from √λ = ∫ log(1 + λ / t) t^(-1/2) dt / 2π over t > 0, because the determinant of a change of
low rank is a small one:

    ‖M'‖_* - ‖M‖_* = 1 / 2π ∫ log det(I - C̃ K(t)) t^(-1/2) dt,      C̃ = diag(C, C),
    K(t) = [[U_c a U_cᵀ, U_c b V_cᵀ], [-V_c b U_cᵀ, V_c a V_cᵀ]],   a = S² / (t + S²),   b = √t S / (t + S²),

U_c, V_c the unit's rows. The integral over log t is smooth and converges exponentially under the trapezoidal rule. This is as
exact as recomputing the distance n times, at the price of computing it once, and holds for fewer images than dimensions as well
as for more. (Derived here; tests compare it with recomputed distances.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.stats.estimate import Clusters, Values, unit_numbers
from harness.stats.sets import SetStatistic, chosen_units, no_interaction

_STEP = 1.0  # of log t: six digits of what leaving a unit out changes
_BELOW = 36.0  # how far log t reaches below the least squared singular value: √t has vanished there
_ABOVE = 16.0  # and above the largest: the logarithm is proportional to 1 / t from there on, and still has nine digits
_ROWS = 4096  # rows taken through the quadrature at once
_WHOLE = 48  # a unit of more pairs than this is left out by recomputing


def rfid_value(reference: NDArray[np.floating], reconstruction: NDArray[np.floating]) -> float:
    """rFID of features [n, D], row i of both from pair i; ≥ 0.

    Raises:
        ValueError: shapes differ or n < 2.
    """
    return _Pairs.of(reference, reconstruction).value()


def rfid_statistic(
    reference: NDArray[np.floating], reconstruction: NDArray[np.floating], clusters: Clusters = None
) -> SetStatistic:
    """rFID of features [n, D] with its value without each unit, row i of both from pair i.

    Raises:
        ValueError: shapes differ, n < 2, or clusters of another length.
    """
    pairs = _Pairs.of(reference, reconstruction)
    n = len(pairs.a)
    units = unit_numbers(clusters, n)
    sizes = np.bincount(units)
    if len(sizes) < 2 or n - sizes.max() < 2:
        return SetStatistic(pairs.value(), np.full(len(sizes), np.nan), no_interaction(), n, tuple(units.tolist()))
    members = np.split(np.argsort(units, kind="stable"), np.cumsum(sizes)[:-1])
    without = np.empty(len(sizes))
    single = sizes == 1
    quadrature = _Quadrature.of(pairs.singular)
    if single.any():
        without[single] = _without_each(pairs, quadrature, np.concatenate([m for m in members if len(m) == 1]))
    for unit in np.flatnonzero(~single):
        without[unit] = _without_unit(pairs, quadrature, members[unit])
    chosen = chosen_units(len(sizes))
    interaction = no_interaction(len(chosen))
    rows, columns = np.tril_indices(len(chosen), -1)
    both = _without_two(pairs, quadrature, [members[unit] for unit in chosen])
    interaction[rows, columns] = pairs.value() - without[chosen[rows]] - without[chosen[columns]] + both
    interaction += interaction.T
    return SetStatistic(pairs.value(), without, interaction, n, tuple(units.tolist()))


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Centred features and the decomposition of A Bᵀ."""

    a: Values
    """[n, D] references, centred"""
    b: Values
    """[n, D] reconstructions, centred"""
    gap: Values
    """[D] difference of the means"""
    left: Values
    """[n, r] U"""
    singular: Values
    """[r] S, all positive"""
    right: Values
    """[n, r] V"""

    @classmethod
    def of(cls, reference: NDArray[np.floating], reconstruction: NDArray[np.floating]) -> _Pairs:
        x, y = np.asarray(reference, dtype=np.float64), np.asarray(reconstruction, dtype=np.float64)
        if x.shape != y.shape or x.ndim != 2 or len(x) < 2:
            raise ValueError(f"pairs need two arrays [n, D] of one shape, n ≥ 2; got {x.shape} and {y.shape}")
        a, b = x - x.mean(axis=0), y - y.mean(axis=0)
        if len(a) <= a.shape[1]:
            left, singular, right = np.linalg.svd(a @ b.T)
            right = right.T
        else:
            basis_a, short_a = np.linalg.qr(a)
            basis_b, short_b = np.linalg.qr(b)
            inner_left, singular, inner_right = np.linalg.svd(short_a @ short_b.T)
            left, right = basis_a @ inner_left, basis_b @ inner_right.T
        kept = singular > 1e-13 * max(float(singular[0]), 1e-300)
        return cls(a, b, x.mean(axis=0) - y.mean(axis=0), left[:, kept], singular[kept], right[:, kept])

    def value(self) -> float:
        """The distance; rounding leaves equal sets a hair below zero."""
        traces = np.square(self.a).sum() + np.square(self.b).sum()
        return max(float(self.gap @ self.gap + (traces - 2.0 * self.singular.sum()) / (len(self.a) - 1)), 0.0)


@dataclass(frozen=True, slots=True)
class _Quadrature:
    """Nodes t of the integral, and what the determinant needs at each."""

    even: Values
    """[r, nodes] S² / (t + S²)"""
    rest: Values
    """[r, nodes] t / (t + S²), which is one minus `even` without its rounding"""
    odd: Values
    """[r, nodes] √t S / (t + S²)"""
    weights: Values
    """[nodes] √t × step / 2π"""

    @classmethod
    def of(cls, singular: Values) -> _Quadrature:
        squares = np.square(singular)
        logs = np.log(squares) if len(squares) else np.zeros(1)
        t = np.exp(np.arange(float(logs[-1]) - _BELOW, float(logs[0]) + _ABOVE, _STEP))
        below = t + squares[:, None]
        root = np.sqrt(t)
        weights = root * _STEP / (2.0 * np.pi)
        weights[-1] /= 1.0 - np.exp(-_STEP / 2.0)  # the last node stands for all beyond it, a geometric series
        return cls(squares[:, None] / below, t / below, root * singular[:, None] / below, weights)


def _without_each(pairs: _Pairs, quadrature: _Quadrature, rows: NDArray[np.intp]) -> Values:
    """The distance without each of the given pairs alone."""
    n = len(pairs.a)
    c = n / (n - 1)
    found = np.empty(len(rows))
    traces, nuclear = np.square(pairs.a).sum() + np.square(pairs.b).sum(), pairs.singular.sum()
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        u, v = pairs.left[part], pairs.right[part]
        u2, v2 = np.square(u), np.square(v)
        # 1 - c Σ u² a = (1 - c Σ u²) + c Σ u² (1 - a): no digits are lost where a is near one
        first = np.maximum(1.0 - c * u2.sum(axis=1), 0.0)[:, None] + c * (u2 @ quadrature.rest)
        second = np.maximum(1.0 - c * v2.sum(axis=1), 0.0)[:, None] + c * (v2 @ quadrature.rest)
        determinant = first * second + np.square(c * ((u * v) @ quadrature.odd))
        change = np.log(np.maximum(determinant, 1e-300)) @ quadrature.weights
        a, b = pairs.a[part], pairs.b[part]
        gap = pairs.gap - (a - b) / (n - 1)
        spread = traces - c * (np.square(a).sum(axis=1) + np.square(b).sum(axis=1)) - 2.0 * (nuclear + change)
        found[start : start + _ROWS] = np.square(gap).sum(axis=1) + spread / (n - 2)
    return found


def _without_unit(pairs: _Pairs, quadrature: _Quadrature, rows: NDArray[np.intp]) -> float:
    """The distance without several pairs at once."""
    if len(rows) > _WHOLE:
        kept = np.setdiff1d(np.arange(len(pairs.a)), rows)
        # the gap is put back on one side: centred features have lost it
        return _Pairs.of(pairs.a[kept] + pairs.gap, pairs.b[kept]).value()
    return float(_Removal.of(pairs, quadrature, rows).without(np.arange(len(rows))[None])[0])


def _without_two(pairs: _Pairs, quadrature: _Quadrature, members: list[NDArray[np.intp]]) -> Values:
    """The distance without each two of the given units, in the order of `numpy.tril_indices`."""
    first, second = np.tril_indices(len(members), -1)
    if members and all(len(rows) == 1 for rows in members):
        return _Removal.of(pairs, quadrature, np.concatenate(members)).without(np.stack([first, second], axis=1))
    together = [np.concatenate([members[i], members[j]]) for i, j in zip(first, second, strict=True)]
    return np.array([_without_unit(pairs, quadrature, rows) for rows in together])


@dataclass(frozen=True, slots=True)
class _Removal:
    """What the removal of any of a few pairs needs."""

    pairs: _Pairs
    """the whole"""
    quadrature: _Quadrature
    """of the whole"""
    kernel: Values
    """[nodes, 2, q, 2, q] K(t) among q pairs"""
    inner: Values
    """[q, q] A_c A_cᵀ + B_c B_cᵀ"""
    apart: Values
    """[q, D] A_c - B_c"""

    @classmethod
    def of(cls, pairs: _Pairs, quadrature: _Quadrature, rows: NDArray[np.intp]) -> _Removal:
        """Among the given rows."""
        a, b, u, v = pairs.a[rows], pairs.b[rows], pairs.left[rows], pairs.right[rows]
        cross = _products(u, v, quadrature.odd)
        upper = np.stack([_products(u, u, quadrature.even), cross], axis=2)
        lower = np.stack([-cross.transpose(0, 2, 1), _products(v, v, quadrature.even)], axis=2)
        return cls(pairs, quadrature, np.stack([upper, lower], axis=1), a @ a.T + b @ b.T, a - b)

    def without(self, chosen: NDArray[np.intp]) -> Values:
        """The distance without each set of m of those pairs, chosen [sets, m]: [sets]."""
        n, (count, m) = len(self.pairs.a), chosen.shape
        c = np.eye(m) + 1.0 / (n - m)
        some, other = chosen[:, :, None], chosen[:, None, :]
        blocks = self.kernel[:, :, some, :, other].transpose(0, 3, 4, 1, 5, 2).reshape(count, -1, 2 * m, 2 * m)
        logs = np.linalg.slogdet(np.eye(2 * m) - np.kron(np.eye(2), c) @ blocks).logabsdet
        change = np.maximum(logs, -700.0) @ self.quadrature.weights
        gaps = self.pairs.gap - self.apart[chosen].sum(axis=1) / (n - m)
        taken = (c * self.inner[some, other]).sum(axis=(1, 2))
        traces = np.square(self.pairs.a).sum() + np.square(self.pairs.b).sum() - taken
        nuclear = self.pairs.singular.sum() + change
        return np.asarray(np.square(gaps).sum(axis=1) + (traces - 2.0 * nuclear) / (n - m - 1), dtype=np.float64)


def _products(u: Values, v: Values, factors: Values) -> Values:
    """U diag(factors) Vᵀ for each column of factors [r, nodes]: [nodes, m, m]."""
    m = len(u)
    outer = (u[:, None, :] * v[None, :, :]).reshape(m * m, -1)
    return np.asarray((outer @ factors).T.reshape(-1, m, m), dtype=np.float64)
