"""Per-image metrics of two PNGs as a user of the published packages would compute them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import MsbenchError

Picture = NDArray[np.uint8]
ROUTES = {
    "psnr": ("scikit-image on PNG", 1e-8, "exact integer sums: the logarithm's float64 rounding, in dB"),
    "ssim": ("scikit-image on PNG", 1e-8, "float64 filters of another order"),
    "lpips": ("lpips package on PNG", 1e-5, "float32 network, one image at a time instead of batches"),
    "spectral": ("numpy.fft on PNG", 1e-3, "dB; a few frequencies on a ring's edge may round to either side"),
}
"""metric -> way, tolerance of one image's value, reason; octaves go by `spectral`"""


def read_png(path: Path) -> Picture:
    """uint8 [H, W, 3] of an image file.

    Raises:
        MsbenchError: it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except OSError as error:
        raise MsbenchError(f"{path} cannot be read as an image ({error}): save the images again") from error


def psnr(reference: Picture, decoded: Picture) -> float:
    """dB by scikit-image; inf where the images are equal."""
    from skimage import metrics

    with np.errstate(divide="ignore"):
        return float(_untyped(metrics).peak_signal_noise_ratio(reference, decoded, data_range=255))


def ssim(reference: Picture, decoded: Picture) -> float:
    """By scikit-image, with the protocol's window and covariance."""
    from skimage import metrics

    return float(
        _untyped(metrics).structural_similarity(
            reference,
            decoded,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=-1,
        )
    )


def _untyped(module: Any) -> Any:
    """scikit-image's functions carry no types."""
    return module


def lpips_alex() -> Callable[[Picture, Picture], float]:
    """The lpips package's AlexNet with the checked weights of the cache, images by its own `im2tensor`.

    Raises:
        MsbenchError: the weights are absent and cannot be fetched.
    """
    import lpips
    import torch

    from harness.metrics.lpips import Lpips

    network: Any = Lpips.load("alex").network

    def distance(reference: Picture, decoded: Picture) -> float:
        with torch.inference_mode():
            return float(network(lpips.im2tensor(decoded), lpips.im2tensor(reference)).item())

    return distance


def octaves(reference: Picture, decoded: Picture, count: int = 5) -> NDArray[np.float64]:
    """How far each octave of the luminance's power lies above the reference's in dB, finest first: [count].

    NaN for octaves that an image below 64 pixels does not have: log2(side) - 1 of them are there.
    """
    rings = max(1, min(count, int(np.log2(min(reference.shape[:2]))) - 1))
    floor = 1.0 / 12.0
    ratio = (_ring_power(decoded, rings) + floor) / (_ring_power(reference, rings) + floor)
    found = np.full(count, np.nan)
    found[:rings] = 10.0 * np.log10(ratio)
    return found


def _ring_power(picture: Picture, rings: int) -> NDArray[np.float64]:
    """Power of the windowed luminance in rings f ≥ 1/4, [1/8, 1/4), …, the last with all below."""
    from scipy.signal.windows import hann

    luminance = picture.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    height, width = luminance.shape
    window = np.outer(hann(height + 2)[1:-1], hann(width + 2)[1:-1])
    luminance = luminance - np.average(luminance, weights=window)
    power = np.abs(np.fft.fft2(luminance * window)) ** 2 / ((window**2).sum() * height * width)
    # squared frequencies in units of 1 / (height x width) are whole numbers, so that the rings' edges are exact
    rows, columns = (np.rint(np.fft.fftfreq(side) * side).astype(np.int64) for side in (height, width))
    squared = (rows[:, None] * width) ** 2 + (columns[None, :] * height) ** 2
    found = np.zeros(rings)
    inside = np.ones_like(power, dtype=bool)
    for ring in range(rings):
        beyond = squared * 4 ** (ring + 2) >= (height * width) ** 2 if ring < rings - 1 else inside
        found[ring] = power[inside & beyond].sum()
        inside &= ~beyond
    return found
