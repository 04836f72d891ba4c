from __future__ import annotations

import numpy as np
import pytest
import torch
from harness.metrics.frechet import Moments, frechet_distance, frechet_from_moments, frechet_low_rank, moments
from numpy.typing import NDArray
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric


def _features(seed: int, count: int, dimensions: int, shift: float = 0.0) -> NDArray[np.float64]:
    """Skewed, correlated, non-negative features, as pooled activations are."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dimensions, dimensions)) / np.sqrt(dimensions)
    return np.maximum(generator.normal(size=(count, dimensions)) @ mixing + shift, 0.0)


def _torch_fidelity(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    statistics = [fid_features_to_statistics(torch.from_numpy(features)) for features in (first, second)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


@pytest.mark.parametrize(("n1", "n2"), [(20, 20), (64, 64), (30, 200), (200, 30), (300, 250)])
def test_both_forms_agree_with_each_other_and_with_torch_fidelity(n1: int, n2: int) -> None:
    first, second = _features(0, n1, 64), _features(1, n2, 64, shift=0.1)
    theirs = _torch_fidelity(first, second)
    assert frechet_distance(first, second) == pytest.approx(theirs, rel=1e-5)
    assert frechet_low_rank(first, second) == pytest.approx(theirs, rel=1e-5)
    assert frechet_from_moments(moments(first), moments(second)) == pytest.approx(theirs, rel=1e-5)


def test_full_rank_forms_agree_to_rounding() -> None:
    first, second = _features(0, 400, 32), _features(1, 300, 32)
    assert frechet_low_rank(first, second) == pytest.approx(frechet_from_moments(moments(first), moments(second)), rel=1e-9)


def test_closed_form_in_one_dimension() -> None:
    first, second = _features(0, 50, 1), _features(1, 70, 1, shift=0.7)
    expected = (first.mean() - second.mean()) ** 2 + (first.std(ddof=1) - second.std(ddof=1)) ** 2
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)


def test_known_gaussians() -> None:
    """Commuting covariances: ‖Δμ‖² + Σ (σ₁ - σ₂)²."""
    first = Moments(10, np.array([0.0, 1.0, 2.0]), np.diag([1.0, 4.0, 0.0]))
    second = Moments(10, np.array([1.0, 1.0, 0.0]), np.diag([9.0, 1.0, 25.0]))
    assert frechet_from_moments(first, second) == pytest.approx(1 + 4 + 4 + 1 + 25, rel=1e-12)


@pytest.mark.parametrize("count", [10, 200])
def test_equal_sets_are_at_zero_and_order_does_not_matter(count: int) -> None:
    first, second = _features(0, count, 64), _features(1, count, 64)
    assert 0.0 <= frechet_distance(first, first[::-1]) < 1e-9
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-9)


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(np.zeros((1, 4)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="dimensions"):
        frechet_distance(np.zeros((3, 4)), np.zeros((3, 5)))
