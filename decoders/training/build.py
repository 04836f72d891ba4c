"""From a request to what is trained: networks, objective, and what the checkpoint and its card will say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from decoders.autoencoder import Autoencoder, AutoencoderConfig
from decoders.checkpoint import lineage_of, load_autoencoder, load_denoiser, shipped_path
from decoders.denoiser import Denoiser, DenoiserConfig
from decoders.flow import make_flow
from decoders.models import encoder_path
from decoders.presets import DIFFUSION, DiffusionPreset, SizePreset, denoiser_config, size_preset
from decoders.settings import apply_settings, checked
from decoders.training.autoencoder import AutoencoderLossConfig, AutoencoderObjective
from decoders.training.config import autocast_dtype
from decoders.training.data import TrainingImages, encode_cached
from decoders.training.distillation import DistillationLossConfig, DistillationObjective
from decoders.training.flow_matching import FlowLossConfig, FlowObjective
from decoders.training.perceptual import PerceptualLoss
from decoders.training.regression import RegressionLossConfig, RegressionObjective
from decoders.training.request import TrainRequest
from decoders.training.trainer import Objective
from harness.cells import fit_linear_map, fit_pca
from harness.errors import MsbenchError
from harness.files import sha256_file
from harness.metrics.lpips import Lpips

ModuleT = TypeVar("ModuleT", bound=nn.Module)
LossConfig = AutoencoderLossConfig | FlowLossConfig | DistillationLossConfig | RegressionLossConfig
_LOSSES: Mapping[str, LossConfig] = {
    "flow": FlowLossConfig(),
    "regression": RegressionLossConfig(),
    "distill": DistillationLossConfig(),
}
TUNING = AutoencoderLossConfig(mse=0.0, l1=1.0, lpips=0.15, kl=0.0, crop=128, freeze_encoder=True)
"""`vae-ft`: the students' loss on the autoencoder's own decoder, encoder frozen."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The configs of a run, settings applied: all that can be checked before any data is read."""

    size: SizePreset
    """shapes of the networks"""
    loss: LossConfig
    """settings of the objective"""
    preset: DiffusionPreset | None
    """flow, scales and teacher of a denoiser; None for an autoencoder"""


@dataclass(frozen=True, slots=True)
class Networks:
    """What a run trains, and the frozen networks it needs: there before any image is read."""

    module: Autoencoder | Denoiser
    """what is trained, with its initial weights"""
    encoder: Autoencoder | None = None
    """gives a denoiser its latents"""
    teacher: Denoiser | None = None
    """of a student"""
    lineage: dict[str, Any] = field(default_factory=dict)
    """hashes of encoder, teacher and start, and the compute of the latter's trainings"""


def plan(request: TrainRequest) -> Plan:
    """Lay the preset's settings and the request's over the defaults.

    Raises:
        UnknownNameError: no such preset, or a setting of an unknown field.
        MsbenchError: a value of the wrong type or outside its range, or settings that contradict one another.
    """
    size = size_preset(request.preset or "nano")
    size = SizePreset(
        checked("autoencoder", apply_settings("autoencoder", size.autoencoder, request.settings)),
        apply_settings("denoiser", size.denoiser, request.settings),
    )
    preset, lines = DIFFUSION.get(request.decoder), request.settings
    default: LossConfig = AutoencoderLossConfig() if request.decoder == "vae" else TUNING
    if preset is not None:
        preset = replace(preset, scales=request.scales or preset.scales)
        default, lines = _LOSSES[preset.objective], (*preset.settings, *lines)
        size = replace(size, denoiser=denoiser_config(size, preset.scales))
    loss = checked("loss", apply_settings("loss", default, lines))
    if isinstance(loss, AutoencoderLossConfig | RegressionLossConfig) and not loss.mse + loss.l1 + loss.lpips:
        raise MsbenchError("loss.mse, loss.l1 and loss.lpips are all 0: nothing would be learned")
    if request.decoder == "vae-ft" and isinstance(loss, AutoencoderLossConfig) and not loss.freeze_encoder:
        raise MsbenchError("vae-ft keeps its encoder, whose latents other decoders share: leave loss.freeze_encoder=false out")
    return Plan(size, loss, preset)


