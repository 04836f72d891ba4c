"""One training run from names to files: data, objective, budget, checkpoint, model card."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from decoders.autoencoder import Autoencoder
from decoders.checkpoint import Manifest, load_autoencoder, load_denoiser, save_checkpoint, shipped_path
from decoders.denoiser import Denoiser
from decoders.flow import make_flow
from decoders.models import encoder_path
from decoders.presets import DIFFUSION, DiffusionPreset, denoiser_config, size_preset
from decoders.training.autoencoder import AutoencoderLossConfig, AutoencoderObjective, set_latent_statistics
from decoders.training.card import read_curves, write_card
from decoders.training.data import TrainingImages, encode_cached, load_training_images
from decoders.training.distillation import DistillationLossConfig, DistillationObjective
from decoders.training.flow_matching import FlowLossConfig, FlowObjective
from decoders.training.perceptual import PerceptualConfig, PerceptualLoss
from decoders.training.regression import RegressionLossConfig, RegressionObjective
from decoders.training.trainer import Objective, TrainConfig, check_budget, train
from harness.data.types import Request
from harness.environment import environment
from harness.errors import MsbenchError, UnknownNameError
from harness.files import sha256_file
from harness.metrics.lpips import Lpips

LossConfig = AutoencoderLossConfig | FlowLossConfig | DistillationLossConfig | RegressionLossConfig


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What `msbench train-decoder` was asked for."""

    decoder: str
    """registry name of a trainable decoder"""
    data: Request
    """training data; its split must be "train" or the dataset has none"""
    output: Path
    """folder for the run: state, log, checkpoint, card"""
    preset: str = "nano"
    """size of the networks"""
    config: TrainConfig = field(default_factory=TrainConfig)
    """budget and optimiser"""
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    """the LPIPS that is trained on"""
    vae: Path | None = None
    """autoencoder checkpoint that gives the latents; None = the shipped one"""
    teacher: Path | None = None
    """teacher checkpoint of a student; None = the shipped one"""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """where to train"""
    resume: bool = False
    """go on from the run's saved state"""
    offline: bool = False
    """never touch the network"""


def trainable_decoders() -> list[str]:
    """Names `train-decoder` takes."""
    return ["vae", *DIFFUSION]


def run_training(
    request: TrainRequest, report: Callable[[str], None], on_step: Callable[[int, float, float], None] | None
) -> Path:
    """Train as asked; returns the checkpoint's path. `report` gets one line per stage.

    Raises:
        MsbenchError: bad input; nothing but the run's folder has been written then.
    """
    if request.decoder not in trainable_decoders():
        raise UnknownNameError("trainable decoder", request.decoder, trainable_decoders())
    check_budget(request.config)
    target = request.output / f"{request.decoder}.safetensors"
    report(f"reading {request.data.name}")
    data = load_training_images(request.data)
    network = Lpips.load(request.perceptual.network, request.device, request.offline)
    perceptual = PerceptualLoss(network, request.perceptual)
    torch.manual_seed(request.config.seed)  # initial weights
    started = time.time()
    objective, manifest, loss_config, lineage = (
        _autoencoder(request, data, perceptual) if request.decoder == "vae" else _diffusion(request, data, perceptual, report)
    )
    recipe = recipe_sha256(request, manifest, loss_config, data, lineage)
    manifest = replace(manifest, training_seed=request.config.seed, recipe_sha256=recipe)
    report(f"training {request.decoder} on {len(data.images)} images")
    result = train(objective, request.config, request.output, request.device, request.resume, on_step)
    module = objective.module
    if isinstance(module, Autoencoder):
        set_latent_statistics(module, data)
    sha256 = save_checkpoint(target, module, manifest)
    facts: dict[str, Any] = {
        "decoder": request.decoder,
        "preset": request.preset,
        "sha256": sha256,
        "parameters": _count(module),
        "architecture": manifest.config,
        "flow": manifest.flow,
        "recipe_sha256": recipe,
        **lineage,
        "data": {
            "name": data.name,
            "images": len(data.images),
            "resolution": data.images.shape[-1],
            "pixels_sha256": data.sha256,
        },
        "objective": {"name": type(objective).__name__, **asdict(loss_config)},
        "optimiser": asdict(request.config),
        "perceptual_network": f"LPIPS {request.perceptual.network}",
        "perceptual": asdict(request.perceptual),
        "steps": result.steps,
        "finished": result.finished,
        "seconds": round(result.seconds, 1),
        "seconds_with_setup": round(time.time() - started, 1),
        "hardware": {"platform": platform.platform(), "threads": torch.get_num_threads(), **_hardware()},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "loss_curves": read_curves(request.output / "log.csv"),
    }
    write_card(request.output / request.decoder, json.loads(json.dumps(facts, default=str)))
    report(f"{result.steps} steps in {result.seconds / 60:.1f} min -> {target}")
    return target


