"""One training run from names to files: data, objective, budget, checkpoint, model card."""

from __future__ import annotations

import contextlib
import copy
import errno
import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from decoders.autoencoder import Autoencoder
from decoders.checkpoint import Manifest, save_checkpoint, shipped_path
from decoders.training.autoencoder import set_latent_statistics
from decoders.training.build import Networks, Plan, assemble, encoded, networks, plan
from decoders.training.card import read_curves, write_card, write_samples
from decoders.training.data import TrainingImages, load_training_images
from decoders.training.request import TrainRequest, configured
from decoders.training.state import STATE, load_snapshot
from decoders.training.trainer import Objective, TrainResult, train
from harness.distributed import current_group
from harness.environment import environment
from harness.errors import MsbenchError
from harness.files import folder_lock, sha256_file, write_bytes
from harness.metrics.lpips import Lpips
from harness.request.requests import parse_request

_FORMER = (("linear", False), ("stem", 3))
"""fields of architectures, at what stood there before there were such fields: left out of the hash of the recipe"""
_NO_ADVERSARY = {"weight": 0.0, "network": "patch", "start": 0.5, "learning_rate": 2e-4, "betas": (0.5, 0.9), "crop": 64}
"""stays in the hash of the recipe, so that it is that of the trainings before the adversarial term was taken out"""


def run_training(
    request: TrainRequest, report: Callable[[str], None], on_step: Callable[[int, float, float], None] | None
) -> Path:
    """Train as asked; returns the checkpoint's path. `report` gets one line per stage.

    Raises:
        MsbenchError: bad input, found before any image is read; or the run diverged, and no checkpoint is written.
    """
    request = configured(request)
    planned = plan(request)
    check_folder(request)
    target = request.output / f"{request.decoder}.safetensors"
    with current_group(request.device) as group, contextlib.ExitStack() as held:
        request = replace(request, device=group.device)
        built = networks(request, planned)
        check_encoder_beside(request, built)
        lpips = Lpips.load(request.perceptual.network, request.device, request.offline)
        if group.writes:
            held.enter_context(_kept(request.output))
            check_folder(request)  # again: another process may have been at work here until a moment ago
        else:
            report, on_step = (lambda line: None), None  # the first one speaks for all
        report(f"reading {request.data.name}")
        data = load_training_images(request.data, group)
        started = time.monotonic()
        data = encoded(built, data, request.device, report, group.local_rank == 0)
        objective = assemble(request, planned, built, data, lpips, report)
        if request.config.compile:
            compile_networks(objective.module, lpips)
        recipe = recipe_sha256(request, planned, built, data, group.world)
        report(f"training {request.decoder} on {len(data.images)} images")
        # A run may be resumed with a larger budget, but not with another recipe.
        free = replace(request, config=replace(request.config, max_steps=None, max_minutes=None, max_pflops=None))
        same = recipe_sha256(free, planned, built, data)[:12]
        identity = f"{request.decoder}, seed {request.config.seed}, recipe {same}"
        result = train(objective, request.config, request.output, request.device, request.resume, on_step, identity, group)
        if result.new_steps == 0 and _finished(target, result.steps):
            report(f"{target} is finished: its budget is used up after {result.steps} steps; give a larger one to go on")
        elif group.writes:
            _write(request, planned, built, objective, recipe, data, result, time.monotonic() - started)
            report(f"{result.steps} steps in {result.seconds / 60:.1f} min -> {target}")
        group.barrier()  # the checkpoint is there when any process returns
    return target


@contextlib.contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """Be the only writer of a training's folder, which is gone again if nothing was written there.

    Raises:
        MsbenchError: another process writes there, or the disk is full; what was saved before is as it was.
    """
    fresh = not folder.exists()
    try:
        with folder_lock(folder):
            yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise MsbenchError(f"{folder} is full: make room, then --resume") from error
    finally:
        if fresh and folder.is_dir() and not [*folder.iterdir()]:
            folder.rmdir()


def _finished(target: Path, steps: int) -> bool:
    """Whether checkpoint and card of these steps were written."""
    try:
        return target.is_file() and json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))["steps"] == steps
    except (OSError, ValueError, KeyError, TypeError):
        return False


def check_folder(request: TrainRequest) -> None:
    """Raise `MsbenchError` where a training would replace another one's work, or has nothing to resume."""
    state = request.output / STATE
    if request.resume and not state.is_file():
        raise MsbenchError(f"--resume: {request.output} holds no saved state of a training; begin one without --resume")
    for path in () if request.resume else (request.output / f"{request.decoder}.safetensors", state):
        if path.exists():
            raise MsbenchError(f"{path} is there already: go on with --resume, or choose another --output-dir")


