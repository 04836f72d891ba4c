"""One training run from names to files: data, objective, budget, checkpoint, model card."""

from __future__ import annotations

import copy
import hashlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from decoders.autoencoder import Autoencoder
from decoders.checkpoint import Manifest, save_checkpoint, shipped_path
from decoders.training.autoencoder import set_latent_statistics
from decoders.training.build import Assembly, Plan, assemble, plan
from decoders.training.card import read_curves, write_card
from decoders.training.data import TrainingImages, load_training_images
from decoders.training.distributed import Group, current_group
from decoders.training.request import TrainRequest, configured, trainable_decoders
from decoders.training.samples import write_samples
from decoders.training.state import load_snapshot
from decoders.training.trainer import TrainResult, check_budget, train
from harness.environment import environment
from harness.errors import UnknownNameError
from harness.files import sha256_file, write_bytes
from harness.metrics.lpips import Lpips


def run_training(
    request: TrainRequest, report: Callable[[str], None], on_step: Callable[[int, float, float], None] | None
) -> Path:
    """Train as asked; returns the checkpoint's path. `report` gets one line per stage.

    Raises:
        MsbenchError: bad input; nothing but the run's folder has been written then.
    """
    if request.decoder not in trainable_decoders():
        raise UnknownNameError("trainable decoder", request.decoder, trainable_decoders())
    request = configured(request)
    check_budget(request.config)
    planned = plan(request)
    with current_group(request.device) as group:
        spoken = report if group.writes else _silent
        return _run(replace(request, device=group.device), planned, group, spoken, on_step if group.writes else None)


def compile_networks(*modules: nn.Module) -> None:
    """Compile each network in place, for the shapes it meets; an autoencoder's halves apart, as they are called."""
    for module in modules:
        for part in (module.encoder, module.decoder) if isinstance(module, Autoencoder) else (module,):
            part.compile(dynamic=False)


def _silent(line: str) -> None:
    """What processes other than the first one report."""


def _run(
    request: TrainRequest,
    planned: Plan,
    group: Group,
    report: Callable[[str], None],
    on_step: Callable[[int, float, float], None] | None,
) -> Path:
    target = request.output / f"{request.decoder}.safetensors"
    report(f"reading {request.data.name}")
    data = load_training_images(request.data, group)
    lpips = Lpips.load(request.perceptual.network, request.device, request.offline)
    torch.manual_seed(request.config.seed)  # initial weights
    started = time.time()
    built = assemble(request, planned, data, lpips, report, group.local_rank == 0)
    if request.config.compile:
        compile_networks(built.objective.module, lpips)
    recipe = recipe_sha256(request, planned, built, data)
    manifest = replace(built.manifest, training_seed=request.config.seed, recipe_sha256=recipe)
    report(f"training {request.decoder} on {len(data.images)} images")
    # A run may be resumed with a larger budget, but not with another recipe.
    free = replace(request, config=replace(request.config, max_steps=None, max_minutes=None, max_pflops=None))
    identity = f"{request.decoder}, seed {request.config.seed}, recipe {recipe_sha256(free, planned, built, data)[:12]}"
    result = train(built.objective, request.config, request.output, request.device, request.resume, on_step, identity, group)
    if group.writes:
        _write(request, planned, built, manifest, data, result, time.time() - started)
        report(f"{result.steps} steps in {result.seconds / 60:.1f} min -> {target}")
    group.barrier()  # the checkpoint is there when any process returns
    return target


