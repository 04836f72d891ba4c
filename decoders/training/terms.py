"""A loss as it is summed up: weighted terms, each under its name for the log."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


class Terms:
    """The sum of weighted scalars, and what each of them was."""

    def __init__(self, device: torch.device) -> None:
        self.total = torch.zeros((), device=device)
        self.parts: dict[str, float] = {}

    def add(self, name: str, weight: float, value: Tensor) -> None:
        """Add `weight` times a scalar; the log gets the scalar."""
        self.total = self.total + weight * value
        self.parts[name] = float(value.detach())

    def add_perceptual(self, weight: float, now: bool, distance: Callable[[], Tensor]) -> None:
        """Add λ·LPIPS where it counts `now`; the log has NaN where it does not yet, and nothing at weight 0."""
        if weight > 0 and now:
            self.add("lpips", weight, distance())
        elif weight > 0:
            self.parts["lpips"] = float("nan")

    def add_distances(self, mse: float, l1: float, output: Tensor, image: Tensor, suffix: str = "") -> None:
        """Add squared and absolute distance of [B, 3, H, W] pairs with these weights; one of weight 0 is left out."""
        for name, weight, distance in (("mse", mse, F.mse_loss), ("l1", l1, F.l1_loss)):
            if weight > 0:
                self.add(name + suffix, weight, distance(output.float(), image))
