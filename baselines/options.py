"""What every baseline does: refuse options that have no meaning for it before it builds anything, and say what it is."""

from __future__ import annotations

from torch import Tensor, nn

from harness.decoder import DecoderOptions, DecoderSpec
from harness.errors import MsbenchError


def spec_of(
    name: str,
    down_factor: int,
    latent_channels: int | None,
    network: nn.Module | None = None,
    trained_on: str = "nothing",
    weights_sha256: str | None = None,
    encoder_sha256: str | None = None,
) -> DecoderSpec:
    """The spec of a decoder of one scale whose `network` is called once an image; None = nothing learned."""
    parameters = sum(parameter.numel() for parameter in network.parameters()) if network else 0
    steps = int(network is not None)
    return DecoderSpec(name, down_factor, latent_channels, steps, 1, parameters, weights_sha256, encoder_sha256, trained_on)


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
        raise MsbenchError(f"decoder {name!r} needs sides in multiples of {factor}, got {height}x{width}; change --resolution")
