"""Which weights a cell of a sweep is measured with: trained ones where a checkpoint fits decoder and scales, else random ones.

A checkpoint says in its safetensors metadata which decoder it was trained as and for how many scales; whether it really fits is
for the decoder's own factory to say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from harness.decoder import DecoderOptions, DecoderSpec
from harness.errors import MsbenchError
from harness.files import sha256_file
from harness.registry import build_decoder, decoder_entries
from harness.request.requests import DecoderRequest


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint file and what it says of itself."""

    path: Path
    """the file"""
    decoder: str
    """registry name it was trained as"""
    scales: int
    """K it was trained for"""


@dataclass(frozen=True, slots=True)
class Fit:
    """The weights of one (decoder, K)."""

    model: str
    """name it is built under, of a baseline its label; another than asked for where a multi-scale decoder has K = 1"""
    weights: Literal["trained", "random", "none"]
    """"none" where the decoder has no weights file at all"""
    checkpoint: Path | None
    """file given to the factory; None = the shipped weights or none"""
    spec: DecoderSpec
    """of the decoder as it was built to see whether it fits"""
    reason: str | None
    """why no trained weights fit; None where some do"""
    default_network: bool = True
    """the network is the one that random weights are built for, as far as the number of parameters tells"""
    request: DecoderRequest | None = None
    """what was asked of a baseline; None in the grid"""
    file: str | None = None
    """SHA-256 of the file that a baseline comes from"""


def find_checkpoints(folder: Path) -> tuple[Found, ...]:
    """Every checkpoint of this project below `folder`, in the order of paths; safetensors files of others are left out.

    Raises:
        MsbenchError: no such folder, or a file that is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not folder.is_dir():
        raise MsbenchError(f"--checkpoint-dir {folder}: no such folder")
    found = []
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise MsbenchError(f"{path} is not a readable safetensors file ({error}); remove it or fetch it again") from error
        try:
            manifest = json.loads(metadata.get("manifest", "{}"))
            found.append(Found(path, str(manifest["decoder"]), int(manifest["config"].get("scales", 1))))
        except (KeyError, TypeError, ValueError, AttributeError):
            continue  # another tool's file: it does not claim to be a checkpoint of a decoder here
    return tuple(found)


def fit_weights(decoder: str, scales: int, steps: int, found: Sequence[Found], trained: bool = True) -> Fit:
    """The weights for `decoder` with K scales and N steps: a checkpoint among `found`, else the shipped one, else random.

    Without `trained` the shipped one is passed over, so that without `found` every K has the same, default network.

    Raises:
        UnknownNameError: no such decoder.
        MsbenchError: the decoder cannot be built for these at all, several different checkpoints fit, or the one that says it
            fits cannot be used.
    """
    entry = decoder_entries().get(decoder)
    names = [decoder, entry.single_scale] if scales == 1 and entry and entry.single_scale else [decoder]
    for name in names:
        path = _only_one(name, scales, found)
        if path is not None:
            spec = _spec(name, DecoderOptions(checkpoint=path, steps=steps, scales=scales))
            return Fit(name, "trained", path, spec, None, _is_default(spec))
    refusals = []
    for name in names if trained else ():
        try:
            spec = _spec(name, DecoderOptions(steps=steps, scales=scales))
        except MsbenchError as error:
            refusals.append(_without_folders(str(error)))
        else:
            return Fit(name, "none" if spec.weights_sha256 is None else "trained", None, spec, None, _is_default(spec))
    spec = _spec(decoder, DecoderOptions(steps=steps, scales=scales, weights="random"))
    why = f": {refusals[0]}" if refusals else ""
    return Fit(decoder, "random", None, spec, f"no trained checkpoint of {decoder} for K = {scales}{why}")


def fit_baseline(asked: DecoderRequest) -> Fit:
    """A decoder as it ships or with the options given, with its own scales and steps.

    Raises:
        MsbenchError: it cannot be built so.
    """
    decoder = asked.build(torch.device("cpu"), torch.float32)
    spec, label, file = decoder.spec, asked.label, getattr(decoder, "source_sha256", None)
    if spec.trained_on == "random weights":
        return Fit(label, "random", asked.checkpoint, spec, f"{label} has random weights only", request=asked)
    weights: Literal["trained", "none"] = "none" if spec.weights_sha256 is None else "trained"
    return Fit(label, weights, asked.checkpoint, spec, None, request=asked, file=file)


def _only_one(decoder: str, scales: int, found: Sequence[Found]) -> Path | None:
    """The one file trained as `decoder` for K; files named after the decoder go before others, such as earlier snapshots."""
    fitting = [one.path for one in found if (one.decoder, one.scales) == (decoder, scales)]
    named = [path for path in fitting if path.stem == decoder] or fitting
    different = {sha256_file(path): path for path in reversed(named)}
    if len(different) > 1:
        first, second, *_ = sorted(different.values())
        raise MsbenchError(f"{first} and {second} are both {decoder} for K = {scales}: --checkpoint-dir must hold one")
    return named[0] if named else None


def _is_default(spec: DecoderSpec) -> bool:
    """Whether random weights would be built for the same network."""
    try:
        default = build_decoder(spec.name, DecoderOptions(steps=spec.steps, scales=spec.scales, weights="random")).spec
    except MsbenchError:
        return False  # no random weights for this decoder, so nothing is built by default
    return default.parameters == spec.parameters


def _spec(name: str, options: DecoderOptions) -> DecoderSpec:
    """What is built; raises `MsbenchError` where it is not what was asked for."""
    spec = build_decoder(name, options).spec
    if (spec.steps, spec.scales) != (options.steps, options.scales):
        raise MsbenchError(
            f"{name} has K = {spec.scales}, N = {spec.steps}, asked for K = {options.scales}, N = {options.steps}"
        )
    return spec


def _without_folders(text: str) -> str:
    """Absolute paths cut to their last part: a reason goes into tables that are published."""
    return " ".join(Path(word).name if word.startswith("/") else word for word in text.split(" "))
