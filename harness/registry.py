"""Decoders by name: the built-in table, and the entry-point group `msbench.decoders` for anybody else's package."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from harness.decoder import Decoder, DecoderFactory, DecoderOptions, DecoderSpec
from harness.errors import MsbenchError, UnknownNameError, plugin_boundary

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


def decoder_entries() -> dict[str, DecoderEntry]:
    """Every decoder that can be asked for; a plug-in cannot take a built-in's name."""
    entries = {name: DecoderEntry(name, description, target, "msbench") for name, target, description in _BUILT_IN}
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
    factory = load_factory(entries[name])
    with plugin_boundary(f"decoder {name}", "its factory"):
        decoder = factory(options)
        if not isinstance(decoder, Decoder):
            raise MsbenchError(f"decoder {name!r} ({entries[name].target}) lacks spec, encode or decode")
        spec = checked_spec(name, decoder.spec)
        if spec is not decoder.spec:
            decoder.spec = spec
    return decoder


def load_factory(entry: DecoderEntry) -> DecoderFactory:
    """Import the factory of an entry; a plug-in's failure names the plug-in."""
    module_name, _, attribute = entry.target.partition(":")
    with plugin_boundary(f"decoder {entry.name} of {entry.origin}", f"loading {entry.target}"):
        target: Callable[..., object] = getattr(importlib.import_module(module_name), attribute)
    return cast(DecoderFactory, target)


def checked_spec(name: str, spec: object) -> DecoderSpec:
    """What a decoder says about itself, if every field is there and of its type; another object's fields are taken over.

    Raises:
        MsbenchError: a field is missing, or is not what it must be.
    """
    fields = dataclasses.fields(DecoderSpec)
    values: dict[str, Any] = {field.name: getattr(spec, field.name, field.default) for field in fields}
    if missing := [key for key, value in values.items() if value is dataclasses.MISSING]:
        raise MsbenchError(f"decoder {name}: its spec lacks {', '.join(missing)}")
    for key, (kind, low, high) in _SPEC.items():
        value = values[key]
        if value is None and key in _OPTIONAL:
            continue
        if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and not low <= value <= high):
            wanted = "a text" if kind is str else f"a whole number from {low:,} to {high:,}"
            raise MsbenchError(f"decoder {name}: its spec has {key} = {value!r}, wanted {wanted}")
    return spec if isinstance(spec, DecoderSpec) else DecoderSpec(**values)


_OPTIONAL = ("latent_channels", "weights_sha256", "encoder_sha256", "training_seed", "recipe_sha256")
_SPEC: dict[str, tuple[type, int, int]] = {
    "down_factor": (int, 1, 1024),
    "latent_channels": (int, 1, 2**20),
    "steps": (int, 0, 10**6),
    "scales": (int, 1, 64),
    "parameters": (int, 0, 10**15),
    "training_seed": (int, -(2**63), 2**63 - 1),
    **dict.fromkeys(("name", "weights_sha256", "encoder_sha256", "trained_on", "recipe_sha256"), (str, 0, 0)),
}
"""field of a spec -> its type, and least and largest number"""


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown distribution"
