"""Power of an image per octave of spatial frequency: tells grain (too much at the top) from blur (too little), image by image.

Luminance (Rec. 601 weights) minus its mean, under a Hann window, since an image's opposite edges do not meet and the jump would
leak power into every frequency; its periodogram is summed over rings of radial frequency f = |(fx, fy)| in cycles per pixel.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from harness.metrics.metric import Batch, Check, Column, Metric, PerImage, Picture, floor, one_at_a_time

OCTAVES = 5
"""rings told apart by default: f ≥ 1/4, [1/8, 1/4), [1/16, 1/8), [1/32, 1/16), and all below"""
OCTAVE_COLUMNS: tuple[str, ...] = tuple(f"octave_{ring}_db" for ring in range(OCTAVES))
"""columns of the samples: signed dB of each octave, finest first, above 0 grain, below blur; NaN where an image is too small"""
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
    images = images.cpu() if images.device.type == "mps" else images  # which has no float64
    with images.device:
        window, rings = _window_and_rings(height, width, octaves)
        return torch.cat([_power(part, window, rings) for part in one_at_a_time(images)]).cpu()


def _window_and_rings(height: int, width: int, octaves: int) -> tuple[Tensor, Tensor]:
    """The window, float64 [H, W], and what each frequency's power counts in each ring, float64 [octaves, H, W // 2 + 1]."""
    window = _hann(height)[:, None] * _hann(width)[None, :]
    down, across = torch.fft.fftfreq(height, dtype=torch.float64), torch.fft.rfftfreq(width, dtype=torch.float64)
    edges = torch.tensor([2.0 ** -(ring + 2) for ring in range(octaves - 1)], dtype=torch.float64)
    ring = (torch.hypot(down[:, None], across[None, :])[None] < edges[:, None, None]).sum(dim=0)
    # A real image's spectrum is symmetric: half of it is there, and columns with a mirror image count twice.
    mirrored = torch.where((across > 0) & (across < 0.5), 2.0, 1.0) / (window.square().sum(dim=1).sum() * height * width)
    return window, functional.one_hot(ring, octaves).movedim(-1, 0) * mirrored


def _power(images: Tensor, window: Tensor, rings: Tensor) -> Tensor:
    """`octave_power` with every tensor on the default device. Sums by rows: their order does not depend on threads."""
    weights = torch.tensor(_LUMINANCE, dtype=torch.float64)
    luminance = (images.double() * weights[:, None, None]).sum(dim=1)
    # The mean under the window, not the plain one: what is left at f = 0 would leak into the lowest ring.
    mean = (luminance * window).sum(dim=2).sum(dim=1) / window.sum(dim=1).sum()
    spectrum = torch.fft.rfft2((luminance - mean[:, None, None]).mul_(window))
    power = spectrum.real.square() + spectrum.imag.square()
    return torch.sum((power[:, None] * rings).sum(dim=3), dim=2)


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


def _measure(batch: Batch, reference: Tensor) -> dict[str, Column]:
    rings = reference.shape[1]
    octaves = octave_difference(octave_power(batch.images, rings), reference).numpy()
    absent = np.full((len(octaves), OCTAVES - rings), np.nan)
    columns = zip(OCTAVE_COLUMNS, np.hstack([octaves, absent]).T, strict=True)
    return {"spectral": np.abs(octaves).mean(axis=1), **dict(columns)}


def by_numpy(reference: Picture, decoded: Picture) -> dict[str, float]:
    """The same columns by numpy.fft, log₂(side) - 1 octaves of an image below 64 pixels."""
    rings = max(1, min(OCTAVES, int(np.log2(min(reference.shape[:2]))) - 1))
    ratio = (_ring_power(decoded, rings) + _ROUNDING) / (_ring_power(reference, rings) + _ROUNDING)
    found = np.full(OCTAVES, np.nan)
    found[:rings] = 10.0 * np.log10(ratio)
    columns = zip(OCTAVE_COLUMNS, found.tolist(), strict=True)
    return {"spectral": float(np.nanmean(np.abs(found))), **dict(columns)}


def _ring_power(picture: Picture, rings: int) -> NDArray[np.float64]:
    """Power of the windowed luminance in rings f ≥ 1/4, [1/8, 1/4), …, the last with all below."""
    from scipy.signal.windows import hann

    luminance = picture.astype(np.float64) @ np.array(_LUMINANCE)
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


METRIC = Metric(
    name="spectral",
    direction="lower",
    description="mean over octaves of how far an image's power spectrum is from its reference's, up or down",
    definition="luminance, Hann window, 5 octaves, mean |dB| over a floor of 1/12",
    title="Spectral dB",
    digits=2,
    unit="dB",
    margin="0.2",
    load=lambda device, offline: PerImage(
        _measure, lambda references: octave_power(references, octaves_for(*references.shape[-2:]))
    ),
    tolerance=floor(2e-4),
    check=Check(
        how="numpy.fft on PNG",
        reason="dB; a few frequencies on a ring's edge may round to either side",
        absolute=1e-3,
        pair=by_numpy,
    ),
)
