"""One batch through one decoder: encode, decode, and the one rounding to uint8."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.decoder import Decoder, NoiseSource


def reconstruct(decoder: Decoder, pixels: Tensor, noise: NoiseSource) -> tuple[Tensor, Tensor]:
    """Encode and decode a batch of any size: padded by repeating its edge to the decoder's factor, cropped after.

    Args:
        decoder: built on the device of `pixels`.
        pixels: uint8 [B, 3, H, W].
        noise: one stream per sample.

    Returns:
        latents, and uint8 [B, 3, H, W] after the one rounding of the protocol.
    """
    height, width = pixels.shape[-2:]
    images = pixels.float() / 127.5 - 1.0
    bottom, right = -height % decoder.spec.down_factor, -width % decoder.spec.down_factor
    if bottom or right:
        images = F.pad(images, (0, right, 0, bottom), mode="replicate")
    with torch.inference_mode():
        latents = decoder.encode(images)
        output = decoder.decode(latents, noise)
    return latents, to_uint8(output[..., :height, :width])


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] -> uint8 [0, 255]: clamped, rounded once (half to even)."""
    return ((images.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
