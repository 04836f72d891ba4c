"""The noise-free controls' objective: the same network from random weights on L1 + LPIPS (or MSE), no noise, no teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from decoders.denoiser import Denoiser
from decoders.flow import Flow, halve
from decoders.sampling import predict
from decoders.settings import Count, Weight
from decoders.training.adversary import Adversarial, Adversary
from decoders.training.data import TrainingImages
from decoders.training.perceptual import Perceptual


@dataclass(frozen=True, slots=True)
class RegressionLossConfig:
    """Batch and weights of the noise-free control."""

    batch: Count = 16
    """crops a step"""
    crop: Count = 128
    """side of a crop in full-resolution pixels"""
    mse: Weight = 0.0
    """weight of the squared distance to the image, at every scale; alone, it trains the rate-bound decoder"""
    l1: Weight = 1.0
    """weight of the L1 distance to the image, at every scale"""
    lpips: Weight = 0.15
    """weight of LPIPS, at every scale; 0 leaves the perceptual network out"""


class RegressionObjective(Adversarial):
    """MSE, L1 and λ·LPIPS of each scale's output, every scale fed by the network's own coarser output (detached)."""

    def __init__(
        self,
        module: Denoiser,
        flow: Flow,
        data: TrainingImages,
        config: RegressionLossConfig,
        perceptual: Perceptual,
        adversary: Adversary | None = None,
    ) -> None:
        super().__init__(adversary)
        self.module = module
        self.flow = flow
        self.data = data
        self.config = config
        self.perceptual = perceptual
        self.samples_per_step = config.batch

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.loss`."""
        device = next(self.module.parameters()).device
        count, grid = self.config.batch, self.module.config.down_factor
        multiple = grid * 2 ** (self.flow.scales - 1)
        images, latents = self.data.encoded_crops(count, self.config.crop, grid, generator, multiple, device)
        zeros = torch.zeros(count, device=device)
        total = torch.zeros((), device=device)
        parts: dict[str, float] = {}
        conditions = self.module.project(latents)
        pyramid = image_pyramid(images, self.flow.scales)
        x = torch.zeros_like(pyramid[0])
        for scale, clean in enumerate(pyramid):
            start = self.flow.start(scale, x, no_noise)
            output = predict(self.module, self.flow, start, conditions[scale], scale, zeros, zeros).estimate
            config = self.config
            terms = [("mse", config.mse, F.mse_loss), ("l1", config.l1, F.l1_loss)]
            values = [(name, weight, distance(output, clean)) for name, weight, distance in terms if weight > 0]
            if config.lpips > 0:
                values.append(("lpips", config.lpips, self.perceptual(output, clean, generator)))
            for name, weight, value in values:
                total = total + weight * value
                parts[f"{name}_{scale}"] = float(value.detach())
            if self.adversary is not None and scale == self.flow.scales - 1:
                term, named = self.adversary.term(output, clean, total, self.module.head.weight, generator, progress)
                total, parts = total + term, parts | named
            x = output.detach()
        return total, parts


def no_noise(shape: tuple[int, ...]) -> Tensor:
    """The `Normal` of a flow that must not draw: raises `ValueError`."""
    raise ValueError(f"a flow without noise was asked to draw {shape}")


def image_pyramid(images: Tensor, scales: int) -> list[Tensor]:
    """The clean image of every scale, coarse to fine: [B, 3, H/2^j, W/2^j], j = K-1 … 0."""
    levels = [images]
    for _ in range(scales - 1):
        levels.append(halve(levels[-1]))
    return levels[::-1]
