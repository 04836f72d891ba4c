"""From a request to what is trained: networks, objective, and what the checkpoint and its card will say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from decoders.autoencoder import Autoencoder, AutoencoderConfig
from decoders.checkpoint import Manifest, NamedLatents, lineage_of, load_autoencoder, load_denoiser, shipped_path
from decoders.denoiser import Denoiser, DenoiserConfig
from decoders.flow import make_flow
from decoders.latents import FrozenEncoder, named_encoder, own_encoder
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
from harness.request.requests import parse_request

ModuleT = TypeVar("ModuleT", bound=nn.Module)
LossConfig = AutoencoderLossConfig | FlowLossConfig | DistillationLossConfig | RegressionLossConfig
_LOSSES: Mapping[str, LossConfig] = {
    "flow": FlowLossConfig(),
    "regression": RegressionLossConfig(),
    "distill": DistillationLossConfig(),
}
_FOLLOWS = {"denoiser.scales": "--scales", "denoiser.latent_channels": "the latents", "denoiser.down_factor": "the latents"}
"""fields that no setting decides, and what does"""
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
    encoder: FrozenEncoder | None = None
    """gives a denoiser its latents"""
    teacher: Denoiser | None = None
    """of a student"""
    begun: Manifest | None = None
    """of the teacher or start, whose normalisation of the latents stays"""
    lineage: dict[str, Any] = field(default_factory=dict)
    """hashes of encoder, teacher and start, and the compute of the latter's trainings"""


def plan(request: TrainRequest) -> Plan:
    """Lay the preset's settings and the request's over the defaults.

    Raises:
        UnknownNameError: no such preset, or a setting of an unknown field.
        MsbenchError: a value of the wrong type or outside its range, or settings that contradict one another.
    """
    for line in request.settings:
        if source := _FOLLOWS.get(line.partition("=")[0].strip()):
            raise MsbenchError(f"--set {line}: it follows from {source}, leave it out")
    size = size_preset(request.preset or "nano")
    size = SizePreset(
        checked("autoencoder", apply_settings("autoencoder", size.autoencoder, request.settings)),
        apply_settings("denoiser", size.denoiser, request.settings),
    )
    preset, lines = DIFFUSION.get(request.decoder), request.settings
    default: LossConfig = AutoencoderLossConfig() if request.decoder == "vae" else TUNING
    if preset is not None:
        preset = replace(preset, scales=preset.scales if request.scales is None else request.scales)
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
    config, size_name, path = size.denoiser, request.preset or "nano", request.vae or shipped_path("vae")
    if request.encoder is not None:
        encoder = named_encoder(parse_request(request.encoder), device, request.offline)
        factor, grids = encoder.down_factor, [config.patch * 2**level for level in range(len(config.widths))]
        if factor not in grids:
            raise MsbenchError(f"{encoder.name} is f{factor}; preset {size_name!r} has grids of {grids} px: set denoiser.patch")
        config = replace(config, latent_channels=encoder.channels, down_factor=factor)
        lineage: dict[str, Any] = {"encoder": encoder.name, "encoder_sha256": encoder.sha256}
    else:
        autoencoder = load_autoencoder(path)[0].to(device)
        encoder = own_encoder(autoencoder, sha256_file(path))
        lineage = {"encoder_sha256": encoder.sha256}
        if preset is None:
            return Networks(autoencoder.requires_grad_(True), lineage=lineage)
        autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if (encoder.channels, encoder.down_factor) != (config.latent_channels, config.down_factor):
            raise MsbenchError(
                f"{path} gives f{encoder.down_factor}c{encoder.channels} latents; preset {size_name!r} needs "
                f"f{config.down_factor}c{config.latent_channels}"
            )
    assert preset is not None
    module = _built(lambda: Denoiser(config), config).to(device)
    role, start = "start", request.start
    if preset.teacher is not None:
        role, start = "teacher", request.teacher or shipped_path(preset.teacher)
    if start is None:
        return Networks(module, encoder, lineage=lineage)
    network, manifest = _fitting(role, start, size_name, config, encoder)
    if role == "teacher" and preset.scales > 1 and manifest.flow != preset.flow:
        raise MsbenchError(f"teacher {start} follows the {manifest.flow} flow; {request.decoder} needs {preset.flow}")
    if isinstance(planned.loss, DistillationLossConfig) and planned.loss.objective != "direct":
        kind = DIFFUSION.get(manifest.decoder)
        if kind is not None and kind.objective != "flow":
            raise MsbenchError(f"teacher {start} is a {manifest.decoder}, which takes no steps: give one as {preset.teacher}")
    network.to(device)
    module.load_state_dict(network.state_dict())
    start_sha256 = sha256_file(start)
    its = lineage_of(start, start_sha256)
    took = [its.get(name) for name in ("start_pflops", "training_pflops")]
    lineage |= {f"{role}_sha256": start_sha256, f"{role}_recipe_sha256": manifest.recipe_sha256}
    lineage["start_pflops"] = None if None in took else sum(took)
    return Networks(module, encoder, network if role == "teacher" else None, manifest, lineage)


