"""64 pictures of no square shape, and a run over them with saved images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from harness.explain.explanation import Explanation
from harness.run import runner
from harness.run.config import RunConfig
from tests.harness.run.light import LightSuite

COUNT, FEW, RESOLUTION, WIDTH, HEIGHT = 64, 6, 64, 96, 72
Pictures = list[NDArray[np.uint8]]


@dataclass(frozen=True)
class Saved:
    """A run and what it was made of."""

    run: Path
    images: Path
    originals: Path

    def pictures(self, group: str) -> Pictures:
        return read(self.images / group)

    def copied(self, group: str, folder: Path, **how: object) -> Path:
        """The saved images of a group written again, as JPEG where `quality` is given."""
        folder.mkdir()
        for path in sorted((self.images / group).glob("*.png")):
            Image.open(path).save(folder / f"{path.stem}.jpg", **how)
        return folder


def read(folder: Path) -> Pictures:
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]


def write_pictures(folder: Path, count: int = COUNT) -> Path:
    """Cuts of scikit-image's photographs, lying and standing in turn."""
    folder.mkdir()
    number = 0
    for photo in (data.astronaut(), data.coffee(), data.rocket()):
        for top in range(0, photo.shape[0] - WIDTH, WIDTH):
            for left in range(0, photo.shape[1] - WIDTH, WIDTH):
                height, width = (HEIGHT, WIDTH) if number % 2 else (WIDTH, HEIGHT)
                if number < count:
                    Image.fromarray(photo[top : top + height, left : left + width]).save(folder / f"cut{number:02d}.png")
                number += 1
    assert number >= count
    return folder


def make_run(folder: Path, decoders: str, suite: type | None, count: int = COUNT) -> Saved:
    """A run with saved images; without networks where a suite stands in for them."""
    originals = write_pictures(folder / "originals", count)
    with pytest.MonkeyPatch.context() as patch:
        if suite:
            patch.setattr(runner, "MetricSuite", suite)
        config = RunConfig(
            decoders,  # type: ignore[arg-type]
            f"folder:{originals}",
            resolution=RESOLUTION,
            cost=None,
            output_dir=folder / "run",
            save_images=folder / "images",
        )
        runner.evaluate(config)
    return Saved(folder / "run", folder / "images", originals)


@pytest.fixture(scope="session")
def light_run(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Of `jpeg` and `bicubic`; features and LPIPS are stand-ins."""
    return make_run(tmp_path_factory.mktemp("explain-light"), "jpeg,bicubic", LightSuite)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The same over few pictures."""
    return make_run(tmp_path_factory.mktemp("explain-small"), "jpeg,bicubic", LightSuite, FEW)


def value(found: Explanation, metric: str, name: str) -> float:
    """The value of one convention, which must have been computed."""
    (one,) = (one for one in found.findings if (one.convention.metric, one.convention.name) == (metric, name))
    assert one.value is not None, one.source
    return one.value


def needs(found: Explanation, metric: str, name: str) -> str:
    """What one convention, which must not have been computed, needs."""
    (one,) = (one for one in found.findings if (one.convention.metric, one.convention.name) == (metric, name))
    assert one.value is None
    return one.source
