"""The one sampling loop: coarse to fine, Euler steps on each scale's path. Full resolution is K = 1, one-step decoding N = K.

The path is walked in float32 whatever the network's dtype: in bf16 a time of 0.98 is off by 2 % of the step that is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decoders.denoiser import Condition, Denoiser
from decoders.flow import Flow
from harness.cost.theory import even_split
from harness.decoder import NoiseSource
from harness.errors import MsbenchError


def split_steps(steps: int, scales: int) -> tuple[int, ...]:
    """Split N steps evenly over K scales, coarse to fine; the remainder goes to the finest (50 over 3: 16, 17, 17).

    Raises:
        MsbenchError: no scale, or fewer steps than scales.
    """
    if scales < 1:
        raise MsbenchError(f"{scales} scales: a decoder has at least one")
    if steps < scales:
        raise MsbenchError(f"{steps} steps cannot cover {scales} scales: give at least one step a scale")
    return even_split(steps, scales)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a compiler should see of the loop where it has many steps: a scale's start and one step, not fifty unrolled."""

    project: Callable[[Tensor], list[Condition]]
    """`Denoiser.project`"""
    start: Callable[[Flow, int, Tensor, NoiseSource], Tensor]
    """`begin`"""
    step: Callable[..., Tensor]
    """`integrate`"""


def sample(
    denoiser: Denoiser,
    flow: Flow,
    latents: Tensor,
    steps: Sequence[int],
    noise: NoiseSource,
    on_scale: Callable[[int, Tensor], None] | None = None,
    parts: Parts | None = None,
) -> Tensor:
    """Decode latents.

    Args:
        denoiser: the network, in eval mode.
        flow: the path of each scale, with as many scales as the network.
        latents: [B, C, h, w], h and w multiples of 2^(K-1).
        steps: network calls of each scale, coarse to fine.
        noise: per-sample normal draws; draw k belongs to scale k.
        on_scale: called with (k, end of scale k), for previews.
        parts: the two functions all network work is done in, compiled; None = as they are.

    Returns:
        [B, 3, f·h, f·w], float32.
    """
    parts = parts or Parts(denoiser.project, begin, integrate)
    conditions = parts.project(latents)
    batch, device = latents.shape[0], latents.device
    shrink = 2 ** (flow.scales - 1)
    height, width = (side * denoiser.config.down_factor // shrink for side in latents.shape[-2:])
    x = torch.zeros(batch, 3, height, width, device=device)
    for k, count in enumerate(steps):
        x = parts.start(flow, k, x, noise)
        for index in range(count):
            time = torch.full((batch,), index / count, device=device)
            x = parts.step(denoiser, flow, x, conditions[k], k, time, 1.0 / count, latents.dtype)
        if on_scale is not None:
            on_scale(k, x)
    return x


def begin(flow: Flow, scale: int, previous: Tensor, noise: NoiseSource) -> Tensor:
    """x at τ = 0 of a scale, from the end of the one before; its noise is the sample's draw number `scale`."""
    return flow.start(scale, previous, lambda shape: noise.normal(shape, scale))


@dataclass(frozen=True, slots=True)
class Prediction:
    """One network call's answer; each form is computed where it is asked for, float32 [B, 3, h, w]."""

    flow: Flow
    """the path it was made on"""
    scale: int
    """k"""
    x: Tensor
    """x_τ, what the network saw"""
    time: Tensor
    """τ, [B]"""
    output: Tensor
    """what the network said"""
    is_velocity: bool
    """the output is a velocity, not a clean image"""

    @property
    def velocity(self) -> Tensor:
        """dx/dτ"""
        return self.output if self.is_velocity else self.flow.velocity(self.scale, self.x, self.output, self.time)

    @property
    def estimate(self) -> Tensor:
        """The scale's clean image."""
        return self.flow.estimate(self.scale, self.x, self.output, self.time) if self.is_velocity else self.output


def predict(
    denoiser: Denoiser,
    flow: Flow,
    x: Tensor,
    condition: Condition,
    scale: int,
    time: Tensor,
    corruption: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Prediction:
    """Call the network on x_τ [B, 3, h, w] at τ [B] in `dtype`; its answer reads as velocity or as clean image."""
    output = denoiser(x.to(dtype), condition, scale, time, corruption).float()
    return Prediction(flow, scale, x, time, output, denoiser.config.prediction == "velocity")


def integrate(
    denoiser: Denoiser,
    flow: Flow,
    x: Tensor,
    condition: Condition,
    scale: int,
    time: Tensor,
    width: float,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """One Euler step of `width` in τ: x + width · v(x, τ), in float32; the network sees x, uncorrupted, in `dtype`."""
    return x + width * predict(denoiser, flow, x, condition, scale, time, torch.zeros_like(time), dtype).velocity
