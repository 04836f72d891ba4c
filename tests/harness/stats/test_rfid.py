"""rFID against other formulas; its values without a unit are tested in test_sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from harness.stats import rfid
from harness.stats.rfid import rfid_statistic, rfid_value


def _features(seed: int, count: int, dimensions: int, shift: float = 0.0) -> NDArray[np.float64]:
    """Skewed, correlated, non-negative features, as pooled activations are."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dimensions, dimensions)) / np.sqrt(dimensions)
    return np.maximum(generator.normal(size=(count, dimensions)) @ mixing + shift, 0.0)


@pytest.mark.parametrize("count", [20, 64, 65, 300])
def test_value_and_statistic_agree_with_torch_fidelity(count: int) -> None:
    first, second = _features(0, count, 64), _features(1, count, 64, shift=0.1)
    statistics = [fid_features_to_statistics(torch.from_numpy(features)) for features in (first, second)]
    theirs = float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])
    assert rfid_value(first, second) == pytest.approx(theirs, rel=1e-5)
    assert rfid_statistic(first, second).value == pytest.approx(rfid_value(first, second), rel=1e-12)


def test_closed_form_in_one_dimension() -> None:
    first, second = _features(0, 50, 1), _features(1, 50, 1, shift=0.7)
    expected = (first.mean() - second.mean()) ** 2 + (first.std(ddof=1) - second.std(ddof=1)) ** 2
    assert rfid_value(first, second) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [10, 200])
def test_equal_sets_are_at_zero_and_order_does_not_matter(count: int) -> None:
    first, second = _features(0, count, 64), _features(1, count, 64)
    assert 0.0 <= rfid_value(first, first[::-1]) < 1e-9
    assert rfid_value(first, second) == pytest.approx(rfid_value(second, first), rel=1e-9)


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_sums_over_blocks_of_rows_say_the_same(monkeypatch: pytest.MonkeyPatch, low_rank: bool, kind: type) -> None:
    # what sets above 10,000 images go through, with blocks of 64 rows
    first, second = (_features(seed, 400, 24, shift).astype(kind) for seed, shift in ((0, 0.0), (1, 0.1)))
    if low_rank:
        first, second = (np.concatenate([f, f[:, :4], np.zeros((400, 2), kind)], axis=1) for f in (first, second))
    clusters = [0, 0, 0, *range(1, 398)]
    expected = rfid_statistic(first, second, clusters)
    monkeypatch.setattr(rfid, "MANY", 100)
    monkeypatch.setattr(rfid, "_ROWS", 64)
    found = rfid_statistic(first, second, clusters)
    assert rfid_value(first, second) == pytest.approx(expected.value, rel=1e-7 if low_rank else 1e-11)
    assert np.abs(found.without - expected.without).max() < 1e-5 * np.abs(expected.without - expected.value).max()
    assert np.abs(found.interaction - expected.interaction).max() < 1e-4 * np.abs(expected.interaction).max()
