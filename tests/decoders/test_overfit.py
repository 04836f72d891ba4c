"""200 steps on 64 pictures must overfit them: training as a whole learns, not only its parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from decoders.autoencoder import Autoencoder, AutoencoderConfig
from decoders.training.autoencoder import AutoencoderLossConfig, AutoencoderObjective
from decoders.training.config import TrainConfig
from decoders.training.data import TrainingImages, to_float
from decoders.training.trainer import train

SMALL = AutoencoderConfig(
    latent_channels=16, encoder_widths=(24, 48), encoder_depths=(1, 1), decoder_widths=(24, 48), decoder_depths=(1, 1)
)


def scenes(count: int, side: int) -> Tensor:
    """Shaded backgrounds with discs and bars of random colours, places and sizes, antialiased: uint8 [count, 3, side, side]."""
    draws = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand((count, *shape), generator=draws)

    images = F.interpolate(uniform(3, 2, 2), size=side, mode="bilinear", align_corners=True)
    y, x = torch.meshgrid(torch.arange(side) / side, torch.arange(side) / side, indexing="ij")
    for index in range(6):
        centre_y, centre_x, radius = uniform(1, 1, 1), uniform(1, 1, 1), 0.06 + 0.2 * uniform(1, 1, 1)
        dy, dx = (y - centre_y).abs(), (x - centre_x).abs()
        distance = (dy.square() + dx.square()).sqrt() if index % 2 else torch.maximum(dy, 3 * dx)
        mask = ((radius - distance) * side + 0.5).clamp(0, 1)
        images = images + mask * (uniform(3, 1, 1) - images)
    return (images * 255).round().to(torch.uint8)


def psnr(output: Tensor, images: Tensor) -> float:
    """Mean of per-image dB on [-1, 1]."""
    error = (output.clamp(-1, 1) - images).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4.0 / error)).mean())


def test_200_steps_on_64_images_overfit_by_5_db(perceptual: Any, tmp_path: Path) -> None:
    pictures = TrainingImages("scenes", scenes(64, 64), "0" * 64)
    images = to_float(pictures.images)
    torch.manual_seed(0)
    module = Autoencoder(SMALL)

    def quality() -> float:
        with torch.inference_mode():
            return psnr(module.decode(module.encode(images)), images)

    flat = psnr(images.mean(dim=(2, 3), keepdim=True).expand_as(images), images)
    before = quality()
    loss = AutoencoderLossConfig(batch=8, crop=64, lpips=0.0)
    result = train(
        AutoencoderObjective(module, pictures, loss, perceptual),
        TrainConfig(max_steps=200, learning_rate=4e-3, warmup=20, precision="fp32"),
        tmp_path,
        torch.device("cpu"),
    )
    after = quality()
    assert result.steps == 200
    # Against the start, and against the best that one colour a picture can do.
    assert after - before > 5
    assert after - flat > 5