def _autoencoder(
    request: TrainRequest, data: TrainingImages, perceptual: PerceptualLoss
) -> tuple[Objective, Manifest, LossConfig, dict[str, Any]]:
    config = size_preset(request.preset).autoencoder
    loss_config = AutoencoderLossConfig()
    module = Autoencoder(config).to(request.device)
    manifest = Manifest("vae", "autoencoder", asdict(config), _trained_on(data), None)
    return AutoencoderObjective(module, data, loss_config, perceptual), manifest, loss_config, {}


def _diffusion(
    request: TrainRequest, data: TrainingImages, perceptual: PerceptualLoss, report: Callable[[str], None]
) -> tuple[Objective, Manifest, LossConfig, dict[str, Any]]:
    preset = DIFFUSION[request.decoder]
    vae_path = request.vae or shipped_path("vae")
    autoencoder, _ = load_autoencoder(vae_path)
    autoencoder.to(request.device)
    vae_sha256 = sha256_file(vae_path)
    data = encode_cached(data, autoencoder, vae_sha256, request.device, report)
    config = denoiser_config(size_preset(request.preset), preset.scales)
    latents = (autoencoder.config.latent_channels, autoencoder.config.down_factor())
    if latents != (config.latent_channels, config.down_factor):
        raise MsbenchError(
            f"{vae_path} gives f{latents[1]}c{latents[0]} latents; preset {request.preset!r} needs "
            f"f{config.down_factor}c{config.latent_channels}"
        )
    module = Denoiser(config).to(request.device)
    manifest = Manifest(request.decoder, "denoiser", asdict(config), _trained_on(data), vae_sha256, preset.flow)
    lineage: dict[str, Any] = {"encoder_sha256": vae_sha256}
    flow = make_flow(preset.flow, preset.scales)
    if preset.objective == "flow":
        flow_config = FlowLossConfig()
        return FlowObjective(module, flow, data, flow_config, perceptual), manifest, flow_config, lineage
    if preset.objective == "regression":
        regression_config = RegressionLossConfig()
        return RegressionObjective(module, flow, data, regression_config, perceptual), manifest, regression_config, lineage
    teacher, teacher_sha256, teacher_recipe = _teacher(request, preset, vae_sha256)
    teacher.to(request.device)
    module.load_state_dict(teacher.state_dict())
    lineage |= {"teacher_sha256": teacher_sha256, "teacher_recipe_sha256": teacher_recipe}
    distillation_config = DistillationLossConfig()
    return (
        DistillationObjective(module, teacher, flow, data, distillation_config, perceptual),
        manifest,
        distillation_config,
        lineage,
    )


def _teacher(request: TrainRequest, preset: DiffusionPreset, vae_sha256: str) -> tuple[Denoiser, str, str | None]:
    assert preset.teacher is not None
    path = request.teacher or shipped_path(preset.teacher)
    teacher, manifest = load_denoiser(path)
    if manifest.encoder_sha256 != vae_sha256:
        raise MsbenchError(
            f"teacher {path} was trained on another encoder's latents ({encoder_path(path, manifest.encoder_sha256)})"
        )
    expected = denoiser_config(size_preset(request.preset), preset.scales)
    if teacher.config != expected:
        raise MsbenchError(
            f"teacher {path} has another architecture than preset {request.preset!r} with {preset.scales} scales"
        )
    return teacher, sha256_file(path), manifest.recipe_sha256


def recipe_sha256(
    request: TrainRequest, manifest: Manifest, loss: LossConfig, data: TrainingImages, lineage: dict[str, Any]
) -> str:
    """Hash of all that decides a training but its seed: trainings that share it are repetitions of one another.

    A teacher counts by its own recipe, so that a chain of trainings may be repeated as a whole; one of unknown recipe by its
    weights.
    """
    ignored = {"seed", "stop_after", "save_every_seconds", "log_every"}
    facts = {
        "decoder": request.decoder,
        "architecture": manifest.config,
        "flow": manifest.flow,
        "encoder": manifest.encoder_sha256,
        "teacher": lineage.get("teacher_recipe_sha256") or lineage.get("teacher_sha256"),
        "pixels": data.sha256,
        "objective": [type(loss).__name__, asdict(loss)],
        "perceptual": asdict(request.perceptual),
        "optimiser": {key: value for key, value in asdict(request.config).items() if key not in ignored},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _trained_on(data: TrainingImages) -> str:
    return f"{data.name} ({len(data.images)} images, {data.images.shape[-1]} px)"


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _hardware() -> dict[str, Any]:
    facts = environment()
    return {"cpu": facts["cpu_model"], "gpus": [gpu["name"] for gpu in facts["gpus"]], "torch": facts["torch"]}
