"""`msbench doctor`: is this machine and installation ready for a run?"""

from __future__ import annotations

import importlib
import os
from dataclasses import asdict, dataclass
from importlib import metadata

import typer

from harness.cli.shared import JsonFlag, print_json, say
from harness.errors import MsbenchError

_LIBRARIES = ("torch", "torchvision", "torch_fidelity", "lpips", "skimage", "sklearn", "pandas", "pyarrow", "safetensors")


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    """what was looked at"""
    ok: bool
    """whether it is as it should be"""
    detail: str
    """what was found, and what to do where it is not ok"""


def doctor_command(as_json: JsonFlag = False) -> None:
    """Check this machine and installation: libraries, devices, weights, checkpoints; exit 1 where something is missing.

    \b
    Example:
      msbench doctor --json
    """
    checks = examine()
    for check in checks:
        say(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}", as_json)
    good = all(check.ok for check in checks)
    if as_json:
        status = "complete" if good else "failed"
        print_json({"schema_version": 1, "status": status, "results": [asdict(check) for check in checks]})
    if not good:
        raise typer.Exit(1)


def examine() -> list[Check]:
    """Look at libraries, devices, cache, metric weights and shipped checkpoints; fetches nothing."""
    from harness import weights
    from harness.environment import environment
    from harness.registry import decoder_entries

    checks = [_library(name) for name in _LIBRARIES]
    facts = environment()
    gpus = ", ".join(gpu["name"] for gpu in facts["gpus"]) or "none, decoders run on the CPU"
    checks.append(Check("machine", True, f"{facts['cpu_model']}, {facts['cpu_cores']} cores; GPUs: {gpus}"))
    cache = _cache()
    if cache.ok:
        for status in weights.verify():
            ok = status.state == "ok"
            detail = str(status.path) if ok else f"{status.state}; run: msbench weights fetch"
            checks.append(Check(f"weights {status.name}", ok, detail))
    shipped = [name for name, entry in decoder_entries().items() if entry.origin == "msbench" and entry.ships_weights]
    return [*checks, cache, *map(_decoder, shipped)]


def _cache() -> Check:
    from harness.files import cache_dir

    try:
        folder = cache_dir()
    except MsbenchError as error:
        return Check("cache", False, str(error))
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    writable = existing.is_dir() and os.access(existing, os.W_OK)
    return Check("cache", writable, f"{folder}{'' if writable else ' cannot be written: set MSBENCH_CACHE'}")


def _library(name: str) -> Check:
    try:
        importlib.import_module(name)
    except ImportError as error:
        return Check(name, False, f"{error}; run: pip install --upgrade msbench")
    distribution = (metadata.packages_distributions().get(name) or [name])[0]
    return Check(name, True, metadata.version(distribution))


def _decoder(name: str) -> Check:
    from harness.decoder import DecoderOptions
    from harness.registry import build_decoder

    try:
        spec = build_decoder(name, DecoderOptions()).spec
    except MsbenchError as error:
        return Check(f"decoder {name}", False, str(error))
    sha256 = f", weights {spec.weights_sha256[:12]}" if spec.weights_sha256 else ""
    return Check(f"decoder {name}", True, f"{spec.steps} steps, {spec.scales} scales{sha256}")
