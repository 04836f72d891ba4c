"""The autoencoder's objective: MSE or L1, LPIPS and a small KL, on random crops."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from decoders.autoencoder import Autoencoder, kl_divergence
from decoders.settings import Weight
from decoders.training.crops import CropConfig, CropObjective
from decoders.training.data import TrainingImages, to_float, trim
from decoders.training.perceptual import Perceptual
from decoders.training.terms import Terms


@dataclass(frozen=True, slots=True)
class AutoencoderLossConfig(CropConfig):
    """Weights and crops of the autoencoder's training."""

    mse: Weight = 1.0
    """weight of the squared distance to the image"""
    l1: Weight = 0.0
    """weight of the absolute distance to the image"""
    lpips: Weight = 0.1
    """weight of LPIPS; 0 leaves the perceptual network out"""
    kl: Weight = 1e-6
    """weight of the KL, in nats per latent number"""
    freeze_encoder: bool = False
    """tune the decoder alone, on the frozen encoder's posterior means: no noise, no KL, the latents stay what they are"""


class AutoencoderObjective(CropObjective):
    """MSE or L1 + λ·LPIPS + β·KL (Kingma & Welling, 2013; Rombach et al., 2112.10752).

    With `freeze_encoder` it is the control `vae-ft`: only the decoder learns; the encoder's parameters get no gradients.
    """

    def __init__(
        self, module: Autoencoder, data: TrainingImages, config: AutoencoderLossConfig, perceptual: Perceptual
    ) -> None:
        self.module, self.data, self.config, self.crops, self.perceptual = module, data, config, config, perceptual
        if config.freeze_encoder:
            module.encoder.requires_grad_(False)

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.loss`."""
        config, module = self.config, self.module
        count, crop = config.at(progress, self.data.images.shape[-1])
        images, _ = self.data.crops(count, crop, module.config.down_factor(), generator)
        device = next(module.parameters()).device
        images = images.to(device)
        mean, log_variance = module.encoder(images)
        if config.freeze_encoder:
            latents = mean
        else:
            latents = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=generator).to(device)
        output = module.decoder(latents)
        terms = Terms(device)
        terms.add_distances(config.mse, config.l1, output, images)
        terms.add_perceptual(config.lpips, progress >= config.lpips_from, lambda: self.perceptual(output, images, generator))
        if not config.freeze_encoder:
            terms.add("kl", config.kl, kl_divergence(mean.float(), log_variance.float()))
        return terms.total, terms.parts


@torch.inference_mode()
def set_latent_statistics(module: Autoencoder, data: TrainingImages, count: int = 1024, batch: int = 32) -> None:
    """Per-channel mean and standard deviation of the posterior means over `count` images, into the module's buffers."""
    device = next(module.parameters()).device
    picks = torch.linspace(0, len(data.images) - 1, min(count, len(data.images))).long()
    means = []
    for start in range(0, len(picks), batch):
        images = to_float(trim(data.images[picks[start : start + batch]], module.config.down_factor()))
        means.append(module.encoder(images.to(device))[0].double())
    stacked = torch.cat(means)
    module.latent_mean.copy_(stacked.mean(dim=(0, 2, 3), keepdim=True))
    module.latent_std.copy_(stacked.std(dim=(0, 2, 3), keepdim=True))
