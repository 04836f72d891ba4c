"""Encoders that denoisers take their latents from, frozen: an autoencoder of ours, or that of any decoder by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from decoders.autoencoder import Autoencoder
from harness.decoder import Decoder
from harness.environment import source_sha256
from harness.errors import MsbenchError
from harness.registry import FILE, find_entry
from harness.request.foreign import networks_of
from harness.request.requests import DecoderRequest, parse_request
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


def own_encoder(autoencoder: Autoencoder, sha256: str | None) -> FrozenEncoder:
    """The encoder of an autoencoder of ours, on the device where it is."""
    config = autoencoder.config
    device = next(autoencoder.parameters()).device
    return FrozenEncoder(
        lambda images: autoencoder.encode(images.to(device)), config.down_factor(), config.latent_channels, sha256
    )


def named_encoder(request: DecoderRequest, device: torch.device, offline: bool) -> FrozenEncoder:
    """The encoder of any decoder, in float32.

    Raises:
        MsbenchError: the decoder cannot be built, has random weights, or its latents are no grid of numbers.
    """
    decoder, name = request.build(device, torch.float32, offline), request.text()
    factor, channels = decoder.spec.down_factor, decoder.spec.latent_channels
    if decoder.spec.trained_on == "random weights":
        raise MsbenchError(f"encoder {name} has random weights: its latents mean nothing")
    if channels is None:
        raise MsbenchError(f"encoder {name} gives no grid of numbers [B, C, H/f, W/f]: indices and files are not trained on")

    def encode(images: Tensor) -> Tensor:
        with isolated(decoder, "encode"):
            latents = decoder.encode(images.to(device))
        wanted = [len(images), channels, *(side // factor for side in images.shape[-2:])]
        if list(latents.shape) != wanted or not latents.is_floating_point():
            raise MsbenchError(f"encoder {name} gave {latents.dtype} {list(latents.shape)}, wanted numbers {wanted}")
        return latents.float()

    return FrozenEncoder(encode, factor, channels, _sha256(decoder), name)


def located(name: str, place: str | None) -> DecoderRequest:
    """The decoder `NAME[@option=value]…`, its weights (its file, its folder) taken from `place` where that is given."""
    request = parse_request(name)
    if place is None:
        return request
    entry, location = find_entry(request.name)
    if location:
        return replace(request, name=place if entry is FILE else f"{entry.name}:{place}")
    return replace(request, checkpoint=Path(place))


def _sha256(decoder: Decoder) -> str:
    """What its spec says of its encoder; where that says nothing, a hash of its source and of all its weights."""
    if decoder.spec.encoder_sha256 is not None:
        return decoder.spec.encoder_sha256
    source = getattr(decoder, "source_sha256", None) or source_sha256(decoder)
    digest = hashlib.sha256(str(source).encode())
    for network in networks_of(decoder):
        for name, value in network.state_dict().items():
            digest.update(name.encode() + value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
