"""Runs that take no time: the metrics that are networks are stood in for, everything else is the harness's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import registry
from harness.record.record import Record
from harness.registry import DecoderEntry
from harness.run import runner
from harness.run.config import RunConfig
from tests.harness.run.light import LightSuite

LightRun = Callable[..., Record]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_images(tmp_path / "images", 10)


def make_images(folder: Path, count: int) -> Path:
    folder.mkdir()
    for index in range(count):
        coarse = np.random.default_rng(index).integers(0, 256, (8, 8, 3))
        pixels = np.kron(coarse, np.ones((4, 4, 1))).astype(np.uint8)
        pixels[0] = 0
        Image.fromarray(pixels).save(folder / f"n{index:02d}.png")
    return folder


@pytest.fixture
def light(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> LightRun:
    """`light("odd-nan,identity", …)`: a run over ten small images; decoders are those of `odd_decoders` too."""
    monkeypatch.setattr(runner, "MetricSuite", LightSuite)
    built_in = registry.decoder_entries

    def entries() -> dict[str, DecoderEntry]:
        from tests.harness.run import odd_decoders

        odd = {name: DecoderEntry(name, "", f"{odd_decoders.__name__}:{name[4:]}", "odd") for name in odd_decoders.NAMES}
        return {**built_in(), **odd}

    monkeypatch.setattr(registry, "decoder_entries", entries)

    def run(decoders: str, folder: str = "run", **options: object) -> Record:
        asked = {"resolution": 32, "batch_size": 4, "cost": None, "output_dir": tmp_path / folder, **options}
        return runner.evaluate(RunConfig(decoders, f"folder:{images}", **asked))  # type: ignore[arg-type]

    return run
