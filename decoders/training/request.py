"""What a training run is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from decoders.presets import AUTOENCODERS, DIFFUSION
from decoders.settings import apply_settings, check_settings, checked
from decoders.training.config import TrainConfig, check_config
from decoders.training.perceptual import PerceptualConfig
from harness.data.types import Request
from harness.errors import MsbenchError, UnknownNameError
from harness.report.tensorboard import summary_writer


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What `msbench train-decoder` was asked for."""

    decoder: str
    """registry name of a trainable decoder"""
    data: Request
    """training data; its split must be "train" or the dataset has none"""
    output: Path
    """folder for the run: state, log, checkpoint, card"""
    preset: str | None = None
    """size of the networks; None = nano"""
    scales: int | None = None
    """K of a denoiser; None = the decoder's own"""
    settings: tuple[str, ...] = ()
    """"group.field=value" lines over every config of the run, after the preset's"""
    config: TrainConfig = field(default_factory=TrainConfig)
    """budget and optimiser"""
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    """the LPIPS that is trained on"""
    vae: Path | None = None
    """autoencoder checkpoint that gives the latents; None = the shipped one"""
    encoder: str | None = None
    """any decoder, `NAME[@option=value]…`, whose encoder gives the latents instead"""
    teacher: Path | None = None
    """teacher checkpoint of a student; None = the shipped one"""
    start: Path | None = None
    """checkpoint of the same architecture whose weights a flow or a control starts from; None = random weights"""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """where to train"""
    resume: bool = False
    """go on from the run's saved state"""
    offline: bool = False
    """never touch the network"""


def trainable_decoders() -> list[str]:
    """Names `train-decoder` takes."""
    return [*AUTOENCODERS, *DIFFUSION]


def configured(request: TrainRequest) -> TrainRequest:
    """The request with its own groups of settings (train, perceptual) applied; the others are checked to name a group.

    Raises:
        UnknownNameError: no such decoder, or a setting names no group or field of this run.
        MsbenchError: a value of the wrong type or out of its range, no budget, or an option without a meaning for the decoder.
    """
    name, preset = request.decoder, DIFFUSION.get(request.decoder)
    if name not in trainable_decoders():
        raise UnknownNameError("trainable decoder", name, trainable_decoders())
    has_teacher = preset is not None and preset.teacher is not None
    meaningless = {
        "--preset": request.preset if name == "vae-ft" else None,
        "--scales": request.scales if preset is None else None,
        "--vae": request.vae if name == "vae" or request.encoder else None,
        "--encoder": request.encoder if preset is None else None,
        "--teacher": None if has_teacher else request.teacher,
        "--start-from": request.start if preset is None or has_teacher else None,
    }
    beside = f" with --encoder {request.encoder}" if preset and request.encoder else ""
    for option, value in meaningless.items():
        if value is not None:
            raise MsbenchError(f"{option} {value} has no meaning for {name}{beside}: leave {option} out")
    networks = {"vae": ("autoencoder",), "vae-ft": ()}.get(name, ("denoiser",))
    check_settings(request.settings, (*networks, "loss", "perceptual", "train"))
    config = apply_settings("train", request.config, request.settings)
    check_config(config)
    if config.tensorboard:
        summary_writer()
    perceptual = checked("perceptual", apply_settings("perceptual", request.perceptual, request.settings))
    return replace(request, config=config, perceptual=perceptual)
