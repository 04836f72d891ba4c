"""What the objectives over every scale of a denoiser share: networks, data and the draws of a step."""

from __future__ import annotations

import torch
from torch import Tensor

from decoders.denoiser import Denoiser
from decoders.flow import Flow, Normal, halve
from decoders.training.data import TrainingImages


class ScalesObjective:
    """Base of an objective whose step takes the same crops through all scales, coarse to fine."""

    def __init__(self, module: Denoiser, flow: Flow, data: TrainingImages, batch: int, crop: int) -> None:
        """`batch` crops a step, `crop` full-resolution pixels a side."""
        self.module, self.flow, self.data = module, flow, data
        self.samples_per_step, self.crop = batch, crop

    def draw(self, generator: torch.Generator) -> tuple[list[Tensor], Tensor, Normal, Tensor]:
        """Crops for a step: the clean images of each scale, coarse to fine; their latents; further draws; and zeros [batch]."""
        count, grid, scales = self.samples_per_step, self.module.config.down_factor, self.flow.scales
        device = next(self.module.parameters()).device
        multiple = grid * 2 ** (scales - 1)
        images, latents = self.data.encoded_crops(count, self.crop, grid, generator, multiple, device)

        def normal(shape: tuple[int, ...]) -> Tensor:
            return torch.randn((count, *shape), generator=generator).to(device)

        return image_pyramid(images, scales), latents, normal, torch.zeros(count, device=device)


def no_noise(shape: tuple[int, ...]) -> Tensor:
    """The `Normal` of a flow that must not draw: raises `ValueError`."""
    raise ValueError(f"a flow without noise was asked to draw {shape}")


def image_pyramid(images: Tensor, scales: int) -> list[Tensor]:
    """The clean image of every scale, coarse to fine: [B, 3, H/2^j, W/2^j], j = K-1 … 0."""
    levels = [images]
    for _ in range(scales - 1):
        levels.append(halve(levels[-1]))
    return levels[::-1]
