"""LPIPS as a training loss: on small sub-crops of a share of the batch, since its network costs more than the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from pydantic import Field
from torch import Tensor

from decoders.settings import Count
from harness.errors import MsbenchError
from harness.metrics.lpips import Lpips, LpipsNet

LEAST = {"vgg": 16, "alex": 31}
"""smallest side that the networks' pooling leaves a pixel of"""


@dataclass(frozen=True, slots=True)
class PerceptualConfig:
    """Which LPIPS is trained on, and on how much of a batch."""

    network: LpipsNet = "vgg"
    """vgg or alex; whichever it is, a table should show a metric on another network beside it"""
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25
    """part of the batch that is scored; at least one crop is"""
    crop: Count = 64
    """side of the random sub-crop that is scored, in pixels"""


class Perceptual(Protocol):
    """What the objectives need of a perceptual loss."""

    def __call__(self, estimate: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        """Mean distance of [B, 3, H, W] pairs in [-1, 1], a scalar; draws come from `generator` alone."""
        ...


class PerceptualLoss:
    """LPIPS (Zhang et al., 1801.03924) between images in [-1, 1], on random sub-crops of a random part of the batch."""

    def __init__(self, network: Lpips, config: PerceptualConfig, dtype: torch.dtype | None = None) -> None:
        """`dtype`: what the run autocasts to; the frozen trunk is kept in it, since autocast would cast it at every call."""
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if dtype is not None:
            self.network.network.net.to(dtype)  # type: ignore[operator, union-attr]
        self.config = config

    def __call__(self, estimate: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        """Mean LPIPS of [B, 3, H, W] pairs, a scalar; the same sub-crop of both. Raises `MsbenchError` for too small ones."""
        count = max(1, round(self.config.share * len(estimate)))
        chosen = torch.randperm(len(estimate), generator=generator)[:count].to(estimate.device)
        size = min(self.config.crop, estimate.shape[-1], estimate.shape[-2])
        if size < LEAST[self.config.network]:
            least = LEAST[self.config.network]
            raise MsbenchError(
                f"LPIPS {self.config.network} needs crops of {least} px at every scale, not {size}: train on larger"
            )
        y = int(torch.randint(estimate.shape[-2] - size + 1, (), generator=generator))
        x = int(torch.randint(estimate.shape[-1] - size + 1, (), generator=generator))
        window = (chosen, slice(None), slice(y, y + size), slice(x, x + size))
        distance: Tensor = self.network(estimate[window].float(), target[window].float())
        return distance.mean()
