"""Multi-step decoders as shipped: more steps must not blow up.

A network that cannot cancel its own noise scores well on the loss and leaves grain in the picture: ten times the reference's
power in the top octave, and the worse the more steps it takes. Three photographs show it in a minute.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from harness.data.registry import open_dataset
from harness.data.types import Request
from harness.decoder import DecoderOptions
from harness.metrics.psnr import psnr
from harness.metrics.spectral import octave_power
from harness.noise import SampleNoise
from harness.registry import build_decoder
from harness.run.reconstruct import to_uint8

NAMES = ("diffusion", "ms-diffusion", "ms-diffusion-cascade")
STEPS = (1, 4, 10, 50)
PHOTOS = ("astronaut-r0c0", "chelsea-r0c0", "coffee-r0c0")


@cache
def photographs() -> Tensor:
    """The middle 128 px of three crops, uint8 [3, 3, 128, 128]."""
    dataset = open_dataset(Request("photos", resolution=256))
    chosen = [example.image[64:192, 64:192] for example in dataset if example.key in PHOTOS]
    assert len(chosen) == len(PHOTOS)
    return torch.stack([torch.from_numpy(image.copy()).movedim(-1, 0) for image in chosen])


def top_octave_ratio(images: Tensor, references: Tensor) -> Tensor:
    """Power of each image over its reference's in the top octave: above 1 is grain, below 1 blur."""
    return octave_power(images, 2)[:, 0] / octave_power(references, 2)[:, 0]


@cache
def measured(name: str, steps: int) -> tuple[float, float]:
    """Mean PSNR in dB and mean ratio of power in the top octave, at `steps` network calls (at least one a scale)."""
    scales = 1 if name == "diffusion" else 3
    decoder = build_decoder(name, DecoderOptions(steps=max(steps, scales)))
    images = photographs()
    latents = decoder.encode(images.float() / 127.5 - 1.0)
    decoded = decoder.decode(latents, SampleNoise.for_samples(0, PHOTOS))
    restored = to_uint8(decoded)
    quality, grain = float(psnr(restored, images).mean()), float(top_octave_ratio(restored, images).mean())
    print(f"{name}, N = {max(steps, scales)}: {quality:.2f} dB, top octave x{grain:.2f}")
    return quality, grain


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("steps", STEPS)
def test_pictures_are_recognisable_and_without_grain(name: str, steps: int) -> None:
    quality, grain = measured(name, steps)
    assert quality > 12.0
    assert grain < 3.0


def test_more_steps_do_not_blow_up(name: str) -> None:
    few, many = measured(name, 4), measured(name, 50)
    assert many[0] >= few[0] - 3.0


def test_the_yardstick_sees_noise_that_was_not_cancelled() -> None:
    """White noise at 16 dB, which PSNR alone would pass, is far beyond the limit on grain."""
    images = photographs()
    noise = SampleNoise.for_samples(0, PHOTOS).normal((3, 128, 128), 0)
    noisy = (images + 255 * 10 ** (-16 / 20) * noise).round().clamp(0, 255).to(torch.uint8)
    assert float(psnr(noisy, images).mean()) > 12.0
    assert float(top_octave_ratio(noisy, images).mean()) > 10.0
