"""What the decoder tells once it is built again: facts, hashes, parameters, FLOPs; and the statistics of its timings."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor

from harness.cost.flops import count_flops
from harness.decoder import Decoder, DecoderSpec
from harness.noise import SampleNoise
from harness.record.rebuilt import HASHES, other_weights
from harness.record.run import Run
from harness.record.schema import Result
from harness.run.rate import count_code, new_count, rate_of
from harness.verify.check import Check, close, same, unchecked

# older weights do not say; `coverage` finds the numbers of codebooks
_MAY_LACK = [one.name for one in fields(DecoderSpec) if one.default is None and one.name != "codebook_sizes"]


def built_checks(run: Run, result: Result, built: Decoder | str) -> list[Check]:
    """Checks against the decoder built again, or, where that failed, the reason (`built` is then a text)."""
    label, details = result.label, run.record.data.decoders[result.label]
    facts: dict[str, Any] = {} if isinstance(built, str) else asdict(built.spec)
    why, gflops = "", None
    if isinstance(built, str):
        why = built
    elif other_weights(run, result, built):
        why = "the checkpoint or the file here is another one (weights_sha256, source_sha256)"
    elif details.cost is not None:
        gflops = _gflops(run, built)
    numbers: dict[str, Any] = {
        f"details.spec.{name}": value
        for name, value in asdict(details.spec).items()
        if name in HASHES or (name in _MAY_LACK and value) or (isinstance(value, int) and not isinstance(value, bool))
    }
    numbers["parameters"] = result.parameters
    if details.cost is not None:
        numbers |= {"details.cost.parameters": details.cost.parameters}
        numbers |= {"gflops": result.gflops, "details.cost.gflops": details.cost.gflops}
    checks = []
    for number, value in numbers.items():
        name = number.rpartition(".")[2]
        if why and not (facts and name in HASHES):
            checks.append(unchecked(label, number, value, why))
        elif name == "gflops":
            how, reason = "counted again (same code, torch's counter)", "a count of whole operations"
            checks.append(close(label, number, value, gflops, how, relative=1e-9, reason=reason))
        else:
            checks.append(same(label, number, value, facts.get(name), "the decoder built again"))
    return checks + ([] if isinstance(built, str) or why else _rate_checks(run, result, built))


def latency_checks(run: Run, result: Result) -> list[Check]:
    """Medians from the kept samples, and the times an image that follow from them."""
    checks: list[Check] = []
    cost, how = run.record.data.decoders[result.label].cost, "statistics.median of samples_ms"
    for index, cell in enumerate(cost.cells if cost else ()):
        if cell.latency is not None and cell.latency.samples_ms:
            median, batch = statistics.median(cell.latency.samples_ms), cell.batch_size
            numbers = {f"details.cost.cells.{index}.latency.median_ms": (cell.latency.median_ms, median)}
            numbers[f"ms_per_image.{batch}"] = result.ms_per_image.get(str(batch), math.nan), median / batch
            checks += [close(result.label, key, *pair, how, relative=1e-9, reason="float64") for key, pair in numbers.items()]
    return checks


def _rate_checks(run: Run, result: Result, built: Decoder) -> list[Check]:
    """Bits of latents and of tokens, which do not depend on the pixels; those of files do."""
    if result.rate is None or result.rate.kind == "files":
        return []
    count = new_count()
    count_code(count, built, _black(run, built), (run.record.data.protocol.resolution,) * 2)
    again = rate_of(count, built.spec)
    if again is None:
        return []
    pairs = {name: (getattr(result.rate, name), getattr(again, name)) for name in ("bits_per_image", "bits_per_pixel")}
    pairs["tokens"] = result.rate.tokens, again.tokens * result.n
    how = "latents of a black image"
    return [close(result.label, f"rate.{name}", *pair, how, relative=1e-9, reason="float64") for name, pair in pairs.items()]


def _gflops(run: Run, built: Decoder) -> float | None:
    """Counted on a black image: FLOPs do not depend on the pixels."""
    return count_flops(built, _black(run, built), SampleNoise.for_samples(0, ["verify"]))


def _black(run: Run, built: Decoder) -> Tensor:
    """Latents of a black image of the run's size."""
    side = run.record.data.protocol.resolution
    side += -side % built.spec.down_factor
    with torch.inference_mode():
        return built.encode(torch.full((1, 3, side, side), -1.0))
