"""`identity`: the latents are the images. What it loses is what the protocol itself loses (one uint8 round trip: nothing)."""

from __future__ import annotations

from torch import Tensor

from baselines.options import refuse_network_options
from harness.decoder import DecoderOptions, DecoderSpec, NoiseSource


class IdentityDecoder:
    """Returns the images it was given. Latents: float32 [B, 3, H, W] in [-1, 1]."""

    spec = DecoderSpec(
        name="identity",
        down_factor=1,
        latent_channels=None,
        steps=0,
        scales=1,
        parameters=0,
        weights_sha256=None,
        encoder_sha256=None,
        trained_on="nothing",
    )

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
