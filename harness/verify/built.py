"""What the decoder tells once it is built again: facts, hashes, parameters, FLOPs; and the statistics of its timings."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.cost.flops import count_flops
from harness.decoder import Decoder
from harness.noise import SampleNoise
from harness.verify.check import Check, close, same, unchecked
from harness.verify.opened import Opened

_HASHES = ("weights_sha256", "encoder_sha256")
_TIMES = "statistics of float64 samples by another library"


def built_checks(opened: Opened, decoder: str, built: Decoder | str) -> list[Check]:
    """Checks against the decoder built again, or, where that failed, the reason (`built` is then a text)."""
    row, details = opened.rows[decoder], opened.details(decoder)
    spec: Mapping[str, Any] = details.get("spec") or {}
    cost = details.get("cost") or {}
    numbers = {f"details.spec.{name}": value for name, value in spec.items() if _is_fact(name, value)}
    numbers["parameters"] = row.get("parameters")
    if cost:
        numbers |= {"details.cost.parameters": cost.get("parameters")}
        numbers |= {"gflops": row.get("gflops"), "details.cost.gflops": cost.get("gflops")}
    if isinstance(built, str):
        return [unchecked(decoder, number, value, built) for number, value in numbers.items()]
    facts = asdict(built.spec)
    checks = [_hash_check(opened, decoder, name, spec.get(name), facts[name]) for name in _HASHES]
    if other_checkpoint(opened, decoder, built):
        why = "the checkpoint here is another one (weights_sha256)"
        rest = {number: value for number, value in numbers.items() if number.rpartition(".")[2] not in _HASHES}
        return checks + [unchecked(decoder, number, value, why) for number, value in rest.items()]
    gflops = _gflops(opened, built) if cost else None
    for number, value in numbers.items():
        name = number.rpartition(".")[2]
        if name == "gflops":
            how = "counted again (same code, torch's counter)"
            checks.append(close(decoder, number, value, gflops, how, relative=1e-9, reason="a count of whole operations"))
        elif name not in _HASHES:
            checks.append(same(decoder, number, value, facts.get(name), "the decoder built again"))
    return checks


def other_checkpoint(opened: Opened, decoder: str, built: Decoder) -> bool:
    """The decoder at hand has other weights than the run's."""
    spec = opened.details(decoder).get("spec") or {}
    return any(spec.get(name) != getattr(built.spec, name) for name in _HASHES)


def latency_checks(opened: Opened, decoder: str) -> list[Check]:
    """Medians and percentiles from the kept samples, and the times an image that follow from them."""
    row, cost = opened.rows[decoder], opened.details(decoder).get("cost") or {}
    checks: list[Check] = []
    asked = (opened.data["config"].get("cost") or {}).get("batch_sizes") or []
    for index, cell in enumerate(cost.get("cells") or []):
        base = f"details.cost.cells.{index}"
        batch = dict(enumerate(asked)).get(index)
        checks.append(same(decoder, f"{base}.batch_size", cell.get("batch_size"), batch, "config.cost.batch_sizes"))
        latency = cell.get("latency")
        if not latency or not latency.get("samples_ms") or not batch:
            continue
        checks += _cell_checks(decoder, f"{base}.latency", latency)
        each = statistics.median(latency["samples_ms"]) / batch
        for number, held in ((f"ms_per_image.{batch}", row), (f"details.cost.ms_per_image.{batch}", cost)):
            recorded = (held.get("ms_per_image") or {}).get(str(batch))
            how = "statistics.median of samples / batch"
            checks.append(close(decoder, number, recorded, each, how, relative=1e-9, reason=_TIMES))
    return checks


def _cell_checks(decoder: str, base: str, latency: Mapping[str, Any]) -> list[Check]:
    import pandas as pd

    samples = latency["samples_ms"]
    series = pd.Series(samples)
    wanted = {
        "median_ms": (statistics.median(samples), "statistics.median of samples"),
        **{f"p{share}_ms": (float(series.quantile(share / 100)), "pandas quantile of samples") for share in (10, 90, 99)},
    }
    checks = [
        close(decoder, f"{base}.{name}", latency.get(name), value, how, relative=1e-9, reason=_TIMES)
        for name, (value, how) in wanted.items()
    ]
    return [*checks, same(decoder, f"{base}.n_calls", latency.get("n_calls"), len(samples), "number of kept samples")]


def _hash_check(opened: Opened, decoder: str, name: str, recorded: Any, rebuilt: str | None) -> Check:
    """A weights hash: of the given file where one was given, else as the decoder hashes what it ships with."""
    number, given = f"details.spec.{name}", opened.data["config"].get("checkpoint")
    if name == "weights_sha256" and given and Path(given).is_file():
        digest = hashlib.sha256(Path(given).read_bytes()).hexdigest()
        return same(decoder, number, recorded, digest, f"SHA-256 of {given}")
    return same(decoder, number, recorded, rebuilt, "its file, hashed on building again")


def _gflops(opened: Opened, built: Decoder) -> float | None:
    """Counted on a black image of the run's size: FLOPs do not depend on the pixels."""
    import torch

    factor = built.spec.down_factor
    side = int(opened.data["protocol"]["resolution"])
    side += -side % factor
    with torch.inference_mode():
        latents = built.encode(torch.full((1, 3, side, side), -1.0))
    return count_flops(built, latents, SampleNoise.for_samples(0, ["verify"]))


def _is_fact(name: str, value: Any) -> bool:
    if name == "recipe_sha256":
        return value is not None  # older weights do not say
    return name in _HASHES or (isinstance(value, (int, float)) and not isinstance(value, bool))
