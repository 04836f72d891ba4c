"""Decoders by name: the built-in table, and the entry-point group `msbench.decoders` for anybody else's package."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from pydantic import TypeAdapter, ValidationError

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
    origin: str = "msbench"
    """"msbench" or the distribution that plugs it in"""
    ships_weights: bool = True
    """it builds as installed, without --checkpoint or an extra: its weights ship, or it has none"""
    cost_only: bool = False
    """its weights are random: what it costs means something, what it decodes does not"""
    single_scale: str | None = None
    """the decoder it is at K = 1, whose checkpoints fit it there: with one scale all paths are the same"""
    own: tuple[str, ...] = ()
    """options that only this decoder has, beside those of `DecoderOptions`; its factory checks their values"""


_OURS, _DIFFUSERS, _PCA = "decoders.models:build", "baselines.diffusers_model:build", "baselines.pca:pca"
_unshipped = partial(DecoderEntry, ships_weights=False)
_denoiser = partial(DecoderEntry, target=_OURS, own=("encoder",))
"""`encoder` is where the weights of the encoder lie whose latents it was trained on"""
_NEEDS = "(no weights shipped: needs --checkpoint)"
_ARCHITECTURE = "random weights: cost only (needs the extra `diffusers`)"
_BUILT_IN = (
    DecoderEntry("vae", "KL-VAE, f8c16: the autoencoder's own decoder, one pass", _OURS),
    _denoiser("diffusion", "full-resolution diffusion, 50 Euler steps"),
    _denoiser("ms-diffusion", "multi-scale diffusion, the paper's pyramid flow, K = 3, 50 steps", single_scale="diffusion"),
    _denoiser("ms-diffusion-cascade", "multi-scale diffusion, our cascade, K = 3, 50 steps", single_scale="diffusion"),
    _denoiser("onestep", "one-step student of `diffusion` (K = 1)"),
    _denoiser("ms-onestep", "one step a scale, student of `ms-diffusion` (K = 3)", single_scale="onestep"),
    _denoiser("direct", "control: the same network without noise or teacher (K = 1)"),
    _denoiser(
        "ms-onestep-cascade",
        f"one step a scale, student of `ms-diffusion-cascade` {_NEEDS}",
        ships_weights=False,
        single_scale="onestep",
    ),
    _denoiser("ms-direct", f"control: `direct` at three scales {_NEEDS}", ships_weights=False, single_scale="direct"),
    _denoiser("rate-bound", f"control: MSE alone, the PSNR these latents allow {_NEEDS}", ships_weights=False),
    _unshipped("vae-ft", f"control: `vae` tuned on its frozen encoder {_NEEDS}", _OURS),
    DecoderEntry("bicubic", "8x down, bicubic up: the floor", "baselines.resampling:bicubic"),
    DecoderEntry("pca-f8c4", "PCA of 8x8 cells to 4 numbers: the best linear code at f8c4's rate", _PCA),
    DecoderEntry("pca-f8c16", "PCA of 8x8 cells to 16 numbers: the best linear code at f8c16's rate", _PCA),
    _unshipped("pca", "PCA of cells at any rate (needs --checkpoint; `train-decoder pca-fFcC` fits one)", _PCA),
    DecoderEntry("jpeg", "JPEG at one bit a pixel, or at bits_per_pixel=N", "baselines.jpeg:jpeg", own=("bits_per_pixel",)),
    DecoderEntry("identity", "the reference after its uint8 round trip: the error floor", "baselines.identity:identity"),
    _unshipped("taef2", "pretrained tiny autoencoder for FLUX.2 latents (needs --checkpoint FOLDER)", "baselines.tae:taef2"),
    _unshipped("sd-vae-arch", f"Stable Diffusion's VAE decoder, {_ARCHITECTURE}", _DIFFUSERS, cost_only=True),
    _unshipped("taesd-arch", f"TAESD's decoder, {_ARCHITECTURE}", _DIFFUSERS, cost_only=True),
    _unshipped("flux2-vae-arch", f"FLUX.2's VAE decoder with its patches, {_ARCHITECTURE}", _DIFFUSERS, cost_only=True),
    _unshipped("dc-ae-arch", f"DC-AE's decoder, f32c32 as SANA has it, {_ARCHITECTURE}", _DIFFUSERS, cost_only=True),
)

KINDS: dict[str, DecoderEntry] = {
    "diffusers": _unshipped(
        "diffusers",
        "an autoencoder of diffusers, diffusers:FOLDER_OR_REPOSITORY[#SUBFOLDER] (needs the extra `diffusers`)",
        _DIFFUSERS,
        own=("revision", "posterior", "tiling"),
    ),
    "images": DecoderEntry(
        "images", "finished reconstructions, images:DIR, a folder, a tar or an .npz", "baselines.images:images", own=("match",)
    ),
}
"""decoders asked for as KIND:LOCATION, by kind"""
FILE = DecoderEntry(
    "FILE.py", "a model in a file of yours", "harness.request.model_file:build", own=("range", "trained_on", "down_factor")
)
"""decoders asked for by the path of a file, FILE.py or FILE.py:ATTRIBUTE"""


def decoder_entries() -> dict[str, DecoderEntry]:
    """Every decoder that can be asked for; a plug-in cannot take a built-in's name."""
    entries = {entry.name: entry for entry in _BUILT_IN}
    for point in entry_points(group=GROUP):
        if point.name not in entries:
            entries[point.name] = DecoderEntry(point.name, "plug-in", point.value, _origin(point))
    return entries


