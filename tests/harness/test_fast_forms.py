"""Faster arithmetic must not cost quality: the shipped decoders in bf16 and in channels-last memory against fp32."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from harness.decoder import Decoder, DecoderOptions
from harness.noise import SampleNoise
from harness.registry import build_decoder
from harness.run.reconstruct import to_uint8
from harness.speed.bench import open_photos

QUICK = ("vae", "onestep", "ms-onestep", "direct")
SLOW = ("diffusion", "ms-diffusion", "ms-diffusion-cascade")
EVERY = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
LEAST_DB = 45.0


def images(decoder: Decoder, memory_format: torch.memory_format) -> Tensor:
    """uint8 reconstructions of two 64-px photographs."""
    dataset = list(open_photos(64))[:2]
    pixels = torch.stack([torch.from_numpy(example.image).permute(2, 0, 1) for example in dataset])
    with torch.inference_mode():
        latents = decoder.encode(pixels.float() / 127.5 - 1.0).contiguous(memory_format=memory_format)
        return to_uint8(decoder.decode(latents, SampleNoise.for_samples(0, [example.key for example in dataset])))


def psnr(one: Tensor, other: Tensor) -> float:
    error = (one.double() - other.double()).square().mean().item()
    return math.inf if error == 0 else 10.0 * math.log10(255.0**2 / error)


@pytest.mark.parametrize("name", EVERY)
def test_bf16_and_channels_last_keep_the_image(name: str) -> None:
    reference = images(build_decoder(name, DecoderOptions()), torch.contiguous_format)
    half = images(build_decoder(name, DecoderOptions(dtype=torch.bfloat16)), torch.contiguous_format)
    assert LEAST_DB <= psnr(reference, half) < math.inf  # bf16 reached the network
    turned = build_decoder(name, DecoderOptions())
    for network in (part for part in vars(turned).values() if isinstance(part, nn.Module)):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert psnr(reference, images(turned, torch.channels_last)) >= LEAST_DB
