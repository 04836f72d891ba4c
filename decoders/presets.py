"""Presets as data: what each shipped decoder is, and how big each preset's networks are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from decoders.autoencoder import AutoencoderConfig
from decoders.denoiser import DenoiserConfig
from decoders.flow import FlowName
from harness.errors import UnknownNameError

Objective = Literal["autoencoder", "flow", "distill", "regression"]


@dataclass(frozen=True, slots=True)
class DiffusionPreset:
    """A diffusion decoder: flow, scales, steps, and how it is trained."""

    flow: FlowName
    """path of each scale"""
    scales: int
    """K"""
    steps: int
    """network calls per image over all scales"""
    objective: Objective
    """how its weights are trained"""
    teacher: str | None = None
    """decoder whose multi-step result a student matches, and whose weights it starts from"""


DIFFUSION: Mapping[str, DiffusionPreset] = MappingProxyType(
    {
        "diffusion": DiffusionPreset("cascade", 1, 50, "flow"),
        "ms-diffusion": DiffusionPreset("pyramid", 3, 50, "flow"),
        "ms-diffusion-cascade": DiffusionPreset("cascade", 3, 50, "flow"),
        "onestep": DiffusionPreset("cascade", 1, 1, "distill", teacher="diffusion"),
        "ms-onestep": DiffusionPreset("cascade", 3, 3, "distill", teacher="ms-diffusion-cascade"),
        "direct": DiffusionPreset("noise-free", 1, 1, "regression"),
    }
)
"""With one scale the cascade and the pyramid are the same path, from noise to image."""


@dataclass(frozen=True, slots=True)
class SizePreset:
    """Shapes of the networks of one size."""

    autoencoder: AutoencoderConfig
    """the KL-VAE"""
    denoiser: DenoiserConfig
    """the denoiser; `scales` is set by the decoder"""


SIZES: Mapping[str, SizePreset] = MappingProxyType(
    {
        "nano": SizePreset(AutoencoderConfig(), DenoiserConfig(widths=(64, 128, 128), depths=(1, 2, 2))),
    }
)


def size_preset(name: str) -> SizePreset:
    """The size called `name`; raises `UnknownNameError`."""
    if name not in SIZES:
        raise UnknownNameError("preset", name, SIZES)
    return SIZES[name]


def denoiser_config(size: SizePreset, scales: int) -> DenoiserConfig:
    """The denoiser of a size for K scales, fitted to that size's latents."""
    return replace(
        size.denoiser,
        scales=scales,
        latent_channels=size.autoencoder.latent_channels,
        down_factor=size.autoencoder.down_factor(),
    )