def _write(
    request: TrainRequest,
    planned: Plan,
    built: Assembly,
    manifest: Manifest,
    data: TrainingImages,
    result: TrainResult,
    seconds: float,
) -> None:
    """Checkpoint, encoder, card and samples of a run."""
    target = request.output / f"{request.decoder}.safetensors"
    module = built.objective.module
    if built.new_latents and isinstance(module, Autoencoder):
        set_latent_statistics(module, data)
    sha256 = save_checkpoint(target, module, manifest)
    if (averaged := load_snapshot(request.output)) is not None:
        earlier = copy.deepcopy(module)
        earlier.load_state_dict(averaged)
        save_checkpoint(target.with_stem(f"{target.stem}-snapshot"), earlier, manifest)
    if manifest.kind == "denoiser" and manifest.encoder_sha256 != _sha256_or_none(shipped_path("vae")):
        _keep_encoder(request, manifest)
    facts: dict[str, Any] = {
        "decoder": request.decoder,
        "preset": request.preset,
        "sha256": sha256,
        "parameters": _count(module),
        "architecture": manifest.config,
        "flow": manifest.flow,
        "recipe_sha256": manifest.recipe_sha256,
        **built.lineage,
        "data": {
            "name": data.name,
            "images": len(data.images),
            "resolution": data.images.shape[-1],
            "pixels_sha256": data.sha256,
        },
        "objective": {"name": type(built.objective).__name__, **asdict(built.loss)},
        "optimiser": asdict(request.config),
        "perceptual_network": f"LPIPS {request.perceptual.network}",
        "perceptual": asdict(request.perceptual),
        "adversary": asdict(planned.adversary) if planned.adversary.weight > 0 else None,
        "steps": result.steps,
        "finished": result.finished,
        "seconds": round(result.seconds, 1),
        "seconds_with_setup": round(seconds, 1),
        "throughput": {
            "samples_per_s": result.samples_per_s,
            "training_pflops": result.pflops,
            "gflops_per_step": result.flops_per_step / 1e9,
            "mfu": result.mfu,
            "peak_gflops_per_s": result.peak / 1e9,
            "skipped_steps": result.skipped,
        },
        "hardware": {"platform": platform.platform(), "threads": torch.get_num_threads(), **_hardware()},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "loss_curves": read_curves(request.output / "log.csv"),
    }
    write_card(request.output / request.decoder, json.loads(json.dumps(facts, default=str)))
    write_samples(request.output / f"{request.decoder}.png", target, request.decoder, request.scales, data)


def _keep_encoder(request: TrainRequest, manifest: Manifest) -> None:
    """Put the autoencoder of a denoiser's latents beside its checkpoint, where decoders look for one that is not shipped."""
    assert request.vae is not None
    beside = request.output / "vae.safetensors"
    if _sha256_or_none(beside) != manifest.encoder_sha256:
        write_bytes(beside, request.vae.read_bytes())


def _sha256_or_none(path: Path) -> str | None:
    return sha256_file(path) if path.is_file() else None


def recipe_sha256(request: TrainRequest, planned: Plan, built: Assembly, data: TrainingImages) -> str:
    """Hash of all that decides a training but its seed: trainings that share it are repetitions of one another.

    Teacher and start count by their own recipe, so that a chain of trainings may be repeated as a whole; one of unknown recipe
    by its weights.
    """
    ignored = {"seed", "stop_after", "save_every_seconds", "log_every", "tensorboard", "snapshot", "compile"}
    facts = {
        "decoder": request.decoder,
        "architecture": built.manifest.config,
        "flow": built.manifest.flow,
        "encoder": built.manifest.encoder_sha256,
        "teacher": built.lineage.get("teacher_recipe_sha256") or built.lineage.get("teacher_sha256"),
        "pixels": data.sha256,
        "objective": [type(built.loss).__name__, asdict(built.loss)],
        "perceptual": asdict(request.perceptual),
        "adversary": asdict(planned.adversary),
        "optimiser": {key: value for key, value in asdict(request.config).items() if key not in ignored},
    }
    if request.start is not None:
        facts["start"] = built.lineage.get("start_recipe_sha256") or built.lineage["start_sha256"]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _hardware() -> dict[str, Any]:
    facts = environment()
    return {"cpu": facts["cpu_model"], "gpus": [gpu["name"] for gpu in facts["gpus"]], "torch": facts["torch"]}
