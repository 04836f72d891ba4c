"""From a request to what is trained: networks, objective, and what the checkpoint and its card will say of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from decoders.autoencoder import Autoencoder, AutoencoderConfig
from decoders.checkpoint import Manifest, load_autoencoder, load_denoiser, shipped_path
from decoders.denoiser import Denoiser, DenoiserConfig
from decoders.flow import make_flow
from decoders.models import encoder_path
from decoders.presets import DIFFUSION, DiffusionPreset, SizePreset, denoiser_config, size_preset
from decoders.settings import apply_settings
from decoders.training.adversary import Adversary, AdversaryConfig, make_adversary
from decoders.training.autoencoder import AutoencoderLossConfig, AutoencoderObjective
from decoders.training.data import TrainingImages, encode_cached
from decoders.training.distillation import DistillationLossConfig, DistillationObjective
from decoders.training.flow_matching import FlowLossConfig, FlowObjective
from decoders.training.perceptual import Perceptual, PerceptualLoss
from decoders.training.regression import RegressionLossConfig, RegressionObjective
from decoders.training.request import TrainRequest
from decoders.training.schedules import autocast_dtype
from decoders.training.self_distillation import SelfDistillationObjective
from decoders.training.trainer import Objective
from harness.errors import MsbenchError
from harness.files import sha256_file
from harness.metrics.lpips import Lpips

ModuleT = TypeVar("ModuleT", bound=nn.Module)
LossConfig = AutoencoderLossConfig | FlowLossConfig | DistillationLossConfig | RegressionLossConfig


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
    adversary: AdversaryConfig
    """the adversarial term; off unless its weight is set"""


@dataclass(frozen=True, slots=True)
class Assembly:
    """Everything a run trains and says."""

    objective: Objective
    """module and loss"""
    manifest: Manifest
    """what the checkpoint will say of itself, seed and recipe still to come"""
    loss: LossConfig
    """settings of the objective"""
    lineage: dict[str, Any] = field(default_factory=dict)
    """hashes of encoder, teacher and start"""
    new_latents: bool = False
    """the latents are this run's own, and their statistics are to be taken at its end"""


def plan(request: TrainRequest) -> Plan:
    """Lay the preset's settings and the request's over the defaults.

    Raises:
        UnknownNameError: no such preset, or a setting of an unknown field.
        MsbenchError: a value of the wrong type.
    """
    size = size_preset(request.preset)
    size = SizePreset(
        apply_settings("autoencoder", size.autoencoder, request.settings),
        apply_settings("denoiser", size.denoiser, request.settings),
    )
    adversary = apply_settings("adversary", AdversaryConfig(), request.settings)
    preset = DIFFUSION.get(request.decoder)
    if preset is None:
        default = AutoencoderLossConfig() if request.decoder == "vae" else TUNING
        return Plan(size, apply_settings("loss", default, request.settings), None, adversary)
    preset = replace(preset, scales=request.scales or preset.scales)
    defaults: dict[str, LossConfig] = {
        "flow": FlowLossConfig(),
        "regression": RegressionLossConfig(),
        "distill": DistillationLossConfig(),
    }
    loss = apply_settings("loss", defaults[preset.objective], (*preset.settings, *request.settings))
    if adversary.weight > 0 and preset.objective == "flow":
        raise MsbenchError(f"{request.decoder} learns a flow, which has no image to judge: leave the adversary out")
    return Plan(size, loss, preset, adversary)


def assemble(
    request: TrainRequest,
    planned: Plan,
    data: TrainingImages,
    lpips: Lpips,
    report: Callable[[str], None],
    writes: bool = True,
) -> Assembly:
    """Build what `planned` says; `lpips` is the network `request.perceptual` names. Without `writes` another process encodes.

    Raises:
        MsbenchError: a checkpoint is missing or does not fit, or the settings make no network.
    """
    perceptual = PerceptualLoss(lpips, request.perceptual, autocast_dtype(request.config.precision, request.device))
    adversary = make_adversary(planned.adversary, request.device, request.config.seed, lpips)
    if isinstance(planned.loss, AutoencoderLossConfig):
        built = _autoencoder(request, planned, data) if request.decoder == "vae" else _tuned(request, data)
        module, manifest, lineage = built
        objective = AutoencoderObjective(module, data.resident(request.device), planned.loss, perceptual, adversary)
        return Assembly(objective, manifest, planned.loss, lineage, new_latents=request.decoder == "vae")
    return _diffusion(request, planned, data, perceptual, adversary, report, writes)


