"""The noise-free control's objective: the same network trained from random weights on L1 + LPIPS, no noise, no teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from decoders.denoiser import Denoiser
from decoders.flow import Flow, halve
from decoders.training.data import TrainingImages
from decoders.training.perceptual import Perceptual


@dataclass(frozen=True, slots=True)
class RegressionLossConfig:
    """Batch and weights of the noise-free control."""

    batch: int = 16
    """crops a step"""
    crop: int = 128
    """side of a crop in full-resolution pixels"""
    l1: float = 1.0
    """weight of the L1 distance to the image, at every scale"""
    lpips: float = 0.15
    """weight of LPIPS (VGG), at every scale"""


class RegressionObjective:
    """L1 + λ·LPIPS of each scale's output, every scale fed by the network's own coarser output (detached)."""

    def __init__(
        self, module: Denoiser, flow: Flow, data: TrainingImages, config: RegressionLossConfig, perceptual: Perceptual
    ) -> None:
        self.module = module
        self.flow = flow
        self.data = data
        self.config = config
        self.perceptual = perceptual

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.loss`."""
        device = next(self.module.parameters()).device
        count, grid = self.config.batch, self.module.config.down_factor
        multiple = grid * 2 ** (self.flow.scales - 1)
        images, latents = self.data.crops(count, self.config.crop, grid, generator, multiple)
        assert latents is not None, "regression needs cached latents"
        images, latents = images.to(device), latents.to(device)
        zeros = torch.zeros(count, device=device)
        total = torch.zeros((), device=device)
        parts: dict[str, float] = {}
        conditions = self.module.project(latents)
        pyramid = image_pyramid(images, self.flow.scales)
        x = torch.zeros_like(pyramid[0])
        for scale, clean in enumerate(pyramid):
            start = self.flow.start(scale, x, no_noise)
            output = self.module(start, conditions[scale], scale, zeros, zeros).float()
            l1 = F.l1_loss(output, clean)
            lpips = self.perceptual(output, clean, generator)
            total = total + self.config.l1 * l1 + self.config.lpips * lpips
            parts |= {f"l1_{scale}": float(l1.detach()), f"lpips_{scale}": float(lpips.detach())}
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