def name_clashes(names: Iterable[str]) -> list[str]:
    """One line for each plug-in that has one of these names and is not what the name stands for."""
    entries, lines = decoder_entries(), []
    for point in entry_points(group=GROUP):
        used, wanted = entries.get(point.name), (point.value, _origin(point))
        if point.name in names and used is not None and (used.target, used.origin) != wanted:
            lines.append(f"decoder {point.name}: {wanted[1]}'s plug-in ({point.value}) is not used: {used.origin} has the name")
    return lines


def build_decoder(name: str, options: DecoderOptions) -> Decoder:
    """Find a decoder's factory and build it.

    Raises:
        UnknownNameError: no such decoder.
        MsbenchError: the options do not fit, or a plug-in cannot be loaded.
    """
    entry, location = find_entry(name)
    return build_by(load_factory(entry), entry.target, replace(options, name=name, location=location))


def build_by(factory: DecoderFactory, target: str, options: DecoderOptions) -> Decoder:
    """What a factory makes, checked; `target` says in messages which factory that is.

    Raises:
        MsbenchError: the factory raised, or what it made is no decoder.
    """
    name = options.name
    with plugin_boundary(f"decoder {name}", "its factory"):
        decoder = factory(options)
        if not isinstance(decoder, Decoder):
            raise MsbenchError(f"decoder {name!r} ({target}) lacks spec, encode or decode")
        spec = checked_spec(name, decoder.spec)
        if spec is not decoder.spec:
            decoder.spec = spec
    return decoder


def find_entry(name: str) -> tuple[DecoderEntry, str]:
    """The entry that NAME, KIND:LOCATION or the path of a file stands for, and the location.

    Raises:
        UnknownNameError: there is none.
    """
    kind, colon, location = name.partition(":")
    if colon and kind in KINDS:
        return KINDS[kind], location
    if re.search(r"\.py(:\w+)?$", name):
        return FILE, name
    entries = decoder_entries()
    if name not in entries:
        raise UnknownNameError("decoder", name, [*entries, *(f"{kind}:…" for kind in KINDS)])
    return entries[name], ""


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
    told = {one.name: getattr(spec, one.name) for one in fields(DecoderSpec) if hasattr(spec, one.name)}
    try:
        found = _SPEC.validate_python(told)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        if missing := [str(one["loc"][0]) for one in problems if one["type"] == "missing"]:
            raise MsbenchError(f"decoder {name}: its spec lacks {', '.join(missing)}") from error
        field, value, why = problems[0]["loc"][0], problems[0]["input"], problems[0]["msg"]
        raise MsbenchError(f"decoder {name}: its spec has {field} = {value!r}: {why}") from error
    return spec if isinstance(spec, DecoderSpec) and spec == found else found


_SPEC = TypeAdapter(DecoderSpec)


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown distribution"
