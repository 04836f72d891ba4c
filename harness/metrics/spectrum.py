"""Power of an image per octave of spatial frequency: tells grain (too much at the top) from blur (too little), image by image.

Luminance (Rec. 601 weights) minus its mean, under a Hann window, since an image's opposite edges do not meet and the jump would
leak power into every frequency; its periodogram is summed over rings of radial frequency f = |(fx, fy)| in cycles per pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

OCTAVES = 5
"""rings told apart by default: f ≥ 1/4, [1/8, 1/4), [1/16, 1/8), [1/32, 1/16), and all below"""
_LUMINANCE = (0.299, 0.587, 0.114)
_ROUNDING = 1.0 / 12.0  # variance of rounding to whole levels: below it no power can be told from none


def octave_power(images: Tensor, octaves: int = OCTAVES) -> Tensor:
    """Share of the luminance's variance in each octave, finest first.

    Ring 0 holds f ≥ 1/4 up to the corners of the spectrum (f = 0.71); ring i holds [2^-(i+2), 2^-(i+1)); the last ring also all
    below it. The rings add up to the variance of the windowed luminance: of white noise, its variance in expectation.

    Args:
        images: uint8 [B, 3, H, W], sides of at least 2^(octaves+1), so that the last ring holds more than the window's blur.
        octaves: number of rings, at least 1.

    Returns:
        float64 [B, octaves], in squared levels (0-255).

    Raises:
        ValueError: another shape or dtype, no ring, or a side too short for that many rings.
    """
    if images.dim() != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise ValueError(f"expected uint8 [B, 3, H, W]; got {images.dtype} {tuple(images.shape)}")
    height, width = images.shape[-2:]
    if octaves < 1 or min(height, width) < 2 ** (octaves + 1):
        raise ValueError(f"{octaves} octaves need sides of at least {2 ** (octaves + 1)} pixels; got {height} x {width}")
    weights = torch.tensor(_LUMINANCE, dtype=torch.float64)
    luminance = (images.cpu().double() * weights[:, None, None]).sum(dim=1)
    window = _hann(height)[:, None] * _hann(width)[None, :]
    # The mean under the window, not the plain one: what is left at f = 0 would leak into the lowest ring.
    mean = (luminance * window).sum(dim=(1, 2), keepdim=True) / window.sum()
    spectrum = torch.fft.rfft2((luminance - mean).mul_(window))
    across = torch.fft.rfftfreq(width, dtype=torch.float64)
    # A real image's spectrum is symmetric: half of it is there, and columns with a mirror image count twice.
    mirrored = torch.where((across > 0) & (across < 0.5), 2.0, 1.0)
    power = (spectrum.real.square() + spectrum.imag.square()) * (mirrored / (window.square().sum() * height * width))
    down = torch.fft.fftfreq(height, dtype=torch.float64)
    radius = torch.hypot(down[:, None], across[None, :])
    edges = torch.tensor([2.0 ** -(ring + 2) for ring in range(octaves - 1)], dtype=torch.float64)
    ring = (radius[None] < edges[:, None, None]).sum(dim=0)
    total = torch.zeros(len(images), octaves, dtype=torch.float64)
    return total.index_add_(1, ring.flatten(), power.flatten(1))


def top_octave_ratio(images: Tensor, references: Tensor) -> Tensor:
    """Power of each image over its reference's in the top octave (f ≥ 1/4): above 1 is grain, below 1 blur.

    Args:
        images, references: uint8 [B, 3, H, W].

    Returns:
        float64 [B]; NaN or inf where the reference has nothing there (a flat picture).

    Raises:
        ValueError: shapes differ, or see `octave_power`.
    """
    if images.shape != references.shape:
        raise ValueError(f"expected two batches of one shape; got {tuple(images.shape)} and {tuple(references.shape)}")
    return octave_power(images, 2)[:, 0] / octave_power(references, 2)[:, 0]


def octave_difference(power: Tensor, reference: Tensor) -> Tensor:
    """How far each octave lies above (grain) or below (blur) the reference's, in dB: 10 log₁₀((P + 1/12) / (P_ref + 1/12)).

    Rounding to whole levels alone has a variance of 1/12, so that a flat picture is compared with what uint8 can say.

    Args:
        power, reference: float64 [B, octaves] from `octave_power`.

    Returns:
        float64 [B, octaves] in dB.
    """
    return 10.0 * torch.log10((power + _ROUNDING) / (reference + _ROUNDING))


def octaves_for(height: int, width: int) -> int:
    """Rings an image of this size is split into: `OCTAVES`, fewer below 64 pixels, at least 1 (from 4 pixels on)."""
    return max(1, min(OCTAVES, min(height, width).bit_length() - 2))


def _hann(count: int) -> Tensor:
    """A Hann window without zeros at its ends, float64 [count]."""
    return torch.hann_window(count + 2, periodic=False, dtype=torch.float64)[1:-1]
