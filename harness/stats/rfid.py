"""rFID, the Fréchet distance of Heusel et al. (NeurIPS 2017) on pairs, and its exact value without each unit.

With A, B the centred features of references and reconstructions, Σ = AᵀA / (n - 1) and so on, and M = A Bᵀ = U S Vᵀ,

    rFID = ‖μ₁ - μ₂‖² + Tr Σ₁ + Tr Σ₂ - 2 Tr √(Σ₁Σ₂),      Tr √(Σ₁Σ₂) = ‖M‖_* / (n - 1).

More images than dimensions D go through R_A R_Bᵀ [D, D], which has the singular values of M: A = Q_A R_A by QR up to 10,000
images, R_AᵀR_A = AᵀA by Cholesky above, summed over blocks of rows (`Moments`). U = A R_Bᵀ Z / S and V = B R_Aᵀ W / S with
R_A R_Bᵀ = W S Zᵀ are then made a block of rows at a time, so that float32 features of any number of images need no copy.

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
from harness.stats.sets import MANY, SetStatistic, checked_pairs, chosen_units

_STEP = 1.0  # of log t: six digits of what leaving a unit out changes
_BELOW = 36.0  # how far log t reaches below the least squared singular value: √t has vanished there
_ABOVE = 16.0  # and above the largest: the logarithm is proportional to 1 / t from there on, and still has nine digits
_ROWS = 4096  # rows in float64 at once
_WHOLE = 48  # a unit of more pairs than this is left out by recomputing

Features = NDArray[np.floating]


def rfid_value(reference: Features, reconstruction: Features) -> float:
    """rFID of features [n, D], row i of both from pair i; ≥ 0, 0 for equal sets.

    Raises:
        ValueError: shapes differ or n < 2.
    """
    x, y = checked_pairs(reference, reconstruction)
    first, second, means = _factors(x, y)
    singular = np.linalg.svd(first @ second.T, compute_uv=False)
    return _distance(means[0] - means[1], _squares(first, second), float(singular.sum()), len(x))


def rfid_statistic(reference: Features, reconstruction: Features, clusters: Clusters = None) -> SetStatistic:
    """rFID of features [n, D] with its value without each unit, row i of both from pair i.

    Raises:
        ValueError: shapes differ, n < 2, or clusters of another length.
    """
    pairs = _Pairs.of(*checked_pairs(reference, reconstruction))
    n, value = len(pairs.x), pairs.value()
    units = unit_numbers(clusters, n)
    sizes = np.bincount(units)
    if len(sizes) < 2 or n - sizes.max() < 2:
        return SetStatistic(value, np.full(len(sizes), np.nan), np.zeros((0, 0)), n, tuple(units.tolist()))
    members = np.split(np.argsort(units, kind="stable"), np.cumsum(sizes)[:-1])
    without = np.empty(len(sizes))
    single = sizes == 1
    quadrature = _Quadrature.of(pairs.singular)
    if single.any():
        without[single] = _without_each(pairs, quadrature, np.concatenate([m for m in members if len(m) == 1]))
    for unit in np.flatnonzero(~single):
        without[unit] = _without_unit(pairs, quadrature, members[unit])
    chosen = chosen_units(len(sizes))
    interaction = np.zeros((len(chosen), len(chosen)))
    rows, columns = np.tril_indices(len(chosen), -1)
    both = _without_two(pairs, quadrature, [members[unit] for unit in chosen])
    interaction[rows, columns] = value - without[chosen[rows]] - without[chosen[columns]] + both
    interaction += interaction.T
    return SetStatistic(value, without, interaction, n, tuple(units.tolist()))


def rfid_to_statistics(mean: Values, covariance: Values, reconstruction: Features) -> float:
    """rFID of features [n, D], n ≥ 2, to a mean [D] and a covariance [D, D] that somebody else computed."""
    own = reconstruction.mean(axis=0, dtype=np.float64)
    factor = _factor(reconstruction, own)
    inner = factor @ covariance @ factor.T / (len(reconstruction) - 1)  # its eigenvalues are those of the product Σ₁Σ₂
    root = float(np.sqrt(np.clip(np.linalg.eigvalsh((inner + inner.T) / 2.0), 0.0, None)).sum())
    traces = float(np.trace(covariance)) + float(np.square(factor).sum()) / (len(reconstruction) - 1)
    return max(float((mean - own) @ (mean - own)) + traces - 2.0 * root, 0.0)


def _factors(x: Features, y: Features) -> tuple[Values, Values, tuple[Values, Values]]:
    """(F, G, both means), F Gᵀ having the singular values of M: A and B, or R_A and R_B where these are shorter."""
    means = x.mean(axis=0, dtype=np.float64), y.mean(axis=0, dtype=np.float64)
    return _factor(x, means[0]), _factor(y, means[1]), means


def _factor(features: Features, mean: Values) -> Values:
    """F with FᵀF = (n - 1) Σ and as few rows as D, if not as images."""
    shorten = _centred if len(features) <= features.shape[1] else _orthogonal if len(features) <= MANY else _cholesky
    return shorten(features, mean)


def _centred(features: Features, mean: Values) -> Values:
    return np.asarray(features - mean, dtype=np.float64)


def _orthogonal(features: Features, mean: Values) -> Values:
    return np.asarray(np.linalg.qr(features - mean, mode="r"), dtype=np.float64)


def _cholesky(features: Features, mean: Values) -> Values:
    return Moments.of(features, mean, np.arange(len(features))).factor()


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over rows of features less an origin; those of disjoint rows add up to those of all."""

    n: int
    """number of rows"""
    total: Values
    """[D] their sum"""
    products: Values
    """[D, D] sum of their outer products"""

    @classmethod
    def of(cls, features: Features, origin: Values, rows: NDArray[np.intp]) -> Moments:
        """Of the given rows of features [n, D], a block of them in float64 at a time."""
        total, products = np.zeros(len(origin)), np.zeros((len(origin), len(origin)))
        for start in range(0, len(rows), _ROWS):
            block = features[rows[start : start + _ROWS]] - origin
            total += block.sum(axis=0)
            products += block.T @ block
        return cls(len(rows), total, products)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, self.total + other.total, self.products + other.products)

    def factor(self) -> Values:
        """[D, D] R with RᵀR the products about the rows' own mean."""
        products = self.products - np.outer(self.total, self.total / self.n)
        try:
            return np.asarray(np.linalg.cholesky(products).T, dtype=np.float64)
        except np.linalg.LinAlgError:  # of low rank
            values, vectors = np.linalg.eigh(products)
            return np.asarray(np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T, dtype=np.float64)


