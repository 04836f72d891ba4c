"""Latent faithfulness: does a reconstruction still say what the latents said?"""

from __future__ import annotations

import numpy as np

from harness.metrics.metric import Batch, Column, Metric, PerImage, floor


def latent_error(batch: Batch) -> Column:
    """‖E(D(z)) - z‖ / ‖z‖ of each image, D(z) its rounded reconstruction: float64 [B], 0 at best; NaN for indices."""
    if batch.latents is None or batch.encode is None or not batch.latents.is_floating_point():
        return np.full(len(batch.images), np.nan)
    wanted = batch.latents.flatten(1).cpu().double()
    distance = (batch.encode(batch.images).flatten(1).cpu().double() - wanted).norm(dim=1)
    return np.asarray((distance / wanted.norm(dim=1).clamp_min(1e-12)).numpy(), dtype=np.float64)


METRIC = Metric(
    name="latent_error",
    direction="lower",
    description="latent faithfulness ‖E(D(z)) - z‖ / ‖z‖; only decoders of one encoder compare",
    definition="relative L2 of the latents of the rounded reconstruction",
    title="Latent error",
    ranked=False,
    margin="0.02",
    load=lambda device, offline: PerImage(lambda batch, _: latent_error(batch)),
    tolerance=floor(6e-6),
)