def networks(request: TrainRequest, planned: Plan) -> Networks:
    """Build what is trained, its initial weights drawn from the run's seed, and load what it needs.

    Raises:
        MsbenchError: a checkpoint is missing or does not fit, or the settings make no network.
    """
    torch.manual_seed(request.config.seed)  # initial weights
    size, preset, device = planned.size, planned.preset, request.device
    if request.decoder == "vae":
        return Networks(_built(lambda: Autoencoder(size.autoencoder), size.autoencoder).to(device))
    path = request.vae or shipped_path("vae")
    encoder, _ = load_autoencoder(path)
    encoder.to(device)
    sha256 = sha256_file(path)
    lineage: dict[str, Any] = {"encoder_sha256": sha256}
    if preset is None:
        return Networks(encoder.requires_grad_(True), lineage=lineage)
    config, given = size.denoiser, encoder.config
    if (given.latent_channels, given.down_factor()) != (config.latent_channels, config.down_factor):
        raise MsbenchError(
            f"{path} gives f{given.down_factor()}c{given.latent_channels} latents; preset {request.preset or 'nano'!r} needs "
            f"f{config.down_factor}c{config.latent_channels}"
        )
    module = _built(lambda: Denoiser(config), config).to(device)
    role, start = "start", request.start
    if preset.teacher is not None:
        role, start = "teacher", request.teacher or shipped_path(preset.teacher)
    if start is None:
        return Networks(module, encoder, lineage=lineage)
    network, start_sha256, recipe = _fitting(role, start, request.preset or "nano", config, sha256)
    network.to(device)
    module.load_state_dict(network.state_dict())
    its = lineage_of(start, start_sha256)
    took = [its.get(name) for name in ("start_pflops", "training_pflops")]
    lineage |= {f"{role}_sha256": start_sha256, f"{role}_recipe_sha256": recipe}
    lineage["start_pflops"] = None if None in took else sum(took)
    return Networks(module, encoder, network if role == "teacher" else None, lineage)


def assemble(
    request: TrainRequest,
    planned: Plan,
    built: Networks,
    data: TrainingImages,
    lpips: Lpips,
    report: Callable[[str], None],
    writes: bool = True,
) -> Objective:
    """The objective over networks and data; `lpips` is the network `request.perceptual` names.

    Images are encoded where that was not done before; without `writes` another process does it. A new run's linear path is
    fitted.
    """
    loss, preset, module, device = planned.loss, planned.preset, built.module, request.device
    perceptual = PerceptualLoss(lpips, request.perceptual, autocast_dtype(request.config.precision, device))
    if isinstance(loss, AutoencoderLossConfig):
        assert isinstance(module, Autoencoder)
        if module.config.linear and request.decoder == "vae" and not request.resume:
            config = module.config
            report(f"fitting {config.latent_channels} components of {config.down_factor()}-px cells")
            module.start_linear(fit_pca(data.images, config.down_factor(), config.latent_channels))
        return AutoencoderObjective(module, data.resident(device), loss, perceptual)
    assert isinstance(module, Denoiser)
    assert built.encoder is not None
    assert preset is not None
    data = encode_cached(data, built.encoder, built.lineage["encoder_sha256"], device, report, writes).resident(device)
    begun = request.resume or {"teacher_sha256", "start_sha256"} & built.lineage.keys()
    if module.config.linear and not begun:
        assert data.latents is not None
        report("fitting the least-squares map from latents to cells")
        module.start_linear(*fit_linear_map(data.latents, data.images, module.config.down_factor))
    flow = make_flow(preset.flow, preset.scales)
    if isinstance(loss, FlowLossConfig):
        return FlowObjective(module, flow, data, loss, perceptual)
    if isinstance(loss, RegressionLossConfig):
        return RegressionObjective(module, flow, data, loss, perceptual)
    assert built.teacher is not None
    return DistillationObjective(module, built.teacher, flow, data, loss, perceptual)


def _fitting(role: str, path: Path, preset: str, expected: DenoiserConfig, vae_sha256: str) -> tuple[Denoiser, str, str | None]:
    """A checkpoint that a run can go on from, with the hashes of its weights and of its recipe; errors call it `role`."""
    network, manifest = load_denoiser(path)
    if manifest.encoder_sha256 != vae_sha256:
        raise MsbenchError(
            f"{role} {path} was trained on another encoder's latents ({encoder_path(path, manifest.encoder_sha256)})"
        )
    if network.config != expected:
        raise MsbenchError(f"{role} {path} has another architecture than preset {preset!r} with {expected.scales} scales")
    return network, sha256_file(path), manifest.recipe_sha256


def _built(build: Callable[[], ModuleT], config: AutoencoderConfig | DenoiserConfig) -> ModuleT:
    """The network, or one clear line where settings do not make one."""
    try:
        return build()
    except (ValueError, IndexError, RuntimeError, ZeroDivisionError) as error:
        raise MsbenchError(f"these settings make no network ({error}): {config}") from error
