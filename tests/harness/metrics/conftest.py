"""Weights and a few photographs for the metric tests."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor


@pytest.fixture(scope="session")
def photos() -> Tensor:
    """Eight 256-px crops of everyday photographs, uint8 [8, 3, 256, 256]."""
    astronaut, cat, coffee, rocket = data.astronaut(), data.chelsea(), data.coffee(), data.rocket()
    corners = [(astronaut, y, x) for y in (0, 256) for x in (0, 256)]
    corners += [(cat, 20, 100), (coffee, 0, 0), (coffee, 100, 300), (rocket, 100, 200)]
    return torch.stack([torch.from_numpy(image[y : y + 256, x : x + 256].copy()).permute(2, 0, 1) for image, y, x in corners])


@pytest.fixture(scope="session")
def reconstructions(photos: Tensor) -> Tensor:
    """The same after JPEG at a low quality, which a decoder's artefacts resemble."""
    decoded = []
    for photo in photos:
        stream = io.BytesIO()
        Image.fromarray(photo.permute(1, 2, 0).numpy()).save(stream, "JPEG", quality=12)
        decoded.append(torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1))
    return torch.stack(decoded)
