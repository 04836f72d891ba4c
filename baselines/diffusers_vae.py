"""`sd-vae-arch` and `taesd-arch`: architectures of two well-known decoders, through `diffusers`, random weights, for cost only.

Time, FLOPs and memory of a network do not depend on its weights. What these decode is noise: a quality run refuses them.
At 256 px `harness.cost.flops` counts 622 GFLOPs an image for the first and 35.3 for the second, a multiply-add being two.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.options import refuse_sampling_options, require_multiple, spec_of
from harness.decoder import DecoderOptions, DecoderSpec, NoiseSource
from harness.errors import MsbenchError

_FACTOR = 8
_LATENT_CHANNELS = 4
_SEED = 0


class ArchitectureOnly:
    """A decoder with random weights behind the contract. Latents: [B, 4, H/8, W/8] in the arithmetic of the network.

    Args:
        network: latents -> [B, 3, 8h, 8w], in evaluation mode, on the device of the run.
        dtype: its arithmetic.
        spec: what the record says.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, spec: DecoderSpec) -> None:
        self.network = network
        self.dtype = dtype
        self.spec = spec

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] -> [B, 4, H/8, W/8]: 8×8 means of the three colours and of all; stands in for an encoder.

        Raises `MsbenchError` unless 8 divides H and W.
        """
        require_multiple(self.spec.name, images, _FACTOR)
        colours = functional.avg_pool2d(images, _FACTOR)
        return torch.cat([colours, colours.mean(dim=1, keepdim=True)], dim=1).to(self.dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        """[B, 4, h, w] -> float32 [B, 3, 8h, 8w] without meaning; deterministic, `noise` is not drawn from."""
        images: Tensor = self.network(latents.to(self.dtype))
        return images.float()


def _stable_diffusion(diffusers: Any) -> nn.Module:
    """The decoder of `AutoencoderKL`, its post-quant convolution included."""
    model = diffusers.AutoencoderKL(
        latent_channels=_LATENT_CHANNELS,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    return nn.Sequential(model.post_quant_conv, model.decoder)


def _taesd(diffusers: Any) -> nn.Module:
    """The decoder of `AutoencoderTiny`, the tiny stand-in for Stable Diffusion's VAE."""
    decoder: nn.Module = diffusers.AutoencoderTiny(latent_channels=_LATENT_CHANNELS).decoder
    return decoder


_NETWORKS: Mapping[str, Callable[[Any], nn.Module]] = {"sd-vae-arch": _stable_diffusion, "taesd-arch": _taesd}


def build(options: DecoderOptions) -> ArchitectureOnly:
    """The architecture called `options.name`, weights drawn from a fixed seed, torch's own generator left as it was.

    Raises `MsbenchError` for steps, scales or a checkpoint, and without `diffusers`.
    """
    name = options.name
    refuse_sampling_options(name, options)
    if options.checkpoint is not None:
        raise MsbenchError(
            f"decoder {name!r} has random weights only; leave --checkpoint out for it (got {options.checkpoint})"
        )
    try:
        diffusers = importlib.import_module("diffusers")
    except ImportError as error:
        raise MsbenchError(f"decoder {name!r} needs diffusers ({error}); run: pip install 'msbench[peers]'") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        built = _NETWORKS[name](diffusers)
    built.to(device=options.device, dtype=options.dtype).eval().requires_grad_(False)
    spec = spec_of(name, _FACTOR, _LATENT_CHANNELS, built, "random weights")
    return ArchitectureOnly(built, options.dtype, spec)
