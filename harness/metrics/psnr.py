"""PSNR of uint8 RGB images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.metrics.metric import Check, Metric, PerImage, Picture, floor


def psnr(images: Tensor, references: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over all channels, 10 log₁₀(255² / MSE) dB.

    Args:
        images, references: uint8 [B, 3, H, W].

    Returns:
        float64 [B]; `inf` where an image equals its reference: there is no cap, which would be one more free parameter.

    Raises:
        ValueError: shapes or dtypes differ.
    """
    check_pair(images, references)
    # Sums of squared integers are exact, whatever the order.
    squares = (images.int() - references.int()).square().flatten(1).sum(dim=1, dtype=torch.int64)
    mse = squares.cpu().double() / images[0].numel()
    return 10.0 * torch.log10(255.0**2 / mse)


def check_pair(images: Tensor, references: Tensor) -> None:
    """Raise `ValueError` unless both are uint8 [B, 3, H, W] of one shape."""
    if images.shape != references.shape or images.dim() != 4:
        raise ValueError(
            f"wanted two batches [B, 3, H, W] of one shape; got {tuple(images.shape)} and {tuple(references.shape)}"
        )
    if images.dtype != torch.uint8 or references.dtype != torch.uint8:
        raise ValueError(f"expected uint8 images; got {images.dtype} and {references.dtype}")


def by_scikit_image(reference: Picture, decoded: Picture) -> float:
    """dB by scikit-image; inf where the images are equal."""
    from skimage import metrics

    untyped: Any = metrics
    with np.errstate(divide="ignore"):
        return float(untyped.peak_signal_noise_ratio(reference, decoded, data_range=255))


METRIC = Metric(
    name="psnr",
    direction="higher",
    description="peak signal-to-noise ratio over [0, 255], mean over images",
    definition="per image over [0, 255], mean of finite dB",
    title="PSNR",
    digits=2,
    unit="dB",
    headline=True,
    margin="0.2",
    load=lambda device, offline: PerImage(lambda batch, _: psnr(batch.images, batch.references).numpy()),
    skip_infinite=True,
    tolerance=floor(6e-5),
    check=Check(
        how="scikit-image on PNG",
        reason="exact integer sums: the logarithm's float64 rounding, in dB",
        absolute=1e-8,
        pair=by_scikit_image,
    ),
)
