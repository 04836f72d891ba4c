"""`identity`: the latents are the images. What it loses is what the protocol itself loses (one uint8 round trip: nothing)."""

from __future__ import annotations

from torch import Tensor

from baselines.options import refuse_network_options, spec_of
from harness.decoder import DecoderOptions, NoiseSource


class IdentityDecoder:
    """Returns the images it was given. Latents: float32 [B, 3, H, W] in [-1, 1]."""

    spec = spec_of("identity", 1, None)

    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> the same tensor."""
        return images

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        """[B, 3, H, W] -> the same tensor; `noise` is not drawn from."""
        return latents


def identity(options: DecoderOptions) -> IdentityDecoder:
    """Build `identity`. Raises `MsbenchError` for steps, scales, a checkpoint or random weights."""
    refuse_network_options("identity", options)
    return IdentityDecoder()
