"""Crops of a training step: how many and how large, and how both change over a run."""

from __future__ import annotations

from dataclasses import dataclass

from decoders.settings import Count, Share
from decoders.training.data import TrainingImages


@dataclass(frozen=True, slots=True)
class CropConfig:
    """What every objective is told of its crops, and from when LPIPS counts."""

    batch: Count = 16
    """crops a step"""
    crop: Count = 128
    """side of a crop in full-resolution pixels"""
    whole_from: Share = 0.8
    """progress from which whole images are taken, fewer by their pixels: a crop's borders are most of what a network sees"""
    lpips_from: Share = 0.5
    """progress from which LPIPS counts: squared error alone gets further first"""

    def at(self, progress: float, side: int) -> tuple[int, int]:
        """Crops a step and their side at `progress`, of images with this side."""
        crop = min(self.crop, side)
        return (max(1, round(self.batch * (crop / side) ** 2)), side) if progress >= self.whole_from else (self.batch, crop)

    def phase(self, progress: float) -> tuple[bool, bool]:
        """What decides the cost of a step: whole images or crops, with LPIPS or without."""
        return progress >= self.whole_from, progress >= self.lpips_from


class CropObjective:
    """What the trainer asks an objective of its crops."""

    crops: CropConfig
    data: TrainingImages

    def samples(self, progress: float) -> int:
        """Images of a step."""
        return self.crops.at(progress, self.data.images.shape[-1])[0]

    def phase(self, progress: float) -> tuple[bool, bool]:
        """See `CropConfig.phase`."""
        return self.crops.phase(progress)
