"""The denoiser: one U-Net for every scale, conditioned on latents, time, scale and the corruption of its coarse input.

The image enters through a space-to-depth stem, so that its first grid is a quarter of the pixels' a side; most depth sits at
the second grid, the latents' own (f = 8). Latents are projected once per image and scale (`project`), not once per step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from pydantic import Field, with_config
from torch import Tensor, nn

from decoders.autoencoder import Patch
from decoders.blocks import Down, PixelNorm, ResidualBlock, Up, block_lists, set_linear, zero
from decoders.settings import Depths, Width, Widths

Prediction = Literal["image", "velocity"]


@with_config(extra="forbid")
@dataclass(frozen=True, slots=True)
class DenoiserConfig:
    """Shape of the denoiser; latents lie on the grid of level 1 (down_factor = 2 · patch)."""

    scales: Annotated[int, Field(ge=1, le=8)] = 3
    """K, the number of resolutions"""
    latent_channels: Width = 4
    """channels of the latents"""
    down_factor: Annotated[int, Field(ge=1, le=1024)] = 8
    """pixels per latent a side; patch · 2^j for some level j"""
    patch: Patch = 4
    """space-to-depth factor of the stem"""
    stem: Literal[1, 3] = 3
    """kernel of the stem; what it misses of its neighbours the first block sees"""
    widths: Widths = (64, 128, 160)
    """channels of each grid, finest first"""
    depths: Depths = (1, 2, 2)
    """residual blocks of each grid on the way down and again on the way up; the last grid is visited once"""
    embedding: Annotated[int, Field(ge=2, le=2**14, multiple_of=2)] = 128
    """width of the time, scale and corruption embedding"""
    latent_width: Width = 64
    """channels of the projected latents before they are folded to a scale's grid"""
    prediction: Prediction = "image"
    """what the output is: the scale's clean image, or the path's velocity"""
    linear: bool = False
    """the network predicts what the linear image of the latents misses; started as the least-squares map"""

    def latent_level(self) -> int:
        """The level whose grid is the latents' grid at the finest scale."""
        return int(math.log2(self.down_factor // self.patch))


def _sinusoid(value: Tensor, width: int) -> Tensor:
    """Sinusoidal features of numbers in [0, 1]: [B] -> [B, width]."""
    frequencies = torch.exp(torch.linspace(0.0, math.log(1000.0), width // 2, device=value.device))
    angle = value.float()[:, None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class Condition(NamedTuple):
    """What one scale sees of the latents, made once per image."""

    features: Tensor
    """added to the first block's input, [B, width, h/2^j, w/2^j] with j = K-1-k"""
    image: Tensor | None
    """the scale's linear image, [B, 3, f·h/2^j, f·w/2^j]; None without a linear path"""


class Denoiser(nn.Module):
    """Predicts the clean image of a scale, or the velocity towards it, from a noisy one."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        if config.patch * 2 ** config.latent_level() != config.down_factor:
            raise ValueError(f"down_factor {config.down_factor} is not patch {config.patch} times a power of two")
        if config.linear and config.prediction != "image":
            raise ValueError("the linear path gives images: prediction must be image")
        self.config = config
        widths, depths, image_channels = config.widths, config.depths, 3 * config.patch**2
        join = widths[config.latent_level()]
        self.latent_stem = nn.Conv2d(config.latent_channels, config.latent_width, 3, padding=1)
        self.latent_block = ResidualBlock(config.latent_width)
        # One projection a scale: latents folded by pixel-unshuffle keep what a mean would lose (design §3).
        self.latent_fold = nn.ModuleList(nn.Conv2d(config.latent_width * 4**j, join, 1) for j in range(config.scales))
        self.time = nn.Sequential(nn.Linear(config.embedding, config.embedding), nn.SiLU())
        self.corruption = nn.Linear(config.embedding, config.embedding)
        self.scale = nn.Embedding(config.scales, config.embedding)
        self.stem = nn.Conv2d(image_channels, widths[0], config.stem, padding=config.stem // 2)
        self.down_blocks = block_lists(widths, depths)
        self.up_blocks = block_lists(widths[:-1], depths[:-1])
        self.downs = nn.ModuleList(Down(a, b) for a, b in pairwise(widths))
        self.ups = nn.ModuleList(Up(b, a) for a, b in pairwise(widths))
        self._modulated = [w for w, d in zip(widths, depths, strict=True) for _ in range(d)]
        self._modulated += [w for w, d in reversed(list(zip(widths[:-1], depths[:-1], strict=True))) for _ in range(d)]
        # All blocks' modulations in one matrix product: few large kernels at batch 1.
        self.modulation = nn.Linear(config.embedding, 2 * sum(self._modulated))
        self.norm = PixelNorm(widths[0])
        self.head = nn.Conv2d(widths[0], image_channels, 3, padding=1)
        zero(self.modulation)
        zero(self.head)
        self.linear = nn.Conv2d(config.latent_channels, 3 * config.down_factor**2, 1) if config.linear else None

    def start_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Begin as a linear map from latents to cells, [3f², C] and [3f²]: the network's output is zero."""
        assert self.linear is not None
        set_linear(self.linear, weight, bias)
        zero(self.head)

    def project(self, latents: Tensor) -> list[Condition]:
        """The once-per-image part: latents [B, C, h, w], sides multiples of 2^(K-1) -> a condition a scale, coarse to fine."""
        return self._conditions(latents, range(self.config.scales))

    def project_scale(self, latents: Tensor, scale: int) -> Condition:
        """Entry `scale` of `project` alone, for training one scale."""
        return self._conditions(latents, [scale])[0]

    def _conditions(self, latents: Tensor, scales: Sequence[int]) -> list[Condition]:
        features = self.latent_block(self.latent_stem(latents))
        cells = None if self.linear is None else self.linear(latents)
        return [Condition(self._fold(features, scale), self._image(cells, scale)) for scale in scales]

    def _image(self, cells: Tensor | None, scale: int) -> Tensor | None:
        """The linear image of a scale: means of 2×2, 4×4, … pixels of the finest one, which is cells of f×f pixels."""
        if cells is None:
            return None
        side, factor = 2 ** (self.config.scales - 1 - scale), self.config.down_factor
        inside = min(side, factor)
        if inside > 1:  # within cells, before they are spread over the image: pixels of a cell lie apart in memory after it
            grid, batch, *size = factor // inside, len(cells), *cells.shape[2:]
            blocks = cells.float().reshape(batch, 3, grid, inside, grid, inside, *size)
            pixels = (pixel for row in blocks.unbind(3) for pixel in row.unbind(4))
            total = functools.reduce(torch.add, pixels)  # in avg_pool2d's order: the same bits
            cells = (total / inside**2).flatten(1, 3).to(cells.dtype)
        image = F.pixel_shuffle(cells, factor // inside)
        return image if side == inside else F.avg_pool2d(image, side // inside)

    def _fold(self, features: Tensor, scale: int) -> Tensor:
        j = self.config.scales - 1 - scale
        fold, side = cast(nn.Conv2d, self.latent_fold[j]), 2**j
        # pixel-unshuffle and a 1×1 convolution are one convolution whose stride is its size: no folded copy is written.
        weight = fold.weight.reshape(-1, self.config.latent_width, side, side)
        return F.conv2d(features, weight, fold.bias, stride=side)

    def forward(self, x: Tensor, condition: Condition, scale: int, time: Tensor, corruption: Tensor) -> Tensor:
        """Prediction of one scale: its clean image or its velocity, whichever `config.prediction` says.

        Args:
            x: noisy image [B, 3, H, W] of that scale; H and W multiples of `patch`.
            condition: that scale's entry of `project`.
            scale: k, 0 = coarsest.
            time: τ in [0, 1], [B]; 0 is the scale's start, 1 its end.
            corruption: level r in [0, 1] of the noise mixed into the coarse input, [B] (0 where the flow has none).

        Returns:
            [B, 3, H, W].
        """
        config = self.config
        embedding = self.time(_sinusoid(time, config.embedding).to(x.dtype)) + self.scale.weight[scale].to(x.dtype)
        embedding = embedding + self.corruption(_sinusoid(corruption, config.embedding).to(x.dtype))
        parts = self.modulation(F.silu(embedding))[:, :, None, None].split([2 * w for w in self._modulated], dim=1)
        modulations = iter([part.chunk(2, dim=1) for part in parts])
        h = self.stem(F.pixel_unshuffle(x, config.patch))
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down_blocks):
            if level > 0:
                skips.append(h)
                h = self.downs[level - 1](h)
            if level == config.latent_level():
                h = h + condition.features
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, next(modulations))
        for level in reversed(range(len(self.up_blocks))):
            skip = skips[level]
            h = skip + self.ups[level](h, (skip.shape[-2], skip.shape[-1]))
            for block in self.up_blocks[level]:  # type: ignore[attr-defined]
                h = block(h, next(modulations))
        image = F.pixel_shuffle(self.head(F.silu(self.norm(h))), config.patch)
        return image if condition.image is None else image + condition.image
