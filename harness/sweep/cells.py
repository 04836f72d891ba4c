"""One cell of a sweep: the recipe that decides its figures, and how they are measured.

Quality comes from a whole run, whose folder stays, so that `msbench compare` and `claim` can read it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError

from harness.cost.attempt import is_out_of_memory
from harness.cost.cost import Cost, measure_cost, noise_for
from harness.cost.modes import parse_mode
from harness.data.registry import open_dataset
from harness.decoder import Decoder
from harness.files import safe_name
from harness.metrics.registry import METRICS
from harness.record.record import RECORD, Record, plain, read_record
from harness.record.schema import SCHEMA_VERSION
from harness.request.requests import DecoderRequest
from harness.run.config import dataset_request
from harness.run.runner import evaluate
from harness.sweep.plan import SweepCell, SweepRequest
from harness.sweep.weights import Fit

CELL_SCHEMA = 2
_COST = TypeAdapter(Cost)
COST_ONLY_RESOLUTION = 256


def data_recipe(request: SweepRequest) -> tuple[dict[str, Any], int]:
    """What the recipes of all cells with quality share, and the side of the images."""
    if request.cost_only:
        return {}, request.run.resolution or COST_ONLY_RESOLUTION
    dataset = open_dataset(dataset_request(request.run))
    keys = hashlib.sha256("".join(f"{entry.key}\0" for entry in dataset.entries).encode()).hexdigest()
    shared = {**asdict(dataset.info), "keys_sha256": keys, "seed": request.run.seed, "protocol": SCHEMA_VERSION}
    return shared, dataset.info.resolution


def recipe_of(
    request: SweepRequest, cell: SweepCell, fit: Fit, data: dict[str, Any], facts: dict[str, Any], resolution: int
) -> dict[str, Any]:
    """All that decides a cell's figures, in JSON types; cost depends on the machine, so it is part of it.

    Args:
        request, cell, fit: what is measured.
        data: from `data_recipe`, with the side of the images.
        facts: from `environment`.
        resolution: side of the images.
    """
    who = {
        "schema": CELL_SCHEMA,
        **({"asked": fit.request.asked(), "file": fit.file} if fit.request and (fit.request.asked() or fit.file) else {}),
        "model": fit.model,
        "scales": cell.scales,
        "steps": cell.steps,
        "weights": fit.weights,
        "weights_sha256": fit.spec.weights_sha256,
        "encoder_sha256": fit.spec.encoder_sha256,
        "dtype": str(request.run.dtype),
        "device": request.run.device,
        "machine": {name: facts[name] for name in ("cpu_model", "gpus", "torch", "torch_threads", "cuda", "msbench")},
    }
    cost = {"resolution": resolution, "modes": request.modes, "protocol": asdict(request.cost), "seed": request.run.seed}
    recipe: dict[str, Any] = plain({**who, "quality": data if _has_quality(request, fit) else None, "cost": cost})
    return recipe


def digest_of(recipe: dict[str, Any]) -> str:
    """SHA-256 of a recipe in its one JSON form, hexadecimal."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _has_quality(request: SweepRequest, fit: Fit) -> bool:
    return not request.cost_only and fit.weights != "random"


def cost_of(figures: dict[str, Any]) -> Cost:
    """The cost in a cell's figures; raises `ValidationError` where it is damaged."""
    return _COST.validate_python(figures.get("cost"), strict=False)


def read_cell(file: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """A cell's figures; None where they were not measured, or the file is damaged or of another recipe."""
    try:
        figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(figures, dict) or figures.get("recipe") != recipe:
            return None
        cost_of(figures)
    except (FileNotFoundError, ValueError, ValidationError):
        return None
    return figures


def measure_cell(
    request: SweepRequest, cell: SweepCell, fit: Fit, recipe: dict[str, Any], resolution: int, device: torch.device
) -> dict[str, Any]:
    """A cell's figures: spec, quality (None without trained weights) with its reason and its run's folder, and cost."""
    quality, reason, run = None, "quality was not asked for" if request.cost_only else fit.reason, None
    if _has_quality(request, fit):
        # Named after what quality depends on alone: another way of measuring cost finds the same run again.
        run = f"runs/{safe_name(fit.model)}-k{cell.scales}-n{cell.steps}-{digest_of({**recipe, 'cost': None})[:12]}"
        try:
            quality = _quality(_run(request, cell, fit, request.output_dir / run))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            run, reason = None, "the quality pass ran out of memory"
    decoder = _request(cell, fit).build(device, request.run.dtype, request.run.offline, resolution)
    latents = _latents(decoder, request, resolution, device)
    modes = [parse_mode(mode) for mode in request.modes]
    cost = measure_cost(decoder, latents, request.run.seed, request.cost, device, modes)
    return {"spec": asdict(decoder.spec), "quality": quality, "quality_reason": reason, "run": run, "cost": asdict(cost)}


def _request(cell: SweepCell, fit: Fit) -> DecoderRequest:
    """What is built for a cell."""
    if fit.request is not None:
        return fit.request
    weights: Literal["random"] | None = "random" if fit.weights == "random" else None
    return DecoderRequest(fit.model, fit.model, cell.steps, cell.scales, fit.checkpoint, weights)


def _run(request: SweepRequest, cell: SweepCell, fit: Fit, folder: Path) -> Record:
    """The run of a cell; one that was finished before its cell was written is taken as it is, one that ended early goes on."""
    begun = (folder / RECORD).is_file()
    if begun and (record := read_record(folder)).data.status == "complete":
        return record
    run = replace(request.run, decoders=(_request(cell, fit).text(),), output_dir=folder, cost=None, resume=begun)
    return evaluate(run)


def _quality(record: Record) -> dict[str, Any]:
    """n, every metric, their intervals and the hash of the protocol."""
    row = record.results[0]
    return {**{key: row[key] for key in ("n", *METRICS, "intervals") if key in row}, "protocol_hash": record.protocol_hash}


def _latents(decoder: Decoder, request: SweepRequest, resolution: int, device: torch.device) -> torch.Tensor:
    """Latents as a decoder gets them, of unit variance: what a GPU's time and power depend on is the same as with images."""
    noise = noise_for(request.run.seed, max(request.cost.batch_sizes, default=1), device)
    channels, side = decoder.spec.latent_channels, resolution // decoder.spec.down_factor
    if channels is not None:
        return noise.normal((channels, side, side), 0)
    return decoder.encode(noise.normal((3, resolution, resolution), 0).div(3.0).clamp(-1.0, 1.0))
