"""Octave powers of pictures whose spectrum is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from harness.metrics.metric import Batch
from harness.metrics.spectral import METRIC, OCTAVE_COLUMNS, octave_difference, octave_power, octaves_for


def white(count: int, height: int, width: int, deviation: float) -> Tensor:
    """Grey white noise around 128."""
    noise = torch.randn(count, 1, height, width, generator=torch.Generator().manual_seed(0))
    return (128 + deviation * noise).round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)


def grating(frequency: float, angle: float, size: int = 192) -> Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    wave = torch.cos(2 * math.pi * frequency * (x * math.cos(angle) + y * math.sin(angle)))
    return (128 + 100 * wave).round().to(torch.uint8).expand(1, 3, -1, -1)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 80)])
def test_white_noise_spreads_by_area(height: int, width: int) -> None:
    power = octave_power(white(64, height, width, 20.0)).mean(dim=0)
    total = 20.0**2 + 1 / 12  # rounding adds a twelfth
    # 64 images of about H·W·0.27 independent values each (Hann): relative error of a variance √(2/n), four of them.
    tolerance = 4 * math.sqrt(2 / (64 * height * width * 0.2))
    assert power.sum() == pytest.approx(total, rel=tolerance)
    assert power[0] / power.sum() == pytest.approx(1 - math.pi / 16, rel=tolerance)
    assert power[1] / power.sum() == pytest.approx(math.pi / 16 * 3 / 4, rel=0.05)


@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi / 2])
@pytest.mark.parametrize(("frequency", "ring"), [(0.35, 0), (0.18, 1), (0.09, 2), (0.045, 3), (0.02, 4)])
def test_a_grating_lies_in_the_ring_of_its_frequency(frequency: float, ring: int, angle: float) -> None:
    power = octave_power(grating(frequency, angle))[0]
    assert power[ring] > 0.95 * power.sum()
    assert power.sum() == pytest.approx(100.0**2 / 2, rel=0.1)


def test_a_slope_does_not_leak_into_the_top() -> None:
    slope = torch.arange(64).mul(4).to(torch.uint8).expand(1, 3, 64, 64)
    power = octave_power(slope)[0]
    # Unwindowed, the jump at the edge would put about 1/1000 of the power there.
    assert power[0] < 1e-4 * power.sum()


def test_grain_is_above_one_blur_below() -> None:
    reference = white(3, 64, 64, 15.0)
    grain = (reference.float() + 45 * torch.randn(3, 1, 64, 64, generator=torch.Generator().manual_seed(1))).clamp(0, 255)
    blurred = interpolate(avg_pool2d(reference.float(), 2), scale_factor=2, mode="bilinear")
    top = octave_power(reference)[:, 0]
    assert octave_power(grain.to(torch.uint8))[:, 0] / top == pytest.approx(torch.full((3,), 10.0).numpy(), rel=0.15)
    assert (octave_power(blurred.to(torch.uint8))[:, 0] / top).max() < 0.2


@pytest.mark.parametrize("side", [32, 64, 224, 257])
def test_an_image_does_not_depend_on_its_batch_or_on_threads(side: int) -> None:
    """To the last bit: several processes cut other batches, and a resumed run must give the figures of a whole one."""
    images, rings, threads = white(5, side, side, 30.0), octaves_for(side, side), torch.get_num_threads()
    together = octave_power(images, rings)
    torch.set_num_threads(3 - min(threads, 2))
    try:
        apart = torch.cat([octave_power(part, rings) for part in (images[:1], images[1:4], images[4:])])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(together, apart)


def test_a_flat_picture_has_no_power() -> None:
    assert octave_power(torch.full((1, 3, 64, 64), 200, dtype=torch.uint8)).max() < 1e-20


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        octave_power(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="at least 64"):
        octave_power(torch.zeros(1, 3, 64, 63, dtype=torch.uint8))
    with pytest.raises(ValueError, match="octaves"):
        octave_power(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), octaves=0)


def test_octave_differences_by_hand() -> None:
    floor = 1 / 12
    power, reference = torch.tensor([[10.0, 0.0]]).double(), torch.tensor([[1.0, 0.0]]).double()
    found = octave_difference(power, reference)[0]
    assert found[0] == pytest.approx(10 * math.log10((10 + floor) / (1 + floor)))
    assert found[1] == 0.0
    assert torch.equal(octave_difference(reference, power), -octave_difference(power, reference))


@pytest.mark.parametrize(("side", "rings"), [(256, 5), (64, 5), (63, 4), (32, 4), (8, 2), (4, 1)])
def test_small_images_have_fewer_octaves(side: int, rings: int) -> None:
    assert octaves_for(side, 300) == rings
    octave_power(torch.zeros(1, 3, side, side, dtype=torch.uint8), octaves_for(side, side))


@pytest.mark.parametrize("side", [40, 64, 100])
def test_columns_are_those_of_numpy(side: int) -> None:
    reference, images = white(1, side, side, 15.0), white(2, side, side, 25.0)[1:]
    half = METRIC.load(torch.device("cpu"), True)
    found = half.measure(Batch(images, reference), half.prepare(reference))
    again = METRIC.check.pair(*(image[0].permute(1, 2, 0).numpy() for image in (reference, images)))
    assert set(found) == set(again) == {"spectral", *OCTAVE_COLUMNS}
    for name, values in found.items():
        assert values == pytest.approx(again[name], abs=METRIC.check.absolute, nan_ok=True)
    assert math.isnan(again[OCTAVE_COLUMNS[-1]]) == (side < 64)