def check_encoder_beside(request: TrainRequest, built: Networks) -> None:
    """Raise `MsbenchError` where the encoder that is kept beside a checkpoint would replace another one."""
    beside = request.output / "vae.safetensors"
    if _keeps_encoder(built) and beside.exists() and sha256_file(beside) != built.lineage["encoder_sha256"]:
        raise MsbenchError(f"{beside} is another encoder than --vae {request.vae}: choose another --output-dir")


def _keeps_encoder(built: Networks) -> bool:
    """Whether a denoiser's latents are those of an encoder that does not ship, so that decoders look for it beside them."""
    encoder, shipped = built.encoder, shipped_path("vae")
    return encoder is not None and not encoder.name and not (shipped.is_file() and sha256_file(shipped) == encoder.sha256)


def compile_networks(*modules: nn.Module) -> None:
    """Compile each network in place, for the shapes it meets; an autoencoder's halves apart, as they are called."""
    for module in modules:
        for part in (module.encoder, module.decoder) if isinstance(module, Autoencoder) else (module,):
            part.compile(dynamic=False)


def _write(
    request: TrainRequest,
    planned: Plan,
    built: Networks,
    objective: Objective,
    recipe: str,
    data: TrainingImages,
    result: TrainResult,
    seconds: float,
) -> None:
    """Checkpoint, encoder, card and samples of a run."""
    target = request.output / f"{request.decoder}.safetensors"
    module = objective.module
    if request.decoder == "vae" and isinstance(module, Autoencoder):
        set_latent_statistics(module, data)
    of_encoder = f", latents of {parse_request(request.encoder).label}" if request.encoder else ""
    manifest = Manifest(
        request.decoder,
        "denoiser" if planned.preset else "autoencoder",
        asdict(built.module.config),
        f"{data.name} ({len(data.images)} images, {data.images.shape[-1]} px){of_encoder}",
        built.lineage.get("encoder_sha256"),
        planned.preset.flow if planned.preset else None,
        request.config.seed,
        recipe,
        data.named,
    )
    sha256 = save_checkpoint(target, module, manifest)
    if (averaged := load_snapshot(request.output)) is not None:
        earlier = copy.deepcopy(module)
        earlier.load_state_dict(averaged)
        save_checkpoint(target.with_stem(f"{target.stem}-snapshot"), earlier, manifest)
    if _keeps_encoder(built):
        assert request.vae is not None
        write_bytes(request.output / "vae.safetensors", request.vae.read_bytes())
    machine = environment()
    facts: dict[str, Any] = {
        "decoder": request.decoder,
        "preset": request.preset or "nano",
        "sha256": sha256,
        "parameters": sum(p.numel() for p in module.parameters()),
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
        "objective": {"name": type(objective).__name__, **asdict(planned.loss)},
        "optimiser": asdict(request.config),
        "perceptual_network": f"LPIPS {request.perceptual.network}",
        "perceptual": asdict(request.perceptual),
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
        "hardware": {
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "cpu": machine["cpu_model"],
            "gpus": [gpu["name"] for gpu in machine["gpus"]],
            "torch": machine["torch"],
        },
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "loss_curves": read_curves(request.output / "log.csv"),
    }
    write_card(request.output / request.decoder, json.loads(json.dumps(facts, default=str)))
    write_samples(request.output / f"{request.decoder}.png", target, request.decoder, request.scales, data, request.offline)


def recipe_sha256(request: TrainRequest, planned: Plan, built: Networks, data: TrainingImages, world: int = 1) -> str:
    """Hash of all that decides a training but its seed: trainings that share it are repetitions of one another.

    The images count by their pixels, so another subset is another recipe. Every process and pass adds a batch to a step,
    so another number of them is one too.

    Teacher and start count by their own recipe, so that a chain of trainings may be repeated as a whole; one of unknown recipe
    by its weights.
    """
    ignored = {"seed", "stop_after", "save_every_seconds", "log_every", "tensorboard", "snapshot", "compile", "accumulate"}
    facts = {
        "decoder": request.decoder,
        "architecture": {key: value for key, value in asdict(built.module.config).items() if (key, value) not in _FORMER},
        "flow": planned.preset.flow if planned.preset else None,
        "encoder": built.lineage.get("encoder_sha256"),
        "teacher": built.lineage.get("teacher_recipe_sha256") or built.lineage.get("teacher_sha256"),
        "pixels": data.sha256,
        "objective": [type(planned.loss).__name__, asdict(planned.loss)],
        "perceptual": asdict(request.perceptual),
        "adversary": _NO_ADVERSARY,
        "optimiser": {key: value for key, value in asdict(request.config).items() if key not in ignored},
        **({"encoder_options": dict(parse_request(request.encoder).own)} if request.encoder else {}),
    }
    if (batches := world * request.config.accumulate) > 1:
        facts["processes"] = batches
    if request.start is not None:
        facts["start"] = built.lineage.get("start_recipe_sha256") or built.lineage["start_sha256"]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
