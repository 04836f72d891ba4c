"""Small codes without training: indices into a fixed codebook of colours, as a grid, as a sequence and in two stages."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.decoder import DecoderOptions, DecoderSpec

FACTOR = 8
LEVELS = (4, 3, 3)
COLOURS = torch.tensor(list(itertools.product(*(torch.linspace(-1, 1, one).tolist() for one in LEVELS))))
"""[36, 3] in [-1, 1], the last channel's level first: FSQ is such a product"""
CORRECTIONS = 0.2 * torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)))
"""[8, 3], of the second stage"""


def spec(name: str, *sizes: int, **changes: Any) -> DecoderSpec:
    return DecoderSpec(name, FACTOR, None, 0, 1, 0, None, "colours", "nothing", codebook_sizes=sizes, **changes)


def means(images: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, H/8, W/8, 3]."""
    return F.avg_pool2d(images, FACTOR).movedim(1, -1)


def nearest(values: Tensor, codebook: Tensor) -> Tensor:
    return torch.cdist(values.flatten(0, -2), codebook).argmin(dim=1).reshape(values.shape[:-1])


def enlarged(colours: Tensor) -> Tensor:
    return F.interpolate(colours.movedim(-1, 1), scale_factor=FACTOR)


class Grid:
    """A vector-quantised grid, int64 [B, H/8, W/8]."""

    def __init__(self, name: str = "odd-vq") -> None:
        self.spec = spec(name, len(COLOURS))

    def encode(self, images: Tensor) -> Tensor:
        return nearest(means(images), COLOURS)

    def decode(self, latents: Tensor, noise: Any) -> Tensor:
        return enlarged(COLOURS[latents])


class Sequence(Grid):
    """The same as finite scalar quantisation, indices in a row: int64 [B, n] of square images."""

    def encode(self, images: Tensor) -> Tensor:
        steps = [((means(images)[..., i] + 1) / 2 * (one - 1)).round().long() for i, one in enumerate(LEVELS)]
        return ((steps[0] * LEVELS[1] + steps[1]) * LEVELS[2] + steps[2]).flatten(1)

    def decode(self, latents: Tensor, noise: Any) -> Tensor:
        side = int(latents.shape[1] ** 0.5)
        return super().decode(latents.reshape(-1, side, side), noise)


class Stages(Grid):
    """A residual code, int64 [B, 2, H/8, W/8]."""

    def __init__(self) -> None:
        self.spec = spec("odd-stages", len(COLOURS), len(CORRECTIONS))

    def encode(self, images: Tensor) -> Tensor:
        first = super().encode(images)
        return torch.stack([first, nearest(means(images) - COLOURS[first], CORRECTIONS)], dim=1)

    def decode(self, latents: Tensor, noise: Any) -> Tensor:
        return enlarged(COLOURS[latents[:, 0]] + CORRECTIONS[latents[:, 1]])


class Darker(Grid):
    """Its pictures are encoded to other tokens."""

    def decode(self, latents: Tensor, noise: Any) -> Tensor:
        return super().decode(latents, noise) - torch.tensor([0.0, 0.0, 0.6]).view(3, 1, 1)


class Announces(Grid):
    """Another number of entries than there are, or latents that are no indices."""

    def __init__(self, size: int, change: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        self.spec, self._change = spec("odd-announces", size), change

    def encode(self, images: Tensor) -> Tensor:
        return self._change(super().encode(images))


class Series(Grid):
    """Colours in a row, float32 [B, n, 3]: no indices."""

    def __init__(self) -> None:
        self.spec = replace(spec("odd-series", 2), codebook_sizes=None)

    def encode(self, images: Tensor) -> Tensor:
        return means(images).flatten(1, 2)

    def decode(self, latents: Tensor, noise: Any) -> Tensor:
        side = int(latents.shape[1] ** 0.5)
        return enlarged(latents.reshape(-1, side, side, 3))


FACTORIES: dict[str, Callable[[DecoderOptions], Any]] = {
    "vq": lambda options: Grid(),
    "fsq": lambda options: Sequence("odd-fsq"),
    "series": lambda options: Series(),
    "stages": lambda options: Stages(),
    "darker": lambda options: Darker("odd-darker"),
    "fewer": lambda options: Announces(20),
    "floats": lambda options: Announces(36, lambda x: x.float()),
}
