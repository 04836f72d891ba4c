"""Presets as data: what each shipped decoder is, and how big each preset's networks are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from decoders.autoencoder import AutoencoderConfig
from decoders.denoiser import DenoiserConfig
from decoders.flow import FlowName
from decoders.settings import checked
from harness.errors import UnknownNameError

Objective = Literal["autoencoder", "flow", "distill", "regression"]


AUTOENCODERS = ("vae", "vae-ft")
"""Decoders that are an autoencoder's own; all others are denoisers."""


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
    settings: tuple[str, ...] = ()
    """what its training sets differently from the defaults, as `--set` takes it"""


DIFFUSION: Mapping[str, DiffusionPreset] = MappingProxyType(
    {
        "diffusion": DiffusionPreset("cascade", 1, 50, "flow"),
        "ms-diffusion": DiffusionPreset("pyramid", 3, 50, "flow"),
        "ms-diffusion-cascade": DiffusionPreset("cascade", 3, 50, "flow"),
        "onestep": DiffusionPreset("cascade", 1, 1, "distill", teacher="diffusion"),
        "ms-onestep": DiffusionPreset("pyramid", 3, 3, "distill", teacher="ms-diffusion"),
        "ms-onestep-cascade": DiffusionPreset("cascade", 3, 3, "distill", teacher="ms-diffusion-cascade"),
        "direct": DiffusionPreset("noise-free", 1, 1, "regression"),
        "ms-direct": DiffusionPreset("noise-free", 3, 3, "regression"),
        "rate-bound": DiffusionPreset("noise-free", 1, 1, "regression", settings=("loss.mse=1", "loss.l1=0", "loss.lpips=0")),
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


def _one_grid(channels: int, encoder: tuple[int, int], decoder: tuple[int, int], denoiser: DenoiserConfig) -> SizePreset:
    """f8 latents with this many channels; width and depth of the autoencoder's halves, all blocks on the latents' own grid."""
    (encoder_width, encoder_depth), (width, depth) = encoder, decoder
    shape = AutoencoderConfig(channels, 8, (encoder_width,), (encoder_depth,), (width,), (depth,), linear=True)
    return SizePreset(shape, replace(denoiser, patch=8, stem=1, linear=True))


_NANO = DenoiserConfig(widths=(256,), depths=(2,), latent_width=48)
# One grid: half the blocks and no resampling at equal multiply-adds. Every network starts as a linear code of cells.
SIZES: Mapping[str, SizePreset] = MappingProxyType(
    {
        "nano": _one_grid(16, (128, 2), (256, 2), _NANO),
        "nano-f8c4": _one_grid(4, (128, 2), (256, 2), _NANO),
        "nano-f16c16": SizePreset(
            AutoencoderConfig(16, 8, (128, 192), (1, 2), (160, 256), (1, 2), linear=True),
            DenoiserConfig(patch=8, stem=1, widths=(160, 256), depths=(1, 2), linear=True),
        ),
        "small": _one_grid(16, (256, 4), (320, 5), DenoiserConfig(widths=(320,), depths=(6,), embedding=256, latent_width=128)),
        "base": _one_grid(16, (384, 6), (512, 8), DenoiserConfig(widths=(640,), depths=(12,), embedding=512, latent_width=256)),
    }
)


def size_preset(name: str) -> SizePreset:
    """The size called `name`; raises `UnknownNameError`."""
    if name not in SIZES:
        raise UnknownNameError("preset", name, SIZES)
    return SIZES[name]


def denoiser_config(size: SizePreset, scales: int) -> DenoiserConfig:
    """The denoiser of a size for K scales, fitted to that size's latents; raises `MsbenchError` for too many scales."""
    config = replace(
        size.denoiser,
        scales=scales,
        latent_channels=size.autoencoder.latent_channels,
        down_factor=size.autoencoder.down_factor(),
    )
    return checked("denoiser", config)
