from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.psnr import METRIC


def test_the_mean_leaves_exact_images_out_and_hides_no_nan() -> None:
    assert METRIC.mean(np.array([20.0, np.inf, 30.0])) == 25.0
    assert METRIC.mean(np.array([np.inf, np.inf])) == np.inf
    assert np.isnan(METRIC.mean(np.array([])))
    assert np.isnan(METRIC.mean(np.array([20.0, np.nan])))


def test_scikit_image_agrees_that_equal_images_are_infinite() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    assert METRIC.check.pair(image, image) == np.inf
    assert METRIC.check.pair(image, image + 255) == pytest.approx(0.0)
