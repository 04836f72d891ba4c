"""The one sampling loop: coarse to fine, Euler steps on each scale's path. Full resolution is K = 1, one-step decoding is N = K."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from decoders.denoiser import Denoiser
from decoders.flow import Flow
from harness.decoder import NoiseSource


def sample(
    denoiser: Denoiser,
    flow: Flow,
    latents: Tensor,
    steps: Sequence[int],
    noise: NoiseSource,
    on_scale: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Decode latents.

    Args:
        denoiser: the network, in eval mode.
        flow: the path of each scale, with as many scales as the network.
        latents: [B, C, h, w], h and w multiples of 2^(K-1).
        steps: network calls of each scale, coarse to fine.
        noise: per-sample normal draws; draw k belongs to scale k.
        on_scale: called with (k, end of scale k), for previews.

    Returns:
        [B, 3, f·h, f·w], float in the latents' dtype.
    """
    conditions = denoiser.project(latents)
    factor = denoiser.config.down_factor
    batch, dtype = latents.shape[0], latents.dtype
    x: Tensor | None = None
    for k, count in enumerate(steps):
        shrink = 2 ** (flow.scales - 1 - k)
        shape = (3, latents.shape[-2] * factor // shrink, latents.shape[-1] * factor // shrink)

        def normal(size: tuple[int, ...], draw: int = k) -> Tensor:
            return noise.normal(size, draw).to(dtype)

        x = flow.start(k, x, shape, normal)
        none = torch.zeros(batch, device=latents.device, dtype=dtype)
        for index in range(count):
            time = torch.full((batch,), index / count, device=latents.device, dtype=dtype)
            x = integrate(denoiser, flow, x, conditions[k], k, time, none, 1.0 / count)
        if on_scale is not None:
            on_scale(k, x)
    assert x is not None
    return x


def integrate(
    denoiser: Denoiser, flow: Flow, x: Tensor, condition: Tensor, scale: int, time: Tensor, corruption: Tensor, width: float
) -> Tensor:
    """One Euler step of `width` in τ: x + width · v(x, τ)."""
    estimate = denoiser(x, condition, scale, time, corruption)
    return x + width * flow.velocity(scale, x, estimate, time)
