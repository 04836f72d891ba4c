"""Latent faithfulness of indices: does a reconstruction get the tokens it was decoded from?"""

from __future__ import annotations

import numpy as np

from harness.metrics.metric import Batch, Column, Metric, PerImage


def token_agreement(batch: Batch) -> Column:
    """Share of the indices of E(D(z)) that equal z's, by place: float64 [B], 1 at best; NaN unless latents are indices."""
    if batch.latents is None or batch.encode is None or batch.latents.is_floating_point():
        return np.full(len(batch.images), np.nan)
    equal = batch.encode(batch.images).flatten(1) == batch.latents.flatten(1)
    return np.asarray(equal.double().mean(dim=1).cpu().numpy(), dtype=np.float64)


METRIC = Metric(
    name="token_agreement",
    direction="higher",
    description="share of tokens that the reconstruction is encoded to again; measured wherever latents are indices",
    definition="share of the indices of the rounded reconstruction that equal the image's, by place",
    title="Token agreement",
    ranked=False,
    extra=True,
    load=lambda device, offline: PerImage(lambda batch, _: token_agreement(batch)),
)
