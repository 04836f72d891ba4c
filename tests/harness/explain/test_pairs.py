"""PSNR and SSIM of two pictures against other people's code, called as their users call it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.color import rgb2gray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio as torch_psnr
from torchmetrics.functional.image import structural_similarity_index_measure as torch_ssim

from harness.explain import pairs
from harness.explain.pairs import mean, psnr, ssim
from tests.harness.explain.conftest import Saved

Picture = NDArray[np.uint8]
Ours = Callable[[Picture, Picture], float]


def unit(image: Picture) -> NDArray[np.float32]:
    return image.astype(np.float32) / 255.0


def tensor(image: Picture) -> Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].double()


def matlab(image: Picture) -> NDArray[np.float64]:
    """rgb2ycbcr's Y by its published table, on [0, 1]."""
    return 16.0 + 65.481 * image[..., 0] / 255 + 128.553 * image[..., 1] / 255 + 24.966 * image[..., 2] / 255


def jfif(image: Picture) -> NDArray[np.float64]:
    return 0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]


def luma_ssim(luma: Callable[[Picture], NDArray[np.float64]], x: Picture, y: Picture) -> float:
    """torchmetrics on one channel, its borders cut off: the mean over windows that lie inside."""
    x, y = (torch.from_numpy(luma(side))[None, None] for side in (x, y))
    _, full = torch_ssim(y, x, data_range=255.0, return_full_image=True)
    return float(full[..., 5:-5, 5:-5].mean())


def uniform_population(x: Picture, y: Picture) -> float:
    _, full = torch_ssim(tensor(y), tensor(x), gaussian_kernel=False, kernel_size=7, data_range=255.0, return_full_image=True)
    return float(full[..., 3:-3, 3:-3].mean())


CASES: dict[str, tuple[Ours, Ours]] = {
    "protocol": (
        ssim,
        lambda x, y: structural_similarity(
            x, y, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        ),
    ),
    "sample covariance": (
        partial(ssim, sample=True),
        lambda x, y: structural_similarity(x, y, channel_axis=-1, gaussian_weights=True, sigma=1.5),
    ),
    "SEED-Voken's line": (
        partial(ssim, window="uniform", sample=True),
        lambda x, y: structural_similarity(unit(y), unit(x), data_range=1.0, channel_axis=-1),
    ),
    "LlamaGen's line": (
        partial(ssim, window="uniform", sample=True, data_range=510.0),
        lambda x, y: structural_similarity(unit(y), unit(x), data_range=2.0, channel_axis=-1),
    ),
    "range 2, Gaussian": (
        partial(ssim, data_range=510.0),
        lambda x, y: float(
            torch_ssim(tensor(y) / 255, tensor(x) / 255, data_range=2.0, return_full_image=True)[1][..., 5:-5, 5:-5].mean()
        ),
    ),
    "uniform, population": (partial(ssim, window="uniform"), uniform_population),
    "torchmetrics": (partial(ssim, reflected=True), lambda x, y: float(torch_ssim(tensor(y), tensor(x), data_range=255.0))),
    "torchmetrics, data_range=None": (
        partial(ssim, reflected=True, data_range=None),
        lambda x, y: float(torch_ssim(tensor(y), tensor(x))),
    ),
    "LightningDiT's line": (
        partial(ssim, reflected=True, zero=127.5),
        lambda x, y: float(torch_ssim(tensor(y) / 127.5 - 1, tensor(x) / 127.5 - 1, data_range=(-1.0, 1.0))),
    ),
    "grey": (partial(ssim, luma=pairs.grey), partial(luma_ssim, lambda x: 255.0 * rgb2gray(x))),
    "grey, uniform": (
        partial(ssim, luma=pairs.grey, window="uniform", sample=True),
        lambda x, y: structural_similarity(rgb2gray(x), rgb2gray(y), data_range=1.0),
    ),
    "Y, studio": (partial(ssim, luma=pairs.studio), partial(luma_ssim, matlab)),
    "Y, full": (partial(ssim, luma=pairs.full), partial(luma_ssim, jfif)),
}


@pytest.mark.parametrize("name", CASES)
def test_ssim_equals_somebody_elses(name: str, light_run: Saved) -> None:
    ours, theirs = CASES[name]
    sides = list(zip(light_run.pictures("reference"), light_run.pictures("jpeg"), strict=True))
    assert mean(ours(*pair) for pair in sides) == pytest.approx(np.mean([theirs(*pair) for pair in sides]), abs=1e-3)


def test_each_way_is_another_number(light_run: Saved) -> None:
    first = light_run.pictures("reference")[0], light_run.pictures("jpeg")[0]
    found = [ours(*first) for ours, _ in CASES.values()]
    assert len({round(value, 7) for value in found}) == len(found)


def test_psnr_equals_somebody_elses(light_run: Saved) -> None:
    for x, y in zip(light_run.pictures("reference"), light_run.pictures("jpeg"), strict=True):
        assert psnr(x, y) == pytest.approx(peak_signal_noise_ratio(x, y), abs=1e-9)
        assert psnr(x, y, pairs.studio) == pytest.approx(
            peak_signal_noise_ratio(matlab(x), matlab(y), data_range=255), abs=1e-9
        )
        full = torch_psnr(torch.from_numpy(jfif(y)), torch.from_numpy(jfif(x)), data_range=255.0)
        assert psnr(x, y, pairs.full) == pytest.approx(float(full), abs=1e-5)


def test_equal_pictures_are_infinite_and_left_out_of_the_mean() -> None:
    image = np.zeros((16, 16, 3), dtype=np.uint8)
    assert psnr(image, image) == float("inf")
    assert mean([psnr(image, image), 20.0]) == 20.0
    assert mean([psnr(image, image)]) == float("inf")
