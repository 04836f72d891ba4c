"""Flows: which noise-to-image path each scale follows, and how one scale hands over to the next.

Scale k = 0..K-1 has resolution R / 2^(K-1-k); `halve` is the 2×2 mean D, `double` is nearest U. A flow gives, for a scale, the
two ends of a straight path (training), the start of that path from the previous scale's result (sampling), and the velocity
that an estimate of the clean image implies. With one scale both flows are plain rectified flow from noise to image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

Normal = Callable[[tuple[int, ...]], Tensor]
"""Draws N(0, 1) of a per-sample shape: [B, *shape]."""


def halve(x: Tensor) -> Tensor:
    """D: mean of 2×2 blocks. [B, C, H, W] -> [B, C, H/2, W/2]."""
    return F.avg_pool2d(x, 2)


def double(x: Tensor) -> Tensor:
    """U: every pixel becomes a 2×2 block. [B, C, H, W] -> [B, C, 2H, 2W]."""
    return x.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)


def sample_shape(x: Tensor) -> tuple[int, int, int]:
    """(C, H, W) of a batch [B, C, H, W]: what `Normal` takes."""
    return x.shape[1], x.shape[2], x.shape[3]


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """The two ends of one scale's path for a batch."""

    start: Tensor
    """x at τ = 0, [B, 3, h, w]"""
    end: Tensor
    """x at τ = 1"""
    clean: Tensor
    """the scale's clean image, which the network predicts"""
    corruption: Tensor
    """level of noise mixed into the coarse input, [B]; zeros where the flow has none"""

    def at(self, time: Tensor) -> Tensor:
        """x_τ = (1-τ)·start + τ·end for τ [B]."""
        return torch.lerp(self.start, self.end, time[:, None, None, None])


class Flow(Protocol):
    """One path per scale."""

    @property
    def scales(self) -> int:
        """K"""
        ...

    def training_pair(
        self, scale: int, clean: Tensor, normal: Normal, uniform: Tensor, sampled: Tensor | None = None
    ) -> TrainingPair:
        """Ends of the path of `scale` for clean images [B, 3, h, w] of it.

        Args:
            uniform: [B] in [0, 1), sets the corruption.
            sampled: coarse images [A, 3, h/2, w/2] that stand for those of the first A samples; a cascade alone reads them.
        """
        ...

    def start(self, scale: int, previous: Tensor, normal: Normal) -> Tensor:
        """x at τ = 0 when sampling.

        Args:
            scale: k.
            previous: the previous scale's end [B, 3, h/2, w/2]; for scale 0 any [B, 3, h, w], whose values are not read.
            normal: called at most once, and not at all by a flow without noise.

        Returns:
            [B, 3, h, w].
        """
        ...

    def velocity(self, scale: int, x: Tensor, estimate: Tensor, time: Tensor) -> Tensor:
        """dx/dτ at x_τ implied by a clean-image estimate; τ [B], below 1."""
        ...

    def estimate(self, scale: int, x: Tensor, velocity: Tensor, time: Tensor) -> Tensor:
        """The clean image that a velocity at x_τ implies: the inverse of `velocity`; τ [B]."""
        ...


class _EndsClean:
    """Velocity and estimate of a path that ends in the clean image."""

    __slots__ = ()

    def velocity(self, scale: int, x: Tensor, estimate: Tensor, time: Tensor) -> Tensor:
        return (estimate - x) / (1.0 - time)[:, None, None, None]

    def estimate(self, scale: int, x: Tensor, velocity: Tensor, time: Tensor) -> Tensor:
        return x + (1.0 - time)[:, None, None, None] * velocity


@dataclass(frozen=True, slots=True)
class CascadeFlow(_EndsClean):
    """Every scale ends in a clean image, which can be shown and supervised (design §3, "cascade")."""

    scales: int
    """K"""
    bridge_noise: float = 0.05
    """s: noise added to the doubled coarse image at the start of scales k > 0"""
    max_corruption: float = 0.1
    """largest level of noise mixed into the coarse input in training"""

    def training_pair(
        self, scale: int, clean: Tensor, normal: Normal, uniform: Tensor, sampled: Tensor | None = None
    ) -> TrainingPair:
        if scale == 0:
            return TrainingPair(normal(sample_shape(clean)), clean, clean, torch.zeros_like(uniform))
        level = self.max_corruption * uniform
        coarse = halve(clean)
        if sampled is not None:
            coarse = torch.cat([sampled, coarse[len(sampled) :]])
            level = torch.cat([torch.zeros_like(level[: len(sampled)]), level[len(sampled) :]])
        coarse = coarse + level[:, None, None, None] * normal(sample_shape(coarse))
        return TrainingPair(double(coarse) + self.bridge_noise * normal(sample_shape(clean)), clean, clean, level)

    def start(self, scale: int, previous: Tensor, normal: Normal) -> Tensor:
        if scale == 0:
            return normal(sample_shape(previous))
        coarse = double(previous)
        return coarse + self.bridge_noise * normal(sample_shape(coarse))


