from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.errors import MsbenchError
from harness.stats.extrapolate import rfid_infinity
from harness.stats.rfid import rfid_value


def test_the_extrapolated_value_is_nearer_to_that_of_very_many_images(populations: dict[int, Any]) -> None:
    generator = np.random.default_rng(0)
    truth = rfid_value(*populations[16].draw(200_000, generator))
    found = [rfid_infinity(*populations[16].draw(300, generator)) for _ in range(30)]
    error = np.mean([one.infinity for one in found]) - truth
    bias = np.mean([one.value for one in found]) - truth
    assert bias > 0.1 * truth
    assert abs(error) < 0.25 * bias
    assert np.mean([one.bias for one in found]) == pytest.approx(bias, rel=0.25)
    assert all(one.linear for one in found)


def test_the_value_is_that_of_all_images_and_points_are_of_disjoint_parts(populations: dict[int, Any]) -> None:
    reference, reconstruction = populations[16].draw(90, np.random.default_rng(0))
    found = rfid_infinity(reference, reconstruction, parts=(1, 3))
    assert found.value == pytest.approx(rfid_value(reference, reconstruction))
    assert found.sizes == (90, 30)
    # a line through two points has its intercept in closed form
    assert found.infinity == pytest.approx((90 * found.means[0] - 30 * found.means[1]) / 60)


def test_the_warning_names_the_bias_and_stops_at_ten_thousand_images(populations: dict[int, Any]) -> None:
    found = rfid_infinity(*populations[8].draw(80, np.random.default_rng(0)))
    text = found.warning()
    assert text is not None
    assert f"{found.bias:.3g}" in text
    assert "not comparable with 50k figures" in text
    assert "rough" not in text
    many = rfid_infinity(*populations[8].draw(10_000, np.random.default_rng(0)))
    assert many.warning() is None


def test_fewer_images_than_dimensions_make_it_rough(populations: dict[int, Any]) -> None:
    found = rfid_infinity(*populations[64].draw(100, np.random.default_rng(0)))
    assert not found.linear
    assert "rough figure with parts of 25 images in 64 dimensions" in str(found.warning())


def test_a_perfect_decoder_has_no_bias(populations: dict[int, Any]) -> None:
    (reference, _) = populations[8].draw(40, np.random.default_rng(0))
    found = rfid_infinity(reference, reference)
    assert found.value == pytest.approx(0.0, abs=1e-9)
    assert found.bias == pytest.approx(0.0, abs=1e-9)


def test_too_few_images_or_parts_are_refused() -> None:
    features = np.random.default_rng(0).normal(size=(7, 3))
    with pytest.raises(MsbenchError, match="7 images are too few"):
        rfid_infinity(features, features)
    with pytest.raises(ValueError, match="two different"):
        rfid_infinity(features, features, parts=(2,))
