"""The autoencoder: shapes, normalised latents, the KL."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal
from torch.distributions.kl import kl_divergence as reference_kl

from decoders.autoencoder import Autoencoder, AutoencoderConfig, kl_divergence
from decoders.presets import SIZES
from decoders.training.autoencoder import set_latent_statistics
from decoders.training.data import TrainingImages, to_float


@pytest.mark.parametrize(("preset", "grid"), [("nano", (8, 16)), ("nano-f8c4", (8, 4)), ("nano-f16c16", (16, 16))])
def test_presets_have_the_latents_they_are_named_for(preset: str, grid: tuple[int, int]) -> None:
    config = SIZES[preset].autoencoder
    assert (config.down_factor(), config.latent_channels) == grid
    assert config.linear
    with torch.device("meta"):
        network = Autoencoder(config)
    parameters = sum(p.numel() for p in network.parameters())
    assert 1e6 < parameters < 8e6


@pytest.mark.parametrize(("height", "width"), [(64, 64), (8, 8), (104, 72), (224, 40)])
def test_latents_and_images_have_their_grids(tiny_autoencoder: Autoencoder, height: int, width: int) -> None:
    images = torch.rand((2, 3, height, width)) * 2 - 1
    latents = tiny_autoencoder.encode(images)
    assert latents.shape == (2, 4, height // 8, width // 8)
    assert tiny_autoencoder.decode(latents).shape == images.shape


def test_other_down_factors_and_channels() -> None:
    config = AutoencoderConfig(
        latent_channels=16, encoder_widths=(8, 8, 16), encoder_depths=(1, 1, 1), decoder_widths=(8, 16), decoder_depths=(1, 1)
    )
    assert config.down_factor() == 16
    mean, log_variance = Autoencoder(config).encoder(torch.zeros(1, 3, 64, 32))
    assert mean.shape == log_variance.shape == (1, 16, 4, 2)


def test_log_variance_is_bounded(tiny_autoencoder: Autoencoder) -> None:
    with torch.no_grad():
        tiny_autoencoder.encoder.head.weight.mul_(1e6)
    _, log_variance = tiny_autoencoder.encoder(torch.rand((1, 3, 32, 32)))
    assert log_variance.min() >= -20
    assert log_variance.max() <= 10


def test_statistics_make_latents_unit_and_decoding_undoes_them(tiny_autoencoder: Autoencoder, pictures: TrainingImages) -> None:
    images = to_float(pictures.images)
    raw, _ = tiny_autoencoder.encoder(images)
    reconstruction = tiny_autoencoder.decoder(raw)
    set_latent_statistics(tiny_autoencoder, pictures, batch=5)
    latents = tiny_autoencoder.encode(images)
    assert torch.allclose(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-4)
    assert torch.allclose(tiny_autoencoder.decode(latents), reconstruction, atol=1e-4)
    assert {"latent_mean", "latent_std"} <= set(tiny_autoencoder.state_dict())


def test_kl_is_that_of_two_normals() -> None:
    mean, log_variance = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    expected = reference_kl(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).mean()
    assert kl_divergence(mean, log_variance) == pytest.approx(float(expected), rel=1e-5)
    assert kl_divergence(torch.zeros(2), torch.zeros(2)) == 0
