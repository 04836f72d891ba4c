"""PSNR and SSIM of uint8 RGB images, per image, vectorised over the batch; an image's value does not depend on its batch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SIGMA = 1.5
_RADIUS = 5  # int(3.5 * sigma + 0.5): scikit-image truncates the Gaussian at 3.5 sigma
_C1, _C2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
MIN_SIDE = 2 * _RADIUS + 1
"""smallest height and width SSIM is defined for"""

Moments = tuple[Tensor, Tensor]
"""Windowed means of an image and of its square, float64 [B, 3, H - 10, W - 10] each."""


def psnr(images: Tensor, references: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over all channels, 10 log₁₀(255² / MSE) dB.

    Args:
        images, references: uint8 [B, 3, H, W].

    Returns:
        float64 [B]; `inf` where an image equals its reference: there is no cap, which would be one more free parameter.
    """
    _check(images, references)
    # Sums of squared integers are exact, whatever the order.
    squares = (images.int() - references.int()).square().flatten(1).sum(dim=1, dtype=torch.int64)
    mse = squares.cpu().double() / images[0].numel()
    return 10.0 * torch.log10(255.0**2 / mse)


def mean_psnr(values: NDArray[np.floating]) -> float:
    """Mean of per-image dB over the images that differ from their reference; `inf` only where none does, NaN for no images.

    One exact image among thousands would otherwise make the mean infinite; those left out are `inf` in the per-image values.
    """
    if len(values) == 0:
        return float("nan")
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("inf")


def ssim_moments(references: Tensor) -> Moments:
    """What SSIM needs of uint8 reference images [B, 3, H, W], for any number of `ssim`.

    Raises:
        ValueError: a side is too short.
    """
    if min(references.shape[-2:]) < MIN_SIDE:
        raise ValueError(f"SSIM needs images of at least {MIN_SIDE} x {MIN_SIDE}; got {tuple(references.shape[-2:])}")
    maps = [(_smooth(y), _smooth(y * y)) for y in map(_double, _chunks(references))]
    return torch.cat([mean for mean, _ in maps]), torch.cat([square for _, square in maps])


def ssim(images: Tensor, references: Tensor, moments: Moments | None = None) -> Tensor:
    """Structural similarity (Wang et al., 2004) as scikit-image computes it on RGB with `gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=255, channel_axis=-1`: the mean over channels of the map without its 5-pixel border.

    Args:
        images, references: uint8 [B, 3, H, W], sides of at least `MIN_SIDE`.
        moments: `ssim_moments` of the references; None = computed here.

    Returns:
        float64 [B], at most 1 (equal images).

    Raises:
        ValueError: shapes or dtypes differ, or a side is too short.
    """
    _check(images, references)
    found = ssim_moments(references) if moments is None else moments
    parts = zip(_chunks(images), _chunks(references), *map(_chunks, found), strict=True)
    return torch.cat([_similarity(_double(x), _double(y), mean, square) for x, y, mean, square in parts]).cpu()


def _similarity(x: Tensor, y: Tensor, mean_y: Tensor, mean_yy: Tensor) -> Tensor:
    """SSIM of float64 images [B, 3, H, W] from the reference's windowed means; in place where it can be: memory is the cost."""
    mean_x = _smooth(x)
    product = mean_x * mean_y
    covariance = _smooth(x * y).sub_(product)
    squares = mean_x.square_().addcmul_(mean_y, mean_y)
    spread = _smooth(x.square_()).add_(mean_yy).sub_(squares)  # var(x) + var(y), the only way the two variances enter
    top = product.mul_(2.0).add_(_C1).mul_(covariance.mul_(2.0).add_(_C2))
    return top.div_(squares.add_(_C1).mul_(spread.add_(_C2))).flatten(1).mean(dim=1)


def _smooth(maps: Tensor) -> Tensor:
    """Gaussian window, only where it fits: [B, C, H, W] → [B, C, H - 10, W - 10].

    scikit-image pads by reflection and then crops the same 5 pixels, so padded values never reach its mean either.
    """
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, dtype=maps.dtype)
    window = torch.exp(-0.5 * (offsets / _SIGMA) ** 2)
    weights: list[float] = (window / window.sum()).tolist()
    for dim in (2, 3):
        length = maps.shape[dim] - 2 * _RADIUS
        smoothed = maps.narrow(dim, 0, length) * weights[0]
        for offset, weight in enumerate(weights[1:], start=1):
            smoothed.add_(maps.narrow(dim, offset, length), alpha=weight)
        maps = smoothed
    return maps


def _chunks(images: Tensor) -> tuple[Tensor, ...]:
    """One image at a time on a CPU, whose cache holds its maps but not a batch's; the whole batch elsewhere."""
    return tuple(torch.split(images, 1 if images.device.type == "cpu" else len(images)))


def _double(images: Tensor) -> Tensor:
    """float64, on the CPU where the device has none (Apple's GPUs)."""
    return (images.cpu() if images.device.type == "mps" else images).double()


def _check(images: Tensor, references: Tensor) -> None:
    if images.shape != references.shape or images.dim() != 4:
        raise ValueError(
            f"expected two batches [B, 3, H, W] of one shape; got {tuple(images.shape)} and {tuple(references.shape)}"
        )
    if images.dtype != torch.uint8 or references.dtype != torch.uint8:
        raise ValueError(f"expected uint8 images; got {images.dtype} and {references.dtype}")
