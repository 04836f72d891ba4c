"""What a training run is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from decoders.presets import DIFFUSION
from decoders.settings import apply_settings, check_settings
from decoders.training.perceptual import PerceptualConfig
from decoders.training.trainer import TrainConfig
from harness.data.types import Request
from harness.errors import MsbenchError

AUTOENCODERS = ("vae", "vae-ft")
"""Decoders that are an autoencoder's own; all others are denoisers."""


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
        UnknownNameError: a setting names no group or field of this run.
        MsbenchError: a value of the wrong type, scales for a decoder without any, or a start for one that has its own.
    """
    networks = "autoencoder" if request.decoder in AUTOENCODERS else "denoiser"
    check_settings(request.settings, (networks, "loss", "adversary", "perceptual", "train"))
    if request.scales is not None and request.decoder in AUTOENCODERS:
        raise MsbenchError(f"{request.decoder} has no scales: leave --scales out")
    if request.start is not None and (request.decoder in AUTOENCODERS or DIFFUSION[request.decoder].teacher):
        raise MsbenchError(f"{request.decoder} has a start of its own: leave --start-from out")
    return replace(
        request,
        config=apply_settings("train", request.config, request.settings),
        perceptual=apply_settings("perceptual", request.perceptual, request.settings),
    )