def _autoencoder(request: TrainRequest, planned: Plan, data: TrainingImages) -> tuple[Autoencoder, Manifest, dict[str, Any]]:
    config = planned.size.autoencoder
    module = _built(lambda: Autoencoder(config), config).to(request.device)
    return module, Manifest("vae", "autoencoder", asdict(config), _trained_on(data), None), {}


def _tuned(request: TrainRequest, data: TrainingImages) -> tuple[Autoencoder, Manifest, dict[str, Any]]:
    path = request.vae or shipped_path("vae")
    module, source = load_autoencoder(path)
    module.requires_grad_(True).to(request.device)
    sha256 = sha256_file(path)
    return module, Manifest("vae-ft", "autoencoder", source.config, _trained_on(data), sha256), {"encoder_sha256": sha256}


def _diffusion(
    request: TrainRequest,
    planned: Plan,
    data: TrainingImages,
    perceptual: Perceptual,
    adversary: Adversary | None,
    report: Callable[[str], None],
    writes: bool,
) -> Assembly:
    loss, preset = planned.loss, planned.preset
    assert preset is not None
    vae_path = request.vae or shipped_path("vae")
    autoencoder, _ = load_autoencoder(vae_path)
    autoencoder.to(request.device)
    sha256 = sha256_file(vae_path)
    config = denoiser_config(planned.size, preset.scales)
    latents = (autoencoder.config.latent_channels, autoencoder.config.down_factor())
    if latents != (config.latent_channels, config.down_factor):
        raise MsbenchError(
            f"{vae_path} gives f{latents[1]}c{latents[0]} latents; preset {request.preset!r} needs "
            f"f{config.down_factor}c{config.latent_channels}"
        )
    module = _built(lambda: Denoiser(config), config).to(request.device)
    teacher = None
    if preset.teacher:
        teacher = _fitting("teacher", request.teacher or shipped_path(preset.teacher), request.preset, config, sha256)
    data = encode_cached(data, autoencoder, sha256, request.device, report, writes).resident(request.device)
    manifest = Manifest(request.decoder, "denoiser", asdict(config), _trained_on(data), sha256, preset.flow)
    lineage: dict[str, Any] = {"encoder_sha256": sha256}
    if request.start is not None:
        start, start_sha256, start_recipe = _fitting("start", request.start, request.preset, config, sha256)
        module.load_state_dict(start.state_dict())
        lineage |= {"start_sha256": start_sha256, "start_recipe_sha256": start_recipe}
    flow = make_flow(preset.flow, preset.scales)
    objective: Objective
    if isinstance(loss, FlowLossConfig):
        objective = FlowObjective(module, flow, data, loss, perceptual)
    elif isinstance(loss, RegressionLossConfig):
        objective = RegressionObjective(module, flow, data, loss, perceptual, adversary)
    else:
        assert teacher is not None
        assert isinstance(loss, DistillationLossConfig)
        network, teacher_sha256, teacher_recipe = teacher
        network.to(request.device)
        module.load_state_dict(network.state_dict())
        lineage |= {"teacher_sha256": teacher_sha256, "teacher_recipe_sha256": teacher_recipe}
        if loss.objective == "self":
            objective = SelfDistillationObjective(module, network, flow, data, loss, adversary)
        else:
            objective = DistillationObjective(module, network, flow, data, loss, perceptual, adversary)
    return Assembly(objective, manifest, loss, lineage)


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


def _trained_on(data: TrainingImages) -> str:
    return f"{data.name} ({len(data.images)} images, {data.images.shape[-1]} px)"
