from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch_fidelity.metric_kid import kid_features_to_metric, mmd2

from harness.metrics import kid
from harness.metrics.kid import kid_pairs, kid_subsets, kid_unpaired


def _features(seed: int, count: int, dimensions: int = 32, shift: float = 0.0) -> NDArray[np.float64]:
    return np.abs(np.random.default_rng(seed).normal(size=(count, dimensions)) + shift)


def _kernels(first: NDArray[np.float64], second: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return [(a @ b.T / a.shape[1] + 1) ** 3 for a, b in ((first, first), (first, second), (second, second))]


def test_subsets_equal_torch_fidelity() -> None:
    first, second = _features(0, 90), _features(1, 70, shift=0.2)
    theirs = kid_features_to_metric(
        torch.from_numpy(first), torch.from_numpy(second), kid_subsets=20, kid_subset_size=50, rng_seed=2020, verbose=False
    )
    mean, spread = kid_subsets(first, second, subsets=20, size=50)
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert spread == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)


def test_whole_sets_equal_torch_fidelity_estimators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kid, "_BLOCK", 17)  # several blocks, the last one short
    first, second = _features(0, 60), _features(1, 60, shift=0.2)
    kernels = _kernels(first, second)
    assert kid_unpaired(first, second) == pytest.approx(mmd2(*kernels, mmd_est="unbiased"), rel=1e-9)
    assert kid_pairs(first, second) == pytest.approx(mmd2(*kernels, mmd_est="u-statistic"), rel=1e-9)


def test_pairs_are_unbiased_where_the_usual_estimate_is_not() -> None:
    """Both sets follow one distribution, so the true distance is 0; only partners are correlated."""
    paired, usual = [], []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        shared, own = generator.normal(size=(30, 8)), generator.normal(size=(2, 30, 8))
        reference, reconstruction = 0.95 * shared + np.sqrt(1 - 0.95**2) * own
        paired.append(kid_pairs(reference, reconstruction))
        usual.append(kid_unpaired(reference, reconstruction))
    error = float(np.std(paired) / np.sqrt(len(paired)))
    assert abs(np.mean(paired)) < 4 * error
    assert np.mean(usual) < -10 * error


def test_equal_sets_on_pairs_give_zero() -> None:
    features = _features(0, 40)
    assert kid_pairs(features, features) == pytest.approx(0.0, abs=1e-12)


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="one shape"):
        kid_pairs(_features(0, 5), _features(0, 6))
    with pytest.raises(ValueError, match="subset of 10"):
        kid_subsets(_features(0, 5), _features(0, 20), size=10)
    with pytest.raises(ValueError, match="at least two"):
        kid_unpaired(_features(0, 1), _features(0, 6))
