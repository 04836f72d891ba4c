"""Encoders that denoisers take their latents from, frozen: an autoencoder of ours, or that of any decoder by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from decoders.autoencoder import Autoencoder
from harness.decoder import Decoder
from harness.environment import source_sha256
from harness.errors import MsbenchError
from harness.request.foreign import networks_of
from harness.request.requests import DecoderRequest
from harness.run.reconstruct import isolated


@dataclass(frozen=True, slots=True)
class FrozenEncoder:
    """What gives a denoiser its latents."""

    encode: Callable[[Tensor], Tensor]
    """float32 [B, 3, H, W] in [-1, 1], H and W multiples of f -> float32 [B, C, H/f, W/f]"""
    down_factor: int
    """f"""
    channels: int
    """C"""
    sha256: str | None
    """of its weights; None where they are random"""
    name: str | None = None
    """`NAME[@option=value]…`; None = an autoencoder of ours"""
    moments: tuple[Tensor, Tensor] | None = None
    """mean and standard deviation [C, 1, 1] that a denoiser wants them normalised by; None = it takes them as they are"""


def own_encoder(autoencoder: Autoencoder, sha256: str | None) -> FrozenEncoder:
    """The encoder of an autoencoder of ours."""
    config = autoencoder.config
    return FrozenEncoder(autoencoder.encode, config.down_factor(), config.latent_channels, sha256)


def named_encoder(request: DecoderRequest, device: torch.device, offline: bool) -> FrozenEncoder:
    """The encoder of any decoder, in float32.

    Raises:
        MsbenchError: the decoder cannot be built, has random weights, or its latents are no grid of numbers.
    """
    request = request.pinned(offline)
    decoder, name = request.build(device, torch.float32, offline), request.text()
    factor, channels = decoder.spec.down_factor, decoder.spec.latent_channels
    if channels is None or decoder.spec.trained_on == "random weights":
        raise MsbenchError(f"encoder {name} gives no latents to train on: a grid of numbers is wanted, of trained weights")

    def encode(images: Tensor) -> Tensor:
        with isolated(decoder, "encode"):
            latents = decoder.encode(images)
        wanted = [len(images), channels, *(side // factor for side in images.shape[-2:])]
        if list(latents.shape) != wanted:
            raise MsbenchError(f"encoder {name} gave latents {list(latents.shape)}, wanted {wanted}")
        return latents.float()

    return FrozenEncoder(encode, factor, channels, decoder.spec.encoder_sha256 or _content_sha256(decoder), name)


def _content_sha256(decoder: Decoder) -> str:
    """Hash of a decoder's source and of all its weights, for one that names no weights file."""
    digest = hashlib.sha256(str(getattr(decoder, "source_sha256", None) or source_sha256(decoder)).encode())
    for name, value in (pair for network in networks_of(decoder) for pair in network.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
