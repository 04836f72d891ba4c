"""Small synthetic pictures for the dataset tests."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data.types import Request

Picture = Callable[..., Image.Image]


@pytest.fixture
def picture() -> Picture:
    """picture(width, height, seed=0): a smooth random RGB image."""

    def make(width: int, height: int, seed: int = 0) -> Image.Image:
        small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)

    return make


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """encode(image, format="PNG", ...): the bytes of a file."""

    def make(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
        stream = BytesIO()
        image.save(stream, format, **options)
        return stream.getvalue()

    return make


@pytest.fixture
def tree(picture: Picture) -> Callable[..., Path]:
    """tree(root, names, size=16): JPEG or PNG files by name, each with other pixels."""

    def make(root: Path, names: Iterable[str], size: int = 16) -> Path:
        for seed, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(size, size, seed).save(path)
        return root

    return make


@pytest.fixture
def pack() -> Callable[[Path, Path], Path]:
    """pack(folder, tar): an uncompressed tar of the folder's contents."""

    def make(folder: Path, tar: Path) -> Path:
        with tarfile.open(tar, "w") as archive:
            archive.add(folder, arcname=".")
        return tar

    return make


@pytest.fixture
def request_for() -> Callable[..., Request]:
    """request_for(name, data_dir=None, resolution=16, ...): a request with the plain defaults."""

    def make(
        name: str,
        data_dir: Path | None = None,
        resolution: int | None = 16,
        max_samples: int | None = None,
        seed: int = 0,
        allow_upsampling: bool = False,
        split: str = "val",
        offline: bool = True,
    ) -> Request:
        return Request(name, data_dir, resolution, max_samples, seed, allow_upsampling, split, offline)

    return make