def encoded(
    built: Networks, data: TrainingImages, device: torch.device, report: Callable[[str], None], writes: bool = True
) -> TrainingImages:
    """`data` with the latents that a denoiser needs, and the statistics that they are normalised by; else as it is.

    Images are encoded where that was not done before; without `writes` another process does it.
    """
    if built.encoder is None:
        return data
    data = encode_cached(data, built.encoder, device, report, writes)
    if built.encoder.name is None or data.latents is None:
        return data
    if built.begun is not None:  # its network reads latents normalised as it learned them
        return replace(data, named=built.begun.latents)
    std, mean = torch.std_mean(data.latents, dim=(0, 2, 3), correction=0)
    std[std < 1e-6] = 1.0
    return replace(data, named=NamedLatents(built.encoder.name, tuple(mean.tolist()), tuple(std.tolist())))


def assemble(
    request: TrainRequest, planned: Plan, built: Networks, data: TrainingImages, lpips: Lpips, report: Callable[[str], None]
) -> Objective:
    """The objective over networks and data; `lpips` is the network `request.perceptual` names.

    A denoiser's data come from `encoded`. A new run's linear path is fitted.
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
    assert preset is not None
    data = data.resident(device)
    if module.config.linear and not (request.resume or built.begun):
        assert data.latents is not None
        report("fitting the least-squares map from latents to cells")
        weight, bias = fit_linear_map(data.latents, data.images, module.config.down_factor)
        if data.named is not None:  # the map of the same latents normalised
            mean, std = torch.tensor(data.named.mean), torch.tensor(data.named.std)
            weight, bias = weight * std, bias + weight @ mean
        module.start_linear(weight, bias)
    flow = make_flow(preset.flow, preset.scales)
    if isinstance(loss, FlowLossConfig):
        return FlowObjective(module, flow, data, loss, perceptual)
    if isinstance(loss, RegressionLossConfig):
        return RegressionObjective(module, flow, data, loss, perceptual)
    assert built.teacher is not None
    return DistillationObjective(module, built.teacher, flow, data, loss, perceptual)


def _fitting(role: str, path: Path, preset: str, expected: DenoiserConfig, encoder: FrozenEncoder) -> tuple[Denoiser, Manifest]:
    """A checkpoint that a run can go on from; errors call it `role`."""
    network, manifest = load_denoiser(path)
    named = manifest.latents and manifest.latents.encoder
    if manifest.encoder_sha256 != encoder.sha256 or bool(named) != bool(encoder.name):
        other = named or encoder_path(path, manifest.encoder_sha256)
        raise MsbenchError(f"{role} {path} was trained on another encoder's latents ({other})")
    if network.config != expected:
        raise MsbenchError(f"{role} {path} has another architecture than preset {preset!r} with {expected.scales} scales")
    return network, manifest


def _built(build: Callable[[], ModuleT], config: AutoencoderConfig | DenoiserConfig) -> ModuleT:
    """The network, or one clear line where settings do not make one."""
    try:
        return build()
    except (ValueError, IndexError, RuntimeError, ZeroDivisionError) as error:
        raise MsbenchError(f"these settings make no network ({error}): {config}") from error
