"""Training the autoencoder: its losses by hand, the decoder alone, f8c4 and f16c16."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decoders.autoencoder import Autoencoder, AutoencoderConfig
from decoders.training.autoencoder import AutoencoderLossConfig, AutoencoderObjective, set_latent_statistics
from decoders.training.config import TrainConfig
from decoders.training.data import TrainingImages, to_float
from decoders.training.trainer import train

CPU = torch.device("cpu")
SMALL = AutoencoderLossConfig(batch=2, crop=32)
TWELVE = TrainConfig(max_steps=12, warmup=3, precision="fp32", log_every=2)

F8C4 = AutoencoderConfig(
    latent_channels=4, patch=8, encoder_widths=(24,), encoder_depths=(1,), decoder_widths=(24,), decoder_depths=(1,)
)
F16C16 = AutoencoderConfig(
    latent_channels=16, patch=8, encoder_widths=(16, 24), encoder_depths=(1, 1), decoder_widths=(16, 24), decoder_depths=(1, 1)
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def make(tiny_autoencoder: Autoencoder, pictures: TrainingImages, perceptual: Any) -> Callable[..., AutoencoderObjective]:
    """loss config -> an objective on a fresh copy of one tiny autoencoder."""

    def build(config: AutoencoderLossConfig = SMALL) -> AutoencoderObjective:
        module = copy.deepcopy(tiny_autoencoder).requires_grad_(True).train()
        return AutoencoderObjective(module, pictures, config, perceptual)

    return build


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> set[str]:
    """Names whose tensors are bit-identical."""
    assert a.keys() == b.keys()
    return {name for name in a if torch.equal(a[name], b[name])}


def test_losses_by_hand(make: Callable[..., AutoencoderObjective], pictures: TrainingImages) -> None:
    objective = make(replace(SMALL, mse=2.0, l1=3.0, lpips=0.0, kl=0.5))
    assert objective.samples(0.0) == 2
    loss, parts = objective.loss(generator(), 0.0)
    draws = generator()
    images, _ = pictures.crops(2, 32, 8, draws)
    with torch.no_grad():
        mean, log_variance = objective.module.encoder(images)
        sample = torch.distributions.Normal(mean, (log_variance / 2).exp())
        latents = sample.loc + sample.scale * torch.randn(mean.shape, generator=draws)
        error = objective.module.decoder(latents) - images
        kl = torch.distributions.kl_divergence(sample, torch.distributions.Normal(0.0, 1.0)).mean()
    expected = {"mse": float(error.square().mean()), "l1": float(error.abs().mean()), "kl": float(kl)}
    assert parts == pytest.approx(expected, rel=1e-4)
    total = 2 * expected["mse"] + 3 * expected["l1"] + 0.5 * expected["kl"]
    assert float(loss.detach()) == pytest.approx(total, rel=1e-4)


def test_tuning_the_decoder_leaves_the_latents_alone(
    make: Callable[..., AutoencoderObjective], pictures: TrainingImages, tmp_path: Path
) -> None:
    objective = make(replace(SMALL, mse=0.0, l1=1.0, freeze_encoder=True))
    module, images = objective.module, to_float(pictures.images[:4])
    set_latent_statistics(module, pictures)
    before = tensors(module)
    with torch.no_grad():
        latents = module.encode(images)
    train(objective, TWELVE, tmp_path, CPU)
    kept = {name for name in before if name.startswith(("encoder.", "latent_"))}
    assert same(before, tensors(module)) == kept
    assert any(name.startswith("decoder.") for name in set(before) - kept)
    with torch.no_grad():
        # Training leaves weights in channels-last order, in which sums round otherwise.
        assert torch.allclose(module.encode(images), latents, atol=1e-4)


def test_tuning_sees_the_latents_that_decoding_sees(
    make: Callable[..., AutoencoderObjective], pictures: TrainingImages
) -> None:
    """No sampling noise: the loss is that of `decode(encode(images))`."""
    objective = make(replace(SMALL, mse=1.0, lpips=0.0, freeze_encoder=True))
    set_latent_statistics(objective.module, pictures)
    loss, parts = objective.loss(generator(), 0.0)
    images, _ = pictures.crops(2, 32, 8, generator())
    with torch.no_grad():
        expected = (objective.module.decode(objective.module.encode(images)) - images).square().mean()
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4)
    assert set(parts) == {"mse"}
    loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in objective.module.encoder.parameters())
    assert all(p.grad is not None for p in objective.module.decoder.parameters())


@pytest.mark.parametrize(("config", "factor", "channels"), [(F8C4, 8, 4), (F16C16, 16, 16)])
def test_f8c4_and_f16c16(
    config: AutoencoderConfig,
    factor: int,
    channels: int,
    pictures: TrainingImages,
    perceptual: Any,
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    module = Autoencoder(config)
    assert config.down_factor() == factor
    images = torch.rand((1, 3, 224, 224), generator=generator()) * 2 - 1
    latents = module.encode(images)
    assert latents.shape == (1, channels, 224 // factor, 224 // factor)
    assert module.decode(latents).shape == images.shape
    before = tensors(module)
    objective = AutoencoderObjective(module, pictures, SMALL, perceptual)
    train(objective, replace(TWELVE, max_steps=6), tmp_path, CPU)
    # Zero-initialised convolutions open up too.
    assert same(before, tensors(module)) == {"latent_mean", "latent_std"}
    set_latent_statistics(module, pictures)
    assert module.latent_std.shape == (1, channels, 1, 1)
    with torch.no_grad():
        assert module.encode(to_float(pictures.images)).std(dim=(0, 2, 3)) == pytest.approx([1.0] * channels, rel=1e-3)