@dataclass(frozen=True, slots=True)
class PyramidFlow:
    """The paper's flow (from pyramidal flow matching, arXiv 2410.05954): scale k ends at noise level e_k, and the jump to the
    next scale renoises so that the noise is white again (design §3, "pyramid")."""

    scales: int
    """K"""

    def end_noise(self, scale: int) -> float:
        """e_k = 1 - (k+1)/K."""
        return 1.0 - (scale + 1) / self.scales

    def start_noise(self, scale: int) -> float:
        """a_k = 2σ/(1+σ) with σ = e_{k-1}; a_0 = 1."""
        if scale == 0:
            return 1.0
        sigma = self.end_noise(scale - 1)
        return 2.0 * sigma / (1.0 + sigma)

    def training_pair(
        self, scale: int, clean: Tensor, normal: Normal, uniform: Tensor, sampled: Tensor | None = None
    ) -> TrainingPair:
        noise = normal(sample_shape(clean))
        e, a = self.end_noise(scale), self.start_noise(scale)
        end = (1.0 - e) * clean + e * noise
        start = noise if scale == 0 else (1.0 - a) * double(halve(clean)) + a * noise
        return TrainingPair(start, end, clean, torch.zeros_like(uniform))

    def start(self, scale: int, previous: Tensor, normal: Normal) -> Tensor:
        if scale == 0:
            return normal(sample_shape(previous))
        channels, height, width = sample_shape(previous)
        return self.jump(previous, self.end_noise(scale - 1), normal((channels, 2 * height, 2 * width)))

    @staticmethod
    def jump(previous: Tensor, sigma: float, white: Tensor) -> Tensor:
        """Double the resolution and renoise: x ← α·U(x) + β·n, α = 1/(1+σ), β = √3·σ/(1+σ), n = √(4/3)·(g - U(D(g))).

        U(x) carries each noise value four times over; n has mean zero in every 2×2 block, so the sum is exactly white.
        `previous` [B, 3, h, w] at noise σ, `white` N(0, 1) [B, 3, 2h, 2w] -> [B, 3, 2h, 2w] at noise 2σ/(1+σ).
        """
        detail = (white - double(halve(white))).mul_(math.sqrt(4.0 / 3.0))
        return double(previous).add_(detail.mul_(math.sqrt(3.0) * sigma)).div_(1.0 + sigma)

    def velocity(self, scale: int, x: Tensor, estimate: Tensor, time: Tensor) -> Tensor:
        tau = time[:, None, None, None]
        e, a = self.end_noise(scale), self.start_noise(scale)
        # The coarse part of the start cancels where a = 1 (scale 0), whatever D and U are.
        coarse = double((1.0 - a) * halve(estimate)) if scale > 0 else torch.zeros((), device=x.device)
        noise = (x - (1.0 - tau) * coarse).sub_(tau * (1.0 - e) * estimate).div_((1.0 - tau) * a + tau * e)
        return ((1.0 - e) * estimate).add_(e * noise).sub_(coarse).sub_(a * noise)

    def estimate(self, scale: int, x: Tensor, velocity: Tensor, time: Tensor) -> Tensor:
        tau = time[:, None, None, None]
        e, a = self.end_noise(scale), self.start_noise(scale)
        start, end = x - tau * velocity, x + (1.0 - tau) * velocity
        if scale == 0:
            noise = start
        else:
            # Both ends hold the same noise and the same D(clean), so their halved images give D(clean) alone (design §3).
            coarse = (halve(end) - (e / a) * halve(start)) / (1.0 - e / a)
            noise = (start - (1.0 - a) * double(coarse)) / a
        return (end - e * noise) / (1.0 - e)


@dataclass(frozen=True, slots=True)
class NoiseFreeFlow(_EndsClean):
    """The control without noise: scale 0 starts from zeros, finer scales from the doubled coarse image; one step is the
    network's own output, so this is plain regression from latents to pixels."""

    scales: int
    """K"""

    def training_pair(
        self, scale: int, clean: Tensor, normal: Normal, uniform: Tensor, sampled: Tensor | None = None
    ) -> TrainingPair:
        start = torch.zeros_like(clean) if scale == 0 else double(halve(clean))
        return TrainingPair(start, clean, clean, torch.zeros_like(uniform))

    def start(self, scale: int, previous: Tensor, normal: Normal) -> Tensor:
        return torch.zeros_like(previous) if scale == 0 else double(previous)


FlowName = Literal["cascade", "pyramid", "noise-free"]


def make_flow(name: FlowName, scales: int) -> Flow:
    """The flow called `name` with K = `scales`."""
    match name:
        case "cascade":
            return CascadeFlow(scales)
        case "pyramid":
            return PyramidFlow(scales)
        case "noise-free":
            return NoiseFreeFlow(scales)
