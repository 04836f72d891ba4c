"""Saving the images of a run: DIR/reference/KEY.png and DIR/<decoder>/KEY.png, the exact uint8 that the metrics saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.files import atomic_path


class ImageSaver:
    """Writes lossless PNGs below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, group: str, keys: Sequence[str], images: NDArray[np.uint8]) -> None:
        """Write uint8 [B, H, W, 3] as group/KEY.png each."""
        for key, image in zip(keys, images, strict=True):
            with atomic_path(self.folder / group / f"{key}.png") as temporary:
                Image.fromarray(image).save(temporary, format="PNG")
