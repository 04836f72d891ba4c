from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.stats import extrapolate
from harness.stats.extrapolate import rfid_infinity
from harness.stats.rfid import rfid_value

DIMENSIONS = 48
# y = 0.9 x + 0.3 e + 0.05 with unit normals: ‖Δμ‖² + Σ (σ₁ - σ₂)²
TRUTH = DIMENSIONS * (0.05**2 + (1.0 - np.sqrt(0.9**2 + 0.3**2)) ** 2)


def _known(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of Gaussian features whose Fréchet distance is `TRUTH`."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, DIMENSIONS))
    return x, 0.9 * x + 0.3 * generator.normal(size=x.shape) + 0.05


@pytest.mark.parametrize("n", [220, 480, 960])
def test_the_bias_is_given_and_right_where_parts_are_large(n: int) -> None:
    found = [rfid_infinity(*_known(n, seed)) for seed in range(12)]
    bias = np.mean([one.value for one in found]) - TRUTH
    assert bias > 0.05 * TRUTH
    assert all(one.bias is not None for one in found)
    assert np.mean([one.bias for one in found]) == pytest.approx(bias, rel=0.15)
    assert all(one.bias == pytest.approx(bias, rel=0.4) for one in found)
    text = found[0].warning()
    assert text is not None
    assert f"biased upwards by about {found[0].bias:.3g}" in text
    assert "not comparable with 50k figures" in text


@pytest.mark.parametrize("n", [2, 16, 50, 100, 190])
def test_no_figure_where_a_part_has_no_more_images_than_dimensions(n: int) -> None:
    # at n = 16 to 100 a line through such parts finds less than half of the bias
    found = rfid_infinity(*_known(n, 0))
    assert found.value > 2.0 * TRUTH
    assert (found.infinity, found.bias, found.sizes, found.means) == (None, None, (), ())
    text = found.warning()
    assert text is not None
    assert "unknown, and large (too few images for features of 48 dimensions); not comparable with 50k" in text
    assert "about" not in text


@pytest.mark.parametrize(("bend", "shown"), [(0.0, True), (100.0, True), (20_000.0, False), (-20_000.0, False)])
def test_no_figure_where_the_points_lie_on_no_line(monkeypatch: pytest.MonkeyPatch, bend: float, shown: bool) -> None:
    def curve(n: int) -> float:
        return 3.0 + 200.0 / n + bend / n**2

    monkeypatch.setattr(extrapolate, "rfid_value", lambda x, y: curve(len(x)))
    monkeypatch.setattr(extrapolate, "rfid_of_moments", lambda first, second, gap: curve(first.n))
    found = rfid_infinity(*np.zeros((2, 240, 2)))
    assert (found.infinity is not None) == shown
    assert found.sizes == (240, 120, 80, 60)
    if shown:
        assert found.infinity == pytest.approx(3.0, abs=0.02)
    else:
        assert "unknown, and large (not linear in 1 / n)" in str(found.warning())


def test_the_value_is_that_of_all_images_and_may_be_given() -> None:
    pairs = _known(220, 0)
    found = rfid_infinity(*pairs)
    assert found.value == found.means[0] == pytest.approx(rfid_value(*pairs))
    assert rfid_infinity(*pairs, whole=found.value) == found


def test_the_warning_stops_at_ten_thousand_images(populations: dict[int, Any]) -> None:
    assert rfid_infinity(*populations[8].draw(9_999, np.random.default_rng(0))).warning() is not None
    assert rfid_infinity(*populations[8].draw(10_000, np.random.default_rng(0))).warning() is None


def test_a_perfect_decoder_has_no_bias(populations: dict[int, Any]) -> None:
    (reference, _) = populations[8].draw(40, np.random.default_rng(0))
    found = rfid_infinity(reference, reference)
    assert found.value == pytest.approx(0.0, abs=1e-9)
    assert found.bias == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("n", [200, 240, 251, 263])
def test_the_parts_means_are_those_of_their_own_images(n: int) -> None:
    # the moments of pieces, added up, against the distance of each part computed from its rows
    x, y = _known(n, 3)
    found = rfid_infinity(x.astype(np.float32), y.astype(np.float32))
    order = np.random.default_rng(0).permutation(n)
    for count, size, mean in zip((1, 2, 3, 4), found.sizes, found.means, strict=True):
        assert size == n // count
        rows = [np.sort(order[part * size : (part + 1) * size]) for part in range(count)] if count > 1 else [np.arange(n)]
        by_rows = np.mean([rfid_value(x[one].astype(np.float32), y[one].astype(np.float32)) for one in rows])
        assert mean == pytest.approx(by_rows, rel=1e-9)
