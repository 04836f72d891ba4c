"""Training images in memory as uint8, with the frozen encoder's latents beside them, cropped together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from harness.data.registry import open_dataset
from harness.data.types import Request
from harness.errors import MsbenchError

MIN_IMAGES = 16
HELD_OUT_PREFIX = "ILSVRC2012_val_"


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """Images of one size and, once encoded, their latents."""

    name: str
    """dataset and split, as a model card states it"""
    images: Tensor
    """uint8 [N, 3, S, S]"""
    sha256: str
    """hash over keys and pixels"""
    latents: Tensor | None = None
    """float32 [N, C, S/f, S/f], normalised"""

    def with_latents(self, encode: Callable[[Tensor], Tensor], batch: int = 32) -> TrainingImages:
        """Encode every whole image once; crops are then cut from the cache."""
        with torch.inference_mode():
            parts = [encode(to_float(self.images[i : i + batch])).float() for i in range(0, len(self.images), batch)]
        return replace(self, latents=torch.cat(parts).clone())

    def crops(self, count: int, size: int, grid: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Random crops whose corners lie on multiples of `grid` pixels.

        Returns:
            images float32 [count, 3, size, size] in [-1, 1] and latents [count, C, size/grid, size/grid] (None without a cache).
        """
        side = self.images.shape[-1]
        size = min(size, side // grid * grid)
        index = torch.randint(len(self.images), (count,), generator=generator).tolist()
        corners = (torch.randint((side - size) // grid + 1, (count, 2), generator=generator) * grid).tolist()
        images = torch.stack(
            [self.images[i, :, y : y + size, x : x + size] for i, (y, x) in zip(index, corners, strict=True)]
        )
        if self.latents is None:
            return to_float(images), None
        n = size // grid
        latents = torch.stack(
            [
                self.latents[i, :, y // grid : y // grid + n, x // grid : x // grid + n]
                for i, (y, x) in zip(index, corners, strict=True)
            ]
        )
        return to_float(images), latents


def to_float(images: Tensor) -> Tensor:
    """uint8 [0, 255] -> float32 [-1, 1]."""
    return images.float() / 127.5 - 1.0


def load_training_images(request: Request) -> TrainingImages:
    """Read a dataset's train split into memory.

    Raises:
        MsbenchError: the dataset is wrong, or too small to train on.
    """
    dataset = open_dataset(
        request.name,
        data_dir=request.data_dir,
        resolution=request.resolution,
        max_samples=request.max_samples,
        seed=request.seed,
        allow_upsampling=request.allow_upsampling,
        split=request.split,
        offline=request.offline,
    )
    # ImageNet's validation images are what others are measured on; they are not trained on, whatever folder they lie in.
    kept = [i for i, entry in enumerate(dataset.entries) if not entry.name.rpartition("/")[2].startswith(HELD_OUT_PREFIX)]
    digest = hashlib.sha256()
    arrays = []
    for example in dataset.stream(kept):
        digest.update(example.key.encode() + example.image.tobytes())
        arrays.append(np.ascontiguousarray(example.image.transpose(2, 0, 1)))
    if len(arrays) < MIN_IMAGES:
        raise MsbenchError(f"{request.name}: {len(arrays)} usable images, training needs at least {MIN_IMAGES}")
    split = f" {request.split}" if request.split else ""
    return TrainingImages(f"{request.name}{split}", torch.from_numpy(np.stack(arrays)), digest.hexdigest())
