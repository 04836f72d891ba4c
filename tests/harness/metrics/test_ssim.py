from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from harness.metrics import psnr as psnr_entry
from harness.metrics import ssim as ssim_entry
from harness.metrics.psnr import psnr
from harness.metrics.ssim import MIN_SIDE, ssim


def _hwc(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def test_psnr_and_ssim_equal_scikit_image(photos: Tensor, reconstructions: Tensor) -> None:
    for ours, entry in ((psnr(reconstructions, photos), psnr_entry.METRIC), (ssim(reconstructions, photos), ssim_entry.METRIC)):
        theirs = [entry.check.pair(_hwc(a), _hwc(b)) for a, b in zip(photos, reconstructions, strict=True)]
        assert ours.numpy() == pytest.approx(np.array(theirs), abs=1e-10)


def test_sides_may_differ_and_be_as_short_as_the_window() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 256, (1, 3, MIN_SIDE, 37), dtype=torch.uint8, generator=generator) for _ in range(2))
    theirs = structural_similarity(
        _hwc(a[0]), _hwc(b[0]), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1
    )
    assert ssim(a, b).item() == pytest.approx(theirs, abs=1e-10)
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(a[..., 1:, :], b[..., 1:, :])


def test_values_do_not_depend_on_the_batch(photos: Tensor, reconstructions: Tensor) -> None:
    assert torch.equal(psnr(reconstructions, photos)[3:4], psnr(reconstructions[3:4], photos[3:4]))
    assert ssim(reconstructions, photos)[3].item() == pytest.approx(ssim(reconstructions[3:4], photos[3:4]).item(), abs=1e-12)


def test_equal_images(photos: Tensor) -> None:
    assert torch.isinf(psnr(photos, photos)).all()
    assert ssim(photos, photos).numpy() == pytest.approx(1.0, abs=1e-12)


def test_black_against_white_is_zero_decibels() -> None:
    black, white = torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    assert psnr(black, white).item() == 0.0
    assert ssim(black, white).item() == pytest.approx(1e-4, rel=1e-3)  # C1 / (1 + C1) with C1 = 0.01²


def test_wrong_input_is_named() -> None:
    image = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match="uint8"):
        psnr(image.float(), image.float())
    with pytest.raises(ValueError, match="one shape"):
        ssim(image, image[..., :15])
