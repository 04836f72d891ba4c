"""What may befall continuous latents before they are decoded: noise, as behind a generator, and uniform quantisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from harness.run.reconstruct import encoder_of, isolated, to_uint8

SAMPLES = 100
"""images, spread over the set, that statistics of latents and the effective rate rest on"""
LOSS_DB = 0.1
"""of PSNR: the quantisation of the effective rate costs less"""
STEPS = tuple(2.0 ** (quarter / 4) for quarter in range(-40, 9))
"""that are tried, finest first, in spreads of a channel"""

Sample = Mapping[str, tuple[Tensor, Tensor]]
"""Sample key -> uint8 [1, 3, H, W] and its latents, float [1, C, H/f, W/f]"""


class Noisy:
    """A decoder that gets its latents with Gaussian noise added, which seed and sample decide, apart from its own draws.

    Args:
        deviation: of the noise, [C, 1, 1].
    """

    def __init__(self, decoder: Decoder, deviation: Tensor, seed: int, keys: Sequence[str]) -> None:
        self.spec, self.encode, self._decoder, self._deviation = decoder.spec, decoder.encode, decoder, deviation
        self._noise = SampleNoise.for_samples(seed, [f"latent noise\0{key}" for key in keys], deviation.device)

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        """See `Decoder.decode`."""
        added = self._deviation * self._noise.normal(latents.shape[1:], 0)
        return self._decoder.decode(latents + added.to(latents.dtype), noise)


def sample_latents(decoder: Decoder, dataset: Dataset, seed: int, device: torch.device) -> Sample:
    """`SAMPLES` images and their latents; empty where those are no grid of numbers.

    Raises `MsbenchError` where the decoder breaks its contract.
    """
    encode, found = encoder_of(eager_of(decoder)), dict[str, tuple[Tensor, Tensor]]()
    picks = np.linspace(0, len(dataset) - 1, min(SAMPLES, len(dataset))).round().astype(int).tolist()
    with callers_generators(device):
        for example in dataset.stream(picks) if encode else ():
            pixels = torch.from_numpy(example.image).permute(2, 0, 1)[None].contiguous().to(device)
            with seeded(seed, [example.key], device):
                found[example.key] = pixels, encode(pixels)  # type: ignore[misc]
    return found if all(one.ndim == 4 and one.is_floating_point() for _, one in found.values()) else {}


def by_channel(sample: Sample) -> tuple[Tensor, Tensor]:
    """The numbers of each channel, [C, n], and their standard deviation, [C, 1, 1]; 1 for a channel without any."""
    rows = torch.cat([latents[0].flatten(1).float() for _, latents in sample.values()], dim=1)
    deviation = rows.std(dim=1, correction=0)
    return rows, torch.where(deviation < 1e-6, 1.0, deviation).view(-1, 1, 1)


def effective_rate(decoder: Decoder, dataset: Dataset, seed: int, device: torch.device) -> dict[str, Any]:
    """Bits of the coarsest quantisation that costs less than `LOSS_DB`, as fields of `Rate`; empty where the finest costs more.

    Steps are bisected, since the loss grows with the step. Raises `MsbenchError` where the decoder breaks its contract.
    """
    sample, eager = sample_latents(decoder, dataset, seed, device), eager_of(decoder)
    if not sample:
        return {}
    rows, spread = by_channel(sample)
    mean, ends = rows.mean(dim=1).view(-1, 1, 1), torch.stack(rows.aminmax(dim=1)).view(2, -1, 1, 1)

    def levels(values: Tensor, step: float) -> Tensor:
        return ((values - mean) / (step * spread)).round()

    def quality(step: float | None) -> float:
        """Mean PSNR, image by image: no size and no batch matters."""
        found = []
        for key, (pixels, latents) in sample.items():
            coarse = latents.clone() if step is None else (mean + step * spread * levels(latents, step)).to(latents.dtype)
            with seeded(seed, [key], device), isolated(eager, "decode"):
                images = eager.decode(coarse, SampleNoise.for_samples(seed, [key], device))
            decoded = to_uint8(images[..., : pixels.shape[-2], : pixels.shape[-1]])
            found.append(min(float(psnr(decoded, pixels)), 100.0))  # an exact image has no finite one
        return float(np.mean(found))

    with callers_generators(device):
        whole, fine, coarse = quality(None), -1, len(STEPS)
        while coarse - fine > 1:
            tried = (fine + coarse) // 2
            fine, coarse = (tried, coarse) if whole - quality(STEPS[tried]) < LOSS_DB else (fine, tried)
    if fine < 0:
        return {}
    pixels, positions = (float(np.mean([pair[place][0, 0].numel() for pair in sample.values()])) for place in (0, 1))
    bits = positions * float((levels(ends, STEPS[fine]).diff(dim=0) + 1).double().log2().sum())
    return {"effective_bits_per_image": bits, "effective_bits_per_pixel": bits / pixels, "effective_step": STEPS[fine]}
