"""What may befall continuous latents before they are decoded: noise, as behind a generator, and uniform quantisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.cost.modes import eager_of
from harness.data.dataset import Dataset
from harness.decoder import Decoder, NoiseSource
from harness.metrics.psnr import psnr
from harness.noise import SampleNoise
from harness.run.independence import callers_generators, seeded
from harness.run.reconstruct import encoder_of, reconstruct

SAMPLES = 100
"""images, spread over the set, that statistics of latents and the effective rate rest on"""
LOSS_DB = 0.1
"""of PSNR: the quantisation of the effective rate costs less"""
STEPS = tuple(2.0 ** (quarter / 4) for quarter in range(-40, 9))
"""that are tried, finest first, in spreads of a channel"""
_EXACT_DB = 100.0  # taken for an image that comes back exactly


@dataclass(frozen=True, slots=True)
class Spread:
    """Statistics of each channel of a decoder's latents over images and positions, float32 [C, 1, 1]."""

    mean: Tensor
    """its mean"""
    std: Tensor
    """its standard deviation; 1 for a channel without any"""
    low: Tensor
    """smallest value seen"""
    high: Tensor
    """largest value seen"""

    def noisy(self, latents: Tensor, sigma: float, seed: int, keys: Sequence[str]) -> Tensor:
        """Latents plus Gaussian noise of `sigma` spreads, which seed and sample decide; a decoder draws from another stream."""
        source = SampleNoise.for_samples(seed, [f"latent noise\0{key}" for key in keys], latents.device)
        return latents + (sigma * self.std * source.normal(latents.shape[1:], 0)).to(latents.dtype)

    def quantised(self, latents: Tensor, step: float) -> Tensor:
        """Latents rounded to whole numbers of steps, of `step` spreads each, from the mean."""
        return (self.mean + step * self.std * self._levels(latents, step)).to(latents.dtype)

    def bits(self, step: float) -> float:
        """Bits of all channels at one position: log2 of the levels from the smallest to the largest value seen."""
        return float((self._levels(self.high, step) - self._levels(self.low, step) + 1).double().log2().sum())

    def _levels(self, values: Tensor, step: float) -> Tensor:
        return ((values - self.mean) / (step * self.std)).round()


class Changed:
    """A decoder that decodes `change(latents)` in place of its latents."""

    def __init__(self, decoder: Decoder, change: Callable[[Tensor], Tensor]) -> None:
        self.spec, self.encode, self._decode, self._change = decoder.spec, decoder.encode, decoder.decode, change

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        """See `Decoder.decode`."""
        return self._decode(self._change(latents), noise)


def latent_spread(decoder: Decoder, dataset: Dataset, seed: int, device: torch.device) -> Spread | None:
    """Statistics over `SAMPLES` images; None for a decoder whose latents are no grid of numbers.

    Raises `MsbenchError` where the decoder breaks its contract.
    """
    encode, parts = encoder_of(eager_of(decoder)), []
    for key, pixels in _images(dataset, device) if encode else ():
        assert encode is not None
        with seeded(seed, [key], device):
            latents = encode(pixels)
        if latents.ndim != 4 or not latents.is_floating_point():
            return None
        rows = latents.double().movedim(1, 0).flatten(1)
        parts.append(torch.stack([rows.mean(dim=1), rows.square().mean(dim=1), rows.amin(dim=1), rows.amax(dim=1)]))
    if not parts:
        return None
    means, squares, lows, highs = torch.stack(parts, dim=1)
    mean = means.mean(dim=0)
    std = (squares.mean(dim=0) - mean**2).clamp(min=0.0).sqrt()
    std[std <= 1e-6 * mean.abs().clamp(min=1e-6)] = 1.0
    return Spread(*(one.float().view(-1, 1, 1) for one in (mean, std, lows.amin(dim=0), highs.amax(dim=0))))


def effective_rate(decoder: Decoder, spread: Spread, dataset: Dataset, seed: int, device: torch.device) -> Mapping[str, Any]:
    """Bits of the coarsest quantisation that costs less than `LOSS_DB`, as fields of `Rate`; empty where the finest costs more.

    Steps are bisected, since the loss grows with the step. Raises `MsbenchError` where the decoder breaks its contract.
    """

    def measured(step: float | None) -> float:
        """Mean PSNR, image by image: no size and no batch matters."""
        found, eager = [], eager_of(decoder)
        changed = Changed(eager, partial(spread.quantised, step=step)) if step else eager
        for key, pixels in _images(dataset, device):
            with seeded(seed, [key], device):
                one = reconstruct(changed, pixels, SampleNoise.for_samples(seed, [key], device), [key])
            found.append(min(float(psnr(one.pixels, pixels)), _EXACT_DB))
            positions.append(one.latents[0, 0].numel())
            sides.append(pixels[0, 0].numel())
        return float(np.mean(found))

    positions, sides = list[int](), list[int]()
    whole, fine, coarse = measured(None), -1, len(STEPS)
    while coarse - fine > 1:
        tried = (fine + coarse) // 2
        fine, coarse = (tried, coarse) if whole - measured(STEPS[tried]) < LOSS_DB else (fine, tried)
    if fine < 0:
        return {}
    bits = spread.bits(STEPS[fine]) * float(np.mean(positions))
    per_pixel = bits / float(np.mean(sides))
    return {"effective_bits_per_image": bits, "effective_bits_per_pixel": per_pixel, "effective_step": STEPS[fine]}


def _images(dataset: Dataset, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Key and uint8 [1, 3, H, W] of `SAMPLES` images; the caller's random generators are as before afterwards."""
    picks = np.linspace(0, len(dataset) - 1, min(SAMPLES, len(dataset))).round().astype(int).tolist()
    with callers_generators(device):
        for example in dataset.stream(picks):
            yield example.key, torch.from_numpy(example.image).permute(2, 0, 1)[None].contiguous().to(device)
