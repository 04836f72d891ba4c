"""KID against other formulas; its values without a unit are tested in test_sets, those over blocks here."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from torch_fidelity.metric_kid import mmd2

from harness.stats import kid
from harness.stats.kid import blocks, kid_statistic
from harness.stats.sets import chosen_units


def _features(seed: int, count: int, dimensions: int = 32, shift: float = 0.0) -> NDArray[np.float64]:
    return np.abs(np.random.default_rng(seed).normal(size=(count, dimensions)) + shift)


def _kernels(first: NDArray[np.float64], second: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return [(a @ b.T / a.shape[1] + 1) ** 3 for a, b in ((first, first), (first, second), (second, second))]


def test_value_is_torch_fidelitys_u_statistic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kid, "_ROWS", 17)  # several parts, the last one short
    first, second = _features(0, 60), _features(1, 60, shift=0.2)
    expected = mmd2(*_kernels(first, second), mmd_est="u-statistic")
    assert kid_statistic(first, second).value == pytest.approx(expected, rel=1e-9)


def test_pairs_are_unbiased_where_the_usual_estimate_is_not() -> None:
    """Both sets follow one distribution, so the true distance is 0; only partners are correlated."""
    paired, usual = [], []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        shared, own = generator.normal(size=(30, 8)), generator.normal(size=(2, 30, 8))
        reference, reconstruction = 0.95 * shared + np.sqrt(1 - 0.95**2) * own
        paired.append(kid_statistic(reference, reconstruction).value)
        usual.append(mmd2(*_kernels(reference, reconstruction), mmd_est="unbiased"))
    error = float(np.std(paired) / np.sqrt(len(paired)))
    assert abs(np.mean(paired)) < 4 * error
    assert np.mean(usual) < -10 * error


def test_equal_sets_on_pairs_give_zero() -> None:
    features = _features(0, 40)
    assert kid_statistic(features, features).value == pytest.approx(0.0, abs=1e-12)


def test_up_to_ten_thousand_images_are_one_block_and_more_are_many_of_five_thousand() -> None:
    assert blocks(10_000).max() == 0
    assert np.bincount(blocks(10_001)).tolist() == [5001, 5000]
    assert np.bincount(blocks(50_000)).tolist() == [5000] * 10
    # data sets are sorted by class: a block must not be a run of rows
    assert np.unique(blocks(50_000)[:100]).size == 10
    assert np.array_equal(blocks(12_345), blocks(12_345))


def test_over_blocks_every_figure_is_that_of_the_pairs_within_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kid, "MANY", 50)
    monkeypatch.setattr(kid, "BLOCK", 30)
    first, second = _features(0, 100), _features(1, 100, shift=0.2)
    clusters = np.random.default_rng(0).integers(0, 40, 100)
    found = kid_statistic(first, second, clusters)
    xx, xy, yy = _kernels(first, second)
    h = xx + yy - xy - xy.T
    within = blocks(100)[:, None] == blocks(100)
    np.fill_diagonal(within, False)
    assert np.bincount(blocks(100)).tolist() == [34, 33, 33]
    units = np.array(found.units)

    def mean(kept: NDArray[np.bool_]) -> float:
        return float(h[within & kept[:, None] & kept].mean())

    assert found.value == pytest.approx(mean(units >= 0), rel=1e-9)
    assert found.without == pytest.approx([mean(units != unit) for unit in range(found.count)], rel=1e-9)
    chosen = chosen_units(found.count)
    for i, j in ((0, 1), (3, 9), (23, 22)):
        both = mean((units != chosen[i]) & (units != chosen[j]))
        expected = found.value - found.without[chosen[i]] - found.without[chosen[j]] + both
        assert found.interaction[i, j] == pytest.approx(expected, abs=1e-6 * np.abs(found.interaction).max())
