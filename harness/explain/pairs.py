"""Conventions on two pictures: PSNR, SSIM and LPIPS with other channels, windows, ranges and networks.

Pictures are [H, W, 3] in [0, 255], uint8 or float32; `span` says to which range they are brought.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.metrics.lpips import Lpips, LpipsNet

Image = NDArray[np.uint8] | NDArray[np.float32]
"""One picture [H, W, 3] in [0, 255]; uint8, or float32 where it was not rounded."""
Values = NDArray[np.float64]
Span = tuple[float, float]
Luma = Callable[[Image], Values]


def studio(image: Image) -> Values:
    """Y of BT.601 in [16, 235], as MATLAB's rgb2ycbcr and BasicSR have it, not rounded: [H, W]."""
    return np.asarray(image @ (np.array([65.481, 128.553, 24.966]) / 255.0) + 16.0)


def full(image: Image) -> Values:
    """Y of BT.601 in [0, 255], as in JPEG, not rounded: [H, W]."""
    return np.asarray(image @ np.array([0.299, 0.587, 0.114]))


def grey(image: Image) -> Values:
    """BT.709 luma, as scikit-image's rgb2gray: [H, W]."""
    return np.asarray(image @ np.array([0.2125, 0.7154, 0.0721]))


def mean(values: Iterable[float]) -> float:
    """The mean of what is finite; infinity where nothing is."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("inf")


def psnr(reference: Image, decoded: Image, luma: Luma = np.asarray) -> float:
    """Peak signal-to-noise ratio over [0, 255] in dB; inf where nothing differs."""
    error = np.square(luma(reference).astype(np.float64) - luma(decoded)).mean()
    with np.errstate(divide="ignore"):
        return float(10.0 * np.log10(255.0**2 / error))


def ssim(
    reference: Image,
    decoded: Image,
    luma: Luma = np.asarray,
    window: str = "gaussian",
    sample: bool = False,
    zero: float = 0.0,
    data_range: float | None = 255.0,
    reflected: bool = False,
) -> float:
    """Structural similarity by scikit-image, mean over channels.

    Args:
        reference, decoded: two pictures.
        luma: what makes one channel of three, where one is wanted.
        window: "gaussian", 11 pixels, σ = 1.5; or "uniform", 7 pixels.
        sample: sample covariance instead of the population's.
        zero: the level that counts as 0: 127.5 where images in [-1, 1] are compared.
        data_range: the L of its constants, in levels of 255: 510 for 2 on [0, 1]; None = the larger of both pictures' own
            (max - min), as torchmetrics takes it.
        reflected: windows reach over the border, which is reflected, as torchmetrics has it; else only those inside count.
    """
    from skimage import metrics

    untyped: Any = metrics
    x, y = (luma(side).astype(np.float64) - zero for side in (reference, decoded))
    options = {"data_range": data_range or max(float(np.ptp(x)), float(np.ptp(y))), "use_sample_covariance": sample}
    if window == "gaussian":
        options |= {"gaussian_weights": True, "sigma": 1.5}
    if reflected:
        x, y = (np.pad(side, [(5, 5), (5, 5), (0, 0)][: side.ndim], "reflect") for side in (x, y))
    return float(untyped.structural_similarity(x, y, channel_axis=-1 if x.ndim == 3 else None, **options))


@torch.inference_mode()
def lpips(reference: Image, decoded: Image, net: LpipsNet = "alex", span: Span = (-1.0, 1.0), side: int | None = None) -> float:
    """LPIPS v0.1 by the lpips package, pictures brought to `span` (the network expects [-1, 1]) and, where `side` is given,
    to side × side pixels (bilinear, no antialiasing).

    Raises:
        MsbenchError: the weights are absent and cannot be fetched.
    """
    pictures = []
    for image in (decoded, reference):
        picture = as_tensor(image) * ((span[1] - span[0]) / 255.0) + span[0]
        pictures.append(F.interpolate(picture, (side, side), mode="bilinear", align_corners=False) if side else picture)
    return float(_network(net)(*pictures))


def as_tensor(image: Image) -> Tensor:
    """float32 [1, 3, H, W] in [0, 255]."""
    return torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)[None]


@cache
def _network(net: LpipsNet) -> Lpips:
    return Lpips.load(net)
