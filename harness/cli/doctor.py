"""`msbench doctor`: is this machine and installation ready for a run?"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from importlib import metadata

from harness import weights
from harness.decoder import DecoderOptions
from harness.environment import environment
from harness.errors import MsbenchError
from harness.files import cache_dir
from harness.registry import build_decoder, decoder_entries

_LIBRARIES = ("torch", "torchvision", "torch_fidelity", "lpips", "skimage", "sklearn", "pandas", "pyarrow", "safetensors")
_SHIPS_NO_WEIGHTS = frozenset({"taef2", "ms-direct", "rate-bound", "vae-ft", "sd-vae-arch", "taesd-arch"})
"""decoders that want --checkpoint, or an extra and random weights: their absence is no fault of an installation"""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    """what was looked at"""
    ok: bool
    """whether it is as it should be"""
    detail: str
    """what was found, and what to do where it is not ok"""


def examine() -> list[Check]:
    """Look at libraries, devices, cache, metric weights and shipped checkpoints; fetches nothing."""
    facts = environment()
    checks = [_library(name) for name in _LIBRARIES]
    gpus = ", ".join(gpu["name"] for gpu in facts["gpus"]) or "none, decoders run on the CPU"
    checks.append(Check("machine", True, f"{facts['cpu_model']}, {facts['cpu_cores']} cores; GPUs: {gpus}"))
    writable = os.access(_existing(cache_dir()), os.W_OK)
    checks.append(Check("cache", writable, f"{cache_dir()}{'' if writable else ' cannot be written: set MSBENCH_CACHE'}"))
    for status in weights.verify():
        ok = status.state == "ok"
        checks.append(
            Check(f"weights {status.name}", ok, str(status.path) if ok else f"{status.state}; run: msbench weights fetch")
        )
    for name, entry in decoder_entries().items():
        if name not in _SHIPS_NO_WEIGHTS and entry.origin == "msbench":
            checks.append(_decoder(name))
    return checks


def _library(name: str) -> Check:
    try:
        importlib.import_module(name)
    except ImportError as error:
        return Check(name, False, f"{error}; run: pip install --upgrade msbench")
    distribution = (metadata.packages_distributions().get(name) or [name])[0]
    return Check(name, True, metadata.version(distribution))


def _decoder(name: str) -> Check:
    try:
        spec = build_decoder(name, DecoderOptions()).spec
    except MsbenchError as error:
        return Check(f"decoder {name}", False, str(error))
    sha256 = f", weights {spec.weights_sha256[:12]}" if spec.weights_sha256 else ""
    return Check(f"decoder {name}", True, f"{spec.steps} steps, {spec.scales} scales{sha256}")


def _existing(path: os.PathLike[str]) -> str:
    """The path itself or its nearest parent that exists."""
    text = os.fspath(path)
    while not os.path.exists(text):
        text = os.path.dirname(text)
    return text
