"""The autoencoder's objective: MSE + LPIPS + a small KL on random crops."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from decoders.autoencoder import Autoencoder, kl_divergence
from decoders.training.data import TrainingImages, to_float, trim
from decoders.training.perceptual import Perceptual


@dataclass(frozen=True, slots=True)
class AutoencoderLossConfig:
    """Weights and batch of the autoencoder's training."""

    batch: int = 8
    """crops a step"""
    crop: int = 96
    """side of a crop in pixels"""
    lpips: float = 0.1
    """weight of LPIPS (VGG)"""
    kl: float = 1e-6
    """weight of the KL, in nats per latent number"""


class AutoencoderObjective:
    """MSE + λ·LPIPS + β·KL (Kingma & Welling, 2013; Rombach et al., 2112.10752)."""

    def __init__(
        self, module: Autoencoder, data: TrainingImages, config: AutoencoderLossConfig, perceptual: Perceptual
    ) -> None:
        self.module = module
        self.data = data
        self.config = config
        self.perceptual = perceptual

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.loss`."""
        factor = self.module.config.down_factor()
        images, _ = self.data.crops(self.config.batch, self.config.crop, factor, generator)
        device = next(self.module.parameters()).device
        images = images.to(device)
        mean, log_variance = self.module.encoder(images)
        noise = torch.randn(mean.shape, generator=generator).to(device)
        output = self.module.decoder(mean + (0.5 * log_variance).exp() * noise)
        mse = F.mse_loss(output.float(), images)
        lpips = self.perceptual(output, images, generator)
        kl = kl_divergence(mean.float(), log_variance.float())
        total = mse + self.config.lpips * lpips + self.config.kl * kl
        return total, {"mse": float(mse.detach()), "lpips": float(lpips.detach()), "kl": float(kl.detach())}


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