def rfid_of_moments(reference: Moments, reconstruction: Moments, gap: Values) -> float:
    """rFID of rows known by their moments; `gap` [D] is the reference's origin less the reconstruction's."""
    first, second, n = reference.factor(), reconstruction.factor(), reference.n
    singular = np.linalg.svd(first @ second.T, compute_uv=False)
    gap = gap + (reference.total - reconstruction.total) / n
    return _distance(gap, _squares(first, second), float(singular.sum()), n)


def _squares(first: Values, second: Values) -> float:
    """(n - 1) (Tr Σ₁ + Tr Σ₂)."""
    return float(np.square(first).sum() + np.square(second).sum())


def _distance(gap: Values, squares: float, nuclear: float, n: int) -> float:
    """The distance; rounding leaves equal sets a hair below zero."""
    return max(float(gap @ gap) + (squares - 2.0 * nuclear) / (n - 1), 0.0)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Features and the decomposition of A Bᵀ."""

    x: Features
    """[n, D] references"""
    y: Features
    """[n, D] reconstructions"""
    means: tuple[Values, Values]
    """[D] of each"""
    squares: float
    """‖A‖² + ‖B‖²"""
    left: Values
    """[n, r] U where n ≤ D, else [D, r], which A turns into U"""
    singular: Values
    """[r] S, all positive"""
    right: Values
    """the same of V and B"""

    @classmethod
    def of(cls, x: Features, y: Features) -> _Pairs:
        first, second, means = _factors(x, y)
        left, singular, right = np.linalg.svd(first @ second.T)
        kept = singular > 1e-13 * max(float(singular[0]), 1e-300)
        left, singular, right = left[:, kept], singular[kept], right[kept].T
        if len(x) > x.shape[1]:
            left, right = second.T @ (right / singular), first.T @ (left / singular)
        return cls(x, y, means, _squares(first, second), left, singular, right)

    @property
    def gap(self) -> Values:
        """[D] difference of the means."""
        return self.means[0] - self.means[1]

    def value(self) -> float:
        """The distance."""
        return _distance(self.gap, self.squares, float(self.singular.sum()), len(self.x))

    def rows(self, rows: NDArray[np.intp]) -> tuple[Values, Values, Values, Values]:
        """These rows of A, B, U and V."""
        a, b = self.x[rows] - self.means[0], self.y[rows] - self.means[1]
        if len(self.x) <= self.x.shape[1]:
            return a, b, self.left[rows], self.right[rows]
        return a, b, a @ self.left, b @ self.right


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
    n, gap, nuclear = len(pairs.x), pairs.gap, pairs.singular.sum()
    c = n / (n - 1)
    found = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS):
        a, b, u, v = pairs.rows(rows[start : start + _ROWS])
        u2, v2 = np.square(u), np.square(v)
        # 1 - c Σ u² a = (1 - c Σ u²) + c Σ u² (1 - a): no digits are lost where a is near one
        first = np.maximum(1.0 - c * u2.sum(axis=1), 0.0)[:, None] + c * (u2 @ quadrature.rest)
        second = np.maximum(1.0 - c * v2.sum(axis=1), 0.0)[:, None] + c * (v2 @ quadrature.rest)
        determinant = first * second + np.square(c * ((u * v) @ quadrature.odd))
        change = np.log(np.maximum(determinant, 1e-300)) @ quadrature.weights
        gaps = gap - (a - b) / (n - 1)
        spread = pairs.squares - c * (np.square(a).sum(axis=1) + np.square(b).sum(axis=1)) - 2.0 * (nuclear + change)
        found[start : start + _ROWS] = np.square(gaps).sum(axis=1) + spread / (n - 2)
    return found


def _without_unit(pairs: _Pairs, quadrature: _Quadrature, rows: NDArray[np.intp]) -> float:
    """The distance without several pairs at once."""
    if len(rows) > _WHOLE:
        kept = np.setdiff1d(np.arange(len(pairs.x)), rows)
        return rfid_value(pairs.x[kept], pairs.y[kept])
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
        a, b, u, v = pairs.rows(rows)
        cross = _products(u, v, quadrature.odd)
        upper = np.stack([_products(u, u, quadrature.even), cross], axis=2)
        lower = np.stack([-cross.transpose(0, 2, 1), _products(v, v, quadrature.even)], axis=2)
        return cls(pairs, quadrature, np.stack([upper, lower], axis=1), a @ a.T + b @ b.T, a - b)

    def without(self, chosen: NDArray[np.intp]) -> Values:
        """The distance without each set of m of those pairs, chosen [sets, m]: [sets]."""
        n, (count, m) = len(self.pairs.x), chosen.shape
        c = np.eye(m) + 1.0 / (n - m)
        some, other = chosen[:, :, None], chosen[:, None, :]
        blocks = self.kernel[:, :, some, :, other].transpose(0, 3, 4, 1, 5, 2).reshape(count, -1, 2 * m, 2 * m)
        logs = np.linalg.slogdet(np.eye(2 * m) - np.kron(np.eye(2), c) @ blocks).logabsdet
        change = np.maximum(logs, -700.0) @ self.quadrature.weights
        gaps = self.pairs.gap - self.apart[chosen].sum(axis=1) / (n - m)
        traces = self.pairs.squares - (c * self.inner[some, other]).sum(axis=(1, 2))
        nuclear = self.pairs.singular.sum() + change
        return np.asarray(np.square(gaps).sum(axis=1) + (traces - 2.0 * nuclear) / (n - m - 1), dtype=np.float64)


def _products(u: Values, v: Values, factors: Values) -> Values:
    """U diag(factors) Vᵀ for each column of factors [r, nodes]: [nodes, m, m]."""
    m = len(u)
    outer = (u[:, None, :] * v[None, :, :]).reshape(m * m, -1)
    return np.asarray((outer @ factors).T.reshape(-1, m, m), dtype=np.float64)
