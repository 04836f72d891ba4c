"""Small networks and pictures for the decoders' tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from decoders.autoencoder import Autoencoder, AutoencoderConfig
from decoders.denoiser import Denoiser, DenoiserConfig
from decoders.training.data import TrainingImages

TINY_AUTOENCODER = AutoencoderConfig(
    encoder_widths=(8, 16), encoder_depths=(1, 1), decoder_widths=(8, 16), decoder_depths=(1, 1)
)


def tiny_denoiser_config(scales: int) -> DenoiserConfig:
    return DenoiserConfig(scales=scales, widths=(8, 16, 16), depths=(1, 1, 1), embedding=16, latent_width=8)


def shake(module: nn.Module, deviation: float = 0.08, seed: int = 0) -> nn.Module:
    """Random weights everywhere, the zero-initialised ones too, so that outputs depend on every input."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(deviation * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.fixture
def tiny_denoiser() -> Callable[[int], Denoiser]:
    """Scales -> a tiny denoiser with random weights, in eval mode."""

    def make(scales: int) -> Denoiser:
        torch.manual_seed(0)
        return shake(Denoiser(tiny_denoiser_config(scales))).eval()  # type: ignore[return-value]

    return make


@pytest.fixture
def tiny_autoencoder() -> Autoencoder:
    torch.manual_seed(0)
    return shake(Autoencoder(TINY_AUTOENCODER)).eval().requires_grad_(False)  # type: ignore[return-value]


@pytest.fixture
def pictures() -> TrainingImages:
    """Sixteen smooth synthetic 64-px pictures."""
    coarse = torch.rand((16, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    images = nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(0, 1).mul(255).round().to(torch.uint8)
    return TrainingImages("synthetic", images, "0" * 64)


@pytest.fixture
def latent_pictures(pictures: TrainingImages, tiny_autoencoder: Autoencoder) -> TrainingImages:
    """`pictures` with cached latents."""
    return pictures.with_latents(tiny_autoencoder.encode, 8)


class StubPerceptual:
    """Mean squared difference in LPIPS's place: no network, but gradients and draws like the real one."""

    def __call__(self, estimate: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        pick = int(torch.randint(len(estimate), (), generator=generator))
        return (estimate[pick] - target[pick]).square().mean()


@pytest.fixture
def perceptual() -> StubPerceptual:
    return StubPerceptual()


class CountingNoise:
    """A noise source that remembers what was drawn."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.drawn: list[tuple[tuple[int, ...], int]] = []

    def normal(self, shape: Sequence[int], draw: int) -> Tensor:
        self.drawn.append((tuple(shape), draw))
        return torch.randn((self.batch, *shape), generator=torch.Generator().manual_seed(draw))


@pytest.fixture
def counting_noise() -> Callable[[int], CountingNoise]:
    return CountingNoise
