"""Building blocks of the autoencoder and the denoiser: per-pixel RMSNorm, a residual block, resampling by reshuffling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PixelNorm(nn.Module):
    """RMSNorm over the channels of each pixel, with a learned gain: statistics do not shift from crop to full image.

    [B, C, H, W] -> [B, C, H, W].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.movedim(1, -1), self.weight.shape, self.weight.to(x.dtype), eps=1e-5).movedim(-1, 1)


class ResidualBlock(nn.Module):
    """norm → (modulation) → SiLU → 3×3 → SiLU → 3×3, added to the input; the last convolution starts at zero.

    `modulation` is a pair (scale, shift), each [B, C, 1, 1], or None.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = PixelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        zero(self.conv2)

    def forward(self, x: Tensor, modulation: tuple[Tensor, Tensor] | None = None) -> Tensor:
        h = self.norm(x)
        if modulation is not None:
            scale, shift = modulation
            h = torch.addcmul(shift, h, 1 + scale)
        residual: Tensor = self.conv2(F.silu(self.conv1(F.silu(h))))
        return x + residual


def block_lists(widths: Sequence[int], depths: Sequence[int]) -> nn.ModuleList:
    """Each grid's residual blocks, as many as its depth; raises `ValueError` where the two differ in length."""
    return nn.ModuleList(
        nn.ModuleList(ResidualBlock(width) for _ in range(depth)) for width, depth in zip(widths, depths, strict=True)
    )


class Down(nn.Module):
    """Halves the grid: 2×2 blocks to channels, then 1×1. Odd sizes are edge-padded by one first."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pixel_unshuffle(pad_to_multiple(x, 2), 2))  # type: ignore[no-any-return]


class Up(nn.Module):
    """Doubles the grid: 1×1, then channels to 2×2 blocks, cropped to the size asked for."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, 4 * channels_out, 1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)[..., : size[0], : size[1]]


def zero(layer: nn.Conv2d | nn.Linear) -> None:
    """Set weights and bias to zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


@torch.no_grad()
def set_linear(layer: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Give a 1×1 convolution this matrix [C_out, C_in] and bias [C_out]."""
    layer.weight.copy_(weight[:, :, None, None])
    layer.bias.copy_(bias)  # type: ignore[union-attr]


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until height and width are multiples of `multiple`. [B, C, H, W]."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
