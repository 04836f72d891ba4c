from __future__ import annotations

import numpy as np
import pytest
import torch
from harness.metrics.pixel import MIN_SIDE, mean_psnr, psnr, ssim
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor


def _hwc(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def test_psnr_and_ssim_equal_scikit_image(photos: Tensor, reconstructions: Tensor) -> None:
    ours_psnr, ours_ssim = psnr(reconstructions, photos), ssim(reconstructions, photos)
    for i in range(len(photos)):
        reference, image = _hwc(photos[i]), _hwc(reconstructions[i])
        assert ours_psnr[i].item() == pytest.approx(peak_signal_noise_ratio(reference, image, data_range=255), abs=1e-10)
        theirs = structural_similarity(
            reference, image, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1
        )
        assert ours_ssim[i].item() == pytest.approx(theirs, abs=1e-10)


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


def test_mean_psnr_leaves_exact_images_out() -> None:
    assert mean_psnr(np.array([20.0, np.inf, 30.0])) == 25.0
    assert mean_psnr(np.array([np.inf, np.inf])) == np.inf
    assert np.isnan(mean_psnr(np.array([])))


def test_wrong_input_is_named() -> None:
    image = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match="uint8"):
        psnr(image.float(), image.float())
    with pytest.raises(ValueError, match="one shape"):
        ssim(image, image[..., :15])
