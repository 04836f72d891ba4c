"""Decoders by name: the built-in table, and the entry-point group `msbench.decoders` for anybody else's package."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from harness.decoder import Decoder, DecoderFactory, DecoderOptions
from harness.errors import MsbenchError, UnknownNameError

GROUP = "msbench.decoders"


@dataclass(frozen=True, slots=True)
class DecoderEntry:
    """A decoder that can be asked for."""

    name: str
    """registry name"""
    description: str
    """one line for `msbench ls decoders`"""
    target: str
    """"module:attribute" of its factory"""
    origin: str
    """"msbench" or the distribution that plugs it in"""
    single_scale: str | None = None
    """the decoder it is at K = 1, whose checkpoints fit it there: with one scale all paths are the same"""


_BUILT_IN = (
    ("vae", "decoders.models:vae", "KL-VAE, f8c4: the autoencoder's own decoder, one pass"),
    ("diffusion", "decoders.models:diffusion", "full-resolution diffusion, 50 Euler steps"),
    ("ms-diffusion", "decoders.models:ms_diffusion", "multi-scale diffusion, the paper's pyramid flow, K = 3, 50 steps"),
    (
        "ms-diffusion-cascade",
        "decoders.models:ms_diffusion_cascade",
        "multi-scale diffusion, our cascade, K = 3, 50 steps",
    ),
    ("onestep", "decoders.models:onestep", "one-step student of `diffusion` (K = 1)"),
    ("ms-onestep", "decoders.models:ms_onestep", "one step a scale, student of `ms-diffusion-cascade` (K = 3)"),
    ("direct", "decoders.models:direct", "control: the same network without noise or teacher (K = 1)"),
    ("ms-direct", "decoders.models:ms_direct", "control: `direct` at three scales (no weights shipped: needs --checkpoint)"),
    (
        "rate-bound",
        "decoders.models:rate_bound",
        "control: MSE alone, the PSNR these latents allow (no weights shipped: needs --checkpoint)",
    ),
    ("vae-ft", "decoders.models:vae_ft", "control: `vae` tuned on its frozen encoder (no weights shipped: needs --checkpoint)"),
    ("bicubic", "baselines.resampling:bicubic", "8x down, bicubic up: the floor"),
    ("jpeg", "baselines.jpeg:jpeg", "JPEG at the latents' bits (16 bits a number)"),
    (
        "identity",
        "baselines.identity:identity",
        "the reference after its uint8 round trip: the error floor",
    ),
    ("taef2", "baselines.tae:taef2", "pretrained tiny autoencoder for FLUX.2 latents (needs --checkpoint FOLDER)"),
    (
        "sd-vae-arch",
        "baselines.diffusers_vae:sd_vae_arch",
        "Stable Diffusion's VAE decoder, random weights: cost only (needs the extra `peers`)",
    ),
    (
        "taesd-arch",
        "baselines.diffusers_vae:taesd_arch",
        "TAESD's decoder, random weights: cost only (needs the extra `peers`)",
    ),
)


_SINGLE_SCALE = {
    "ms-diffusion": "diffusion",
    "ms-diffusion-cascade": "diffusion",
    "ms-onestep": "onestep",
    "ms-direct": "direct",
}


def decoder_entries() -> dict[str, DecoderEntry]:
    """Every decoder that can be asked for; a plug-in cannot take a built-in's name."""
    entries = {
        name: DecoderEntry(name, description, target, "msbench", _SINGLE_SCALE.get(name))
        for name, target, description in _BUILT_IN
    }
    for point in entry_points(group=GROUP):
        if point.name not in entries:
            entries[point.name] = DecoderEntry(point.name, "plug-in", point.value, _origin(point))
    return entries


def build_decoder(name: str, options: DecoderOptions) -> Decoder:
    """Find a decoder's factory and build it.

    Raises:
        UnknownNameError: no such decoder.
        MsbenchError: the options do not fit, or a plug-in cannot be loaded.
    """
    entries = decoder_entries()
    if name not in entries:
        raise UnknownNameError("decoder", name, entries)
    decoder = load_factory(entries[name])(options)
    if not isinstance(decoder, Decoder):
        raise MsbenchError(f"decoder {name!r} ({entries[name].target}) lacks spec, encode or decode")
    return decoder


def load_factory(entry: DecoderEntry) -> DecoderFactory:
    """Import the factory of an entry; a plug-in's failure names the plug-in."""
    module_name, _, attribute = entry.target.partition(":")
    try:
        target: Callable[..., object] = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise MsbenchError(f"decoder {entry.name!r} of {entry.origin}: cannot load {entry.target} ({error})") from error
    return cast(DecoderFactory, target)


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown distribution"
