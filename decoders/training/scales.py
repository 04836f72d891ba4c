"""What the objectives over every scale of a denoiser share: networks, data and the draws of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decoders.denoiser import Denoiser
from decoders.flow import Flow, Normal, halve
from decoders.training.crops import CropConfig, CropObjective
from decoders.training.data import TrainingImages


class ScalesObjective(CropObjective):
    """Base of an objective whose step takes the same crops through all scales, coarse to fine."""

    def __init__(self, module: Denoiser, flow: Flow, data: TrainingImages, crops: CropConfig) -> None:
        self.module, self.flow, self.data, self.crops = module, flow, data, crops

    def draw(self, generator: torch.Generator, progress: float) -> tuple[list[Tensor], Tensor, Normal, Tensor]:
        """Crops for a step: the clean images of each scale, coarse to fine; their latents; further draws; and zeros [batch]."""
        grid, scales = self.module.config.down_factor, self.flow.scales
        count, crop = self.crops.at(progress, self.data.images.shape[-1])
        device = next(self.module.parameters()).device
        multiple = grid * 2 ** (scales - 1)
        images, latents = self.data.encoded_crops(count, crop, grid, generator, multiple, device)

        draws = Draws(count, generator, device)
        return image_pyramid(images, scales), latents, draws.normal, torch.zeros(count, device=device)


@dataclass(frozen=True, slots=True)
class Draws:
    """N(0, 1) for a batch from a step's generator: the noise source of training."""

    count: int
    """samples"""
    generator: torch.Generator
    """of the step"""
    device: torch.device
    """where the numbers are needed"""

    def normal(self, shape: Sequence[int], draw: int = 0) -> Tensor:
        """[count, *shape]; every call draws anew, whatever its number."""
        return torch.randn((self.count, *shape), generator=self.generator).to(self.device)


def no_noise(shape: tuple[int, ...]) -> Tensor:
    """The `Normal` of a flow that must not draw: raises `ValueError`."""
    raise ValueError(f"a flow without noise was asked to draw {shape}")


def image_pyramid(images: Tensor, scales: int) -> list[Tensor]:
    """The clean image of every scale, coarse to fine: [B, 3, H/2^j, W/2^j], j = K-1 … 0."""
    levels = [images]
    for _ in range(scales - 1):
        levels.append(halve(levels[-1]))
    return levels[::-1]
