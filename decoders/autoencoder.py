"""The KL autoencoder: its encoder gives the latents every decoder here works on, its decoder is the `vae` decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, with_config
from torch import Tensor, nn

from decoders.blocks import Down, PixelNorm, ResidualBlock, Up, block_lists, set_linear, zero
from decoders.settings import Depths, Width, Widths
from harness.cells import CellPca

Patch = Annotated[int, Field(ge=1, le=64)]
START_LOG_VARIANCE = -10.0
"""of the posterior of an encoder that begins as the principal components: far below the spread of its latents, which is 1"""


@with_config(extra="forbid")
@dataclass(frozen=True, slots=True)
class AutoencoderConfig:
    """Shape of the autoencoder: f = patch · 2^(levels - 1)."""

    latent_channels: Width = 4
    """channels of the latents"""
    patch: Patch = 4
    """space-to-depth factor of the stem and head"""
    encoder_widths: Widths = (64, 128)
    """channels of each encoder grid, finest first; the last grid is the latents'"""
    encoder_depths: Depths = (1, 2)
    """residual blocks of each encoder grid"""
    decoder_widths: Widths = (64, 160)
    """channels of each decoder grid, finest first"""
    decoder_depths: Depths = (2, 3)
    """residual blocks of each decoder grid"""
    linear: bool = False
    """a linear path beside both networks: cells to latents and back, started as their principal components"""

    def down_factor(self) -> int:
        """Pixels per latent a side."""
        return int(self.patch * 2 ** (len(self.encoder_widths) - 1))


class Encoder(nn.Module):
    """Images [B, 3, H, W] in [-1, 1] -> mean and log-variance of the latents, each [B, C, H/f, W/f]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.patch = config.patch
        widths = config.encoder_widths
        self.stem = nn.Conv2d(3 * config.patch**2, widths[0], 3, padding=1)
        layers: list[nn.Module] = []
        for level, (width, depth) in enumerate(zip(widths, config.encoder_depths, strict=True)):
            if level > 0:
                layers.append(Down(widths[level - 1], width))
            layers += [ResidualBlock(width) for _ in range(depth)]
        self.body = nn.Sequential(*layers)
        self.norm = PixelNorm(widths[-1])
        self.head = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)
        self.down_factor = config.down_factor()
        self.linear = nn.Conv2d(3 * self.down_factor**2, config.latent_channels, 1) if config.linear else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(self.stem(F.pixel_unshuffle(images, self.patch)))
        mean, log_variance = self.head(F.silu(self.norm(h))).chunk(2, dim=1)
        if self.linear is not None:
            mean = mean + self.linear(F.pixel_unshuffle(images, self.down_factor))
        return mean, log_variance.clamp(-20.0, 10.0)


class ImageDecoder(nn.Module):
    """Raw latents [B, C, h, w] -> images [B, 3, f·h, f·w]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.patch = config.patch
        widths, depths = config.decoder_widths, config.decoder_depths
        self.stem = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.blocks = block_lists(widths, depths)
        self.ups = nn.ModuleList(Up(widths[level + 1], widths[level]) for level in range(len(widths) - 1))
        self.norm = PixelNorm(widths[0])
        self.head = nn.Conv2d(widths[0], 3 * config.patch**2, 3, padding=1)
        self.down_factor = config.down_factor()
        self.linear = nn.Conv2d(config.latent_channels, 3 * self.down_factor**2, 1) if config.linear else None

    def forward(self, latents: Tensor) -> Tensor:
        h = self.stem(latents)
        for level in reversed(range(len(self.blocks))):
            if level < len(self.ups):
                h = self.ups[level](h, (2 * h.shape[-2], 2 * h.shape[-1]))
            for block in self.blocks[level]:  # type: ignore[attr-defined]
                h = block(h)
        images = F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch)
        return images if self.linear is None else images + F.pixel_shuffle(self.linear(latents), self.down_factor)


class Autoencoder(nn.Module):
    """KL-VAE (Kingma & Welling, 2013). Latents leave `encode` normalised per channel with statistics kept in the checkpoint."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = ImageDecoder(config)
        shape = (1, config.latent_channels, 1, 1)
        self.register_buffer("latent_mean", torch.zeros(shape))
        self.register_buffer("latent_std", torch.ones(shape))

    @torch.no_grad()
    def start_linear(self, pca: CellPca) -> None:
        """Begin as plain PCA: the linear path is the projection and its transpose, and both networks' outputs are zero."""
        assert self.encoder.linear is not None
        assert self.decoder.linear is not None
        set_linear(self.encoder.linear, *pca.projection())
        set_linear(self.decoder.linear, *pca.transpose())
        zero(self.encoder.head)
        zero(self.decoder.head)
        self.encoder.head.bias[self.config.latent_channels :] = START_LOG_VARIANCE  # type: ignore[index]

    def encode(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1], H and W multiples of f -> normalised posterior means [B, C, H/f, W/f]."""
        mean, _ = self.encoder(images)
        return (mean - self.latent_mean) / self.latent_std  # type: ignore[no-any-return]

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents [B, C, h, w] -> images [B, 3, f·h, f·w]."""
        return self.decoder(latents * self.latent_std + self.latent_mean)  # type: ignore[no-any-return]


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, e^log_variance) || N(0, 1)), mean over batch and latents, in nats per latent number."""
    return 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).mean()
