"""rFID and KID as entries: the figure, the published packages' and the check of `verify`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import mmd2

from harness.metrics import kid, rfid
from harness.metrics.metric import Metric, Whole


def _features(seed: int, count: int, dimensions: int, shift: float = 0.0) -> NDArray[np.float32]:
    """Skewed, correlated, non-negative features, as pooled activations are."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dimensions, dimensions)) / np.sqrt(dimensions)
    return np.maximum(generator.normal(size=(count, dimensions)) @ mixing + shift, 0.0).astype(np.float32)


def _whole(count: int, dimensions: int) -> Whole:
    return Whole(_features(0, count, dimensions), _features(1, count, dimensions, shift=0.1), {})


def _torch_fidelity(whole: Whole, name: str) -> float:
    first, second = whole.reference_features.astype(np.float64), whole.features.astype(np.float64)
    if name == "kid":
        kernels = [(a @ b.T / a.shape[1] + 1) ** 3 for a, b in ((first, first), (first, second), (second, second))]
        return float(mmd2(*kernels, mmd_est="u-statistic"))
    statistics = [fid_features_to_statistics(torch.from_numpy(features)) for features in (first, second)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


@pytest.mark.parametrize("metric", [rfid.METRIC, kid.METRIC], ids=lambda metric: metric.name)
@pytest.mark.parametrize(("count", "dimensions"), [(20, 64), (64, 64), (300, 32)])
def test_the_figure_is_torch_fidelitys_and_the_checks(metric: Metric, count: int, dimensions: int) -> None:
    whole, check = _whole(count, dimensions), metric.check
    found = metric.over_set(whole).value
    assert found == pytest.approx(_torch_fidelity(whole, metric.name), rel=1e-5)
    again = check.whole(whole)
    scale = check.scale(whole) if check.scale else abs(again)
    assert abs(found - again) <= check.absolute + check.relative * scale
    assert abs(found) > 100 * (check.absolute + check.relative * scale)


@pytest.mark.parametrize("metric", [rfid.METRIC, kid.METRIC], ids=lambda metric: metric.name)
def test_units_leave_together(metric: Metric) -> None:
    whole, clusters = _whole(40, 16), np.repeat(np.arange(10), 4).tolist()
    found = metric.over_set(whole, clusters)
    assert len(found.without) == 10
    assert found.without[3] == pytest.approx(metric.over_set(whole.rows(np.r_[0:12, 16:40])).value, rel=1e-5)
