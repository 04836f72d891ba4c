"""LPIPS as a training loss: on small sub-crops of a share of the batch, since its network costs more than the decoder."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from harness.metrics.lpips import Lpips


class Perceptual(Protocol):
    """What the objectives need of a perceptual loss."""

    def __call__(self, estimate: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        """Mean distance of [B, 3, H, W] pairs in [-1, 1], a scalar; draws come from `generator` alone."""
        ...


class PerceptualLoss:
    """LPIPS (VGG16, Zhang et al., 1801.03924) between images in [-1, 1].

    Args:
        network: the frozen metric.
        share: part of the batch that is scored.
        crop: side of the random sub-crop that is scored, in pixels.
    """

    def __init__(self, network: Lpips, share: float = 0.25, crop: int = 64) -> None:
        self.network = network
        self.share = share
        self.crop = crop

    def __call__(self, estimate: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        """Mean LPIPS of [B, 3, H, W] pairs, a scalar; the same sub-crop of both."""
        count = max(1, round(self.share * len(estimate)))
        chosen = torch.randperm(len(estimate), generator=generator)[:count].to(estimate.device)
        size = min(self.crop, estimate.shape[-1], estimate.shape[-2])
        y = int(torch.randint(estimate.shape[-2] - size + 1, (), generator=generator))
        x = int(torch.randint(estimate.shape[-1] - size + 1, (), generator=generator))
        window = (chosen, slice(None), slice(y, y + size), slice(x, x + size))
        distance: Tensor = self.network(estimate[window].float(), target[window].float())
        return distance.mean()
