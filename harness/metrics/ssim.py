"""SSIM of uint8 RGB images, vectorised over the batch; an image's value does not depend on its batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.metrics.metric import Check, Metric, PerImage, Picture, floor, one_at_a_time
from harness.metrics.psnr import check_pair

_SIGMA = 1.5
_RADIUS = 5  # int(3.5 * sigma + 0.5): scikit-image truncates the Gaussian at 3.5 sigma
_TILE = 32  # outputs that one product gives: fewer make more calls, more multiply more zeros
_C1, _C2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
MIN_SIDE = 2 * _RADIUS + 1
"""smallest height and width SSIM is defined for"""

Moments = list[tuple[Tensor, Tensor]]
"""Windowed means of images and of their squares, float64 [n, 3, H - 10, W - 10] each, as many images as are taken at once."""


def ssim_moments(references: Tensor) -> Moments:
    """What SSIM needs of uint8 reference images [B, 3, H, W], for any number of `ssim`.

    Raises:
        ValueError: a side is too short.
    """
    if min(references.shape[-2:]) < MIN_SIDE:
        raise ValueError(f"SSIM needs images of at least {MIN_SIDE} x {MIN_SIDE}; got {tuple(references.shape[-2:])}")
    return [(_smooth(y), _smooth(y * y)) for y in map(_double, one_at_a_time(references))]


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
    check_pair(images, references)
    found = ssim_moments(references) if moments is None else moments
    parts = zip(one_at_a_time(images), one_at_a_time(references), found, strict=True)
    return torch.cat([_similarity(_double(x), _double(y), *of_y) for x, y, of_y in parts]).cpu()


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

    Each pass multiplies by a banded matrix, some outputs at a time: shifted sums would go through memory once a weight.
    """
    places = torch.arange(_TILE + 2 * _RADIUS, dtype=maps.dtype, device=maps.device)
    offsets = places - places[:_TILE, None] - _RADIUS
    band = torch.exp(-0.5 * (offsets / _SIGMA) ** 2) * (offsets.abs() <= _RADIUS)
    band /= band[0].sum()
    count, channels, height, width = maps.shape
    maps = maps.flatten(0, 1)
    rows, result = (maps.new_empty(len(maps), height - 2 * _RADIUS, width - less) for less in (0, 2 * _RADIUS))
    for start in range(0, rows.shape[1], _TILE):
        target = rows[:, start : start + _TILE]
        weights = band[: target.shape[1], : target.shape[1] + 2 * _RADIUS].expand(len(maps), -1, -1)
        torch.bmm(weights, maps[:, start : start + weights.shape[2]], out=target)
    for start in range(0, result.shape[2], _TILE):
        target = result.flatten(0, 1)[:, start : start + _TILE]
        weights = band[: target.shape[1], : target.shape[1] + 2 * _RADIUS].T
        torch.mm(rows.flatten(0, 1)[:, start : start + len(weights)], weights, out=target)
    return result.view(count, channels, *result.shape[1:])


def _double(images: Tensor) -> Tensor:
    """float64, on the CPU where the device has none (Apple's GPUs)."""
    return (images.cpu() if images.device.type == "mps" else images).double()


def by_scikit_image(reference: Picture, decoded: Picture) -> float:
    """By scikit-image, with the same window and covariance."""
    from skimage import metrics

    untyped: Any = metrics
    options = {"gaussian_weights": True, "sigma": _SIGMA, "use_sample_covariance": False, "data_range": 255}
    return float(untyped.structural_similarity(reference, decoded, channel_axis=-1, **options))


METRIC = Metric(
    name="ssim",
    direction="higher",
    description="structural similarity, Gaussian window 11 / 1.5 on RGB (scikit-image's)",
    definition="gaussian 11/1.5 RGB, population covariance, data range 255, borders cropped",
    title="SSIM",
    headline=True,
    margin="0.01",
    load=lambda device, offline: PerImage(
        lambda batch, moments: ssim(batch.images, batch.references, moments).numpy(), ssim_moments
    ),
    tolerance=floor(6e-6),
    check=Check(how="scikit-image on PNG", reason="float64 filters of another order", absolute=1e-8, pair=by_scikit_image),
)
