"""Checks every baseline makes before it builds anything: options without a meaning here are refused, not ignored."""

from __future__ import annotations

from torch import Tensor

from harness.decoder import DecoderOptions, DecoderSpec
from harness.errors import MsbenchError


def without_network(name: str, down_factor: int, latent_channels: int | None) -> DecoderSpec:
    """The spec of a decoder that has neither a network nor anything learned."""
    return DecoderSpec(
        name=name,
        down_factor=down_factor,
        latent_channels=latent_channels,
        steps=0,
        scales=1,
        parameters=0,
        weights_sha256=None,
        encoder_sha256=None,
        trained_on="nothing",
    )


def refuse_sampling_options(name: str, options: DecoderOptions) -> None:
    """Raise `MsbenchError` where `steps`, `scales` or `preset` is set: nothing in `baselines` samples or comes in sizes."""
    for option in ("steps", "scales", "preset"):
        if getattr(options, option) is not None:
            raise MsbenchError(f"decoder {name!r} has no {option} to set; leave {option} out for it")


def refuse_network_options(name: str, options: DecoderOptions) -> None:
    """Raise `MsbenchError` for any option that only a network has. `dtype` passes: these decoders compute in float32 always."""
    refuse_sampling_options(name, options)
    if options.checkpoint is not None:
        raise MsbenchError(f"decoder {name!r} has no weights; leave --checkpoint out for it (got {options.checkpoint})")
    if options.weights != "trained":
        raise MsbenchError(f"decoder {name!r} has no weights to draw at random; leave weights={options.weights!r} out for it")


def require_multiple(name: str, images: Tensor, factor: int) -> None:
    """Raise `MsbenchError` unless `images` [B, 3, H, W] has H and W in multiples of `factor`."""
    height, width = images.shape[-2:]
    if height % factor or width % factor:
        raise MsbenchError(
            f"decoder {name!r} needs sides in multiples of {factor}, got {height}x{width}; choose another --resolution"
        )
