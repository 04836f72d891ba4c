"""One batch through one decoder: encode, decode, the one rounding to uint8, and back again for latent faithfulness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.decoder import Decoder, NoiseSource
from harness.stopwatch import Stages


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What one batch became."""

    latents: Tensor
    """[B, ...] as the encoder gave them"""
    pixels: Tensor
    """uint8 [B, 3, H, W] after the one rounding of the protocol"""
    clamped: int
    """values that lay outside [-1, 1]"""


def reconstruct(decoder: Decoder, pixels: Tensor, noise: NoiseSource, stages: Stages | None = None) -> Reconstruction:
    """Encode and decode a batch of any size: padded by repeating its edge to the decoder's factor, cropped after.

    Args:
        decoder: built on the device of `pixels`.
        pixels: uint8 [B, 3, H, W].
        noise: one stream per sample.
        stages: stopwatch of the run, told of "encode" and "decode".
    """
    height, width = pixels.shape[-2:]
    stages = stages or Stages(pixels.device)
    with torch.inference_mode():
        with stages.stage("encode"):
            latents = decoder.encode(_padded(pixels, decoder.spec.down_factor))
        with stages.stage("decode"):
            output = decoder.decode(latents, noise)[..., :height, :width]
            return Reconstruction(latents, to_uint8(output), int((output.abs() > 1.0).sum()))


def encoder_of(decoder: Decoder) -> Callable[[Tensor], Tensor] | None:
    """uint8 images [B, 3, H, W] of any size -> latents by the decoder's own encoder; None where the code is no latent grid."""
    if decoder.spec.latent_channels is None:
        return None

    def encode(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return decoder.encode(_padded(images, decoder.spec.down_factor))

    return encode


def _padded(pixels: Tensor, down_factor: int) -> Tensor:
    """uint8 -> float [-1, 1], its right and lower edges repeated up to a multiple of the factor."""
    height, width = pixels.shape[-2:]
    images = pixels.float() / 127.5 - 1.0
    bottom, right = -height % down_factor, -width % down_factor
    return F.pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] -> uint8 [0, 255]: clamped, rounded once (half to even)."""
    return ((images.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
