"""Decoders by name: the built-in table, and the entry-point group `msbench.decoders` for anybody else's package."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
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
    origin: str = "msbench"
    """"msbench" or the distribution that plugs it in"""
    ships_weights: bool = True
    """it builds as installed, without --checkpoint or an extra: its weights ship, or it has none"""
    cost_only: bool = False
    """its weights are random: what it costs means something, what it decodes does not"""
    ranked: bool = True
    """it competes for the best figure of a table's column"""
    single_scale: str | None = None
    """the decoder it is at K = 1, whose checkpoints fit it there: with one scale all paths are the same"""


_OURS = "decoders.models:build"
_UNSHIPPED = "(no weights shipped: needs --checkpoint)"
_ARCHITECTURE = "random weights: cost only (needs the extra `peers`)"
_BUILT_IN = (
    DecoderEntry("vae", "KL-VAE, f8c4: the autoencoder's own decoder, one pass", _OURS),
    DecoderEntry("diffusion", "full-resolution diffusion, 50 Euler steps", _OURS),
    DecoderEntry(
        "ms-diffusion", "multi-scale diffusion, the paper's pyramid flow, K = 3, 50 steps", _OURS, single_scale="diffusion"
    ),
    DecoderEntry(
        "ms-diffusion-cascade", "multi-scale diffusion, our cascade, K = 3, 50 steps", _OURS, single_scale="diffusion"
    ),
    DecoderEntry("onestep", "one-step student of `diffusion` (K = 1)", _OURS),
    DecoderEntry("ms-onestep", "one step a scale, student of `ms-diffusion-cascade` (K = 3)", _OURS, single_scale="onestep"),
    DecoderEntry("direct", "control: the same network without noise or teacher (K = 1)", _OURS),
    DecoderEntry(
        "ms-direct", f"control: `direct` at three scales {_UNSHIPPED}", _OURS, ships_weights=False, single_scale="direct"
    ),
    DecoderEntry("rate-bound", f"control: MSE alone, the PSNR these latents allow {_UNSHIPPED}", _OURS, ships_weights=False),
    DecoderEntry("vae-ft", f"control: `vae` tuned on its frozen encoder {_UNSHIPPED}", _OURS, ships_weights=False),
    DecoderEntry("bicubic", "8x down, bicubic up: the floor", "baselines.resampling:bicubic"),
    DecoderEntry("jpeg", "JPEG at the latents' bits (16 bits a number)", "baselines.jpeg:jpeg"),
    DecoderEntry(
        "identity", "the reference after its uint8 round trip: the error floor", "baselines.identity:identity", ranked=False
    ),
    DecoderEntry(
        "taef2",
        "pretrained tiny autoencoder for FLUX.2 latents (needs --checkpoint FOLDER)",
        "baselines.tae:taef2",
        ships_weights=False,
    ),
    DecoderEntry(
        "sd-vae-arch",
        f"Stable Diffusion's VAE decoder, {_ARCHITECTURE}",
        "baselines.diffusers_vae:build",
        ships_weights=False,
        cost_only=True,
    ),
    DecoderEntry(
        "taesd-arch", f"TAESD's decoder, {_ARCHITECTURE}", "baselines.diffusers_vae:build", ships_weights=False, cost_only=True
    ),
)


def decoder_entries() -> dict[str, DecoderEntry]:
    """Every decoder that can be asked for; a plug-in cannot take a built-in's name."""
    entries = {entry.name: entry for entry in _BUILT_IN}
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
    decoder = load_factory(entries[name])(replace(options, name=name))
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
