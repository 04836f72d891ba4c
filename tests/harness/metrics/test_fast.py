"""The fast forms against the plain ones, image by image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from harness.metrics.fast import FastInception, FastLpips, resized
from harness.metrics.inception import InceptionFeatures
from harness.metrics.lpips import Lpips
from harness.stats.rfid import rfid_value

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(224, 224), (256, 256), (299, 299), (40, 321), (512, 64)])
def test_resize_equals_torch_fidelity_to_the_bit(shape: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(299, 299), align_corners=False)
    ours = resized(images)
    assert torch.equal(ours, (theirs - 128) / 128)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("metric_weights")
def test_inception_equals_its_plain_form(photos: Tensor, reconstructions: Tensor) -> None:
    plain, fast = InceptionFeatures.load(), FastInception(CPU)
    images = [photos, reconstructions[..., :224, :224]]
    (a, b), (c, d) = ([network.features(batch).numpy() for batch in images] for network in (plain, fast))
    assert abs(a - c).max() < 1e-4
    assert abs(b - d).max() < 1e-4
    assert rfid_value(c, d) == pytest.approx(rfid_value(a, b), abs=1e-4)
    assert not torch.equal(torch.from_numpy(a), torch.from_numpy(b))


@pytest.mark.usefixtures("metric_weights")
def test_lpips_equals_its_plain_form_and_one_state_serves_many_images(photos: Tensor, reconstructions: Tensor) -> None:
    plain, fast = Lpips.load("alex"), FastLpips(CPU)
    for references, first, second in [
        (photos, reconstructions, photos.flip(3)),
        (photos[:2, :, :100], reconstructions[:2, :, :100], photos[2:4, :, :100]),
    ]:
        state = fast.reference_state(references)
        for images in (first, second, first):
            expected = plain.distance(images, references)
            assert torch.allclose(fast.distance_to(state, images), expected, rtol=0, atol=1e-5)
            assert expected.min() > 0.01
        assert torch.equal(fast.distance_to(state, references), torch.zeros(len(references)))


@pytest.mark.usefixtures("metric_weights")
def test_identity_names_the_weights_and_the_device() -> None:
    from harness.weights import WEIGHTS

    identity = FastInception(CPU).identity
    assert WEIGHTS["inception"].content_sha256 in identity
    assert identity.endswith("cpu")
