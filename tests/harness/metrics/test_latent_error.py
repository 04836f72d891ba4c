from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.metrics.latent_error import latent_error
from harness.metrics.metric import Batch

IMAGES = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)


def test_distance_over_length_of_each_image() -> None:
    latents = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    found = latent_error(Batch(IMAGES, IMAGES, latents=latents, encode=lambda images: torch.tensor([[3.0, 4.5], [0.0, 2.0]])))
    assert found == pytest.approx([0.1, 0.0])


def test_without_a_latent_grid_there_is_none() -> None:
    assert np.isnan(latent_error(Batch(IMAGES, IMAGES, latents=IMAGES))).all()
