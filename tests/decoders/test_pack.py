"""Images too many for memory: the same pixels and the same training, from one file that is checked before it is trusted."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from decoders.training import data as data_module
from decoders.training.data import TrainingImages, load_training_images
from harness.data.dataset import Dataset
from harness.data.types import Request
from harness.distributed import Group
from harness.errors import MsbenchError


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(data_module, "_POLL_SECONDS", 0.02)
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(20):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{index:02}.png")
    (folder / "07.png").write_bytes(b"not a picture")
    return Request(f"folder:{folder}", None, 32, None, 0, False, "train", True)


def same(one: TrainingImages, other: TrainingImages) -> bool:
    return one.sha256 == other.sha256 and torch.equal(one.images, other.images)


def test_packed_images_are_those_in_memory(request_: Request) -> None:
    held, mapped = load_training_images(request_), load_training_images(request_, limit=0)
    assert held.images.shape == (19, 3, 32, 32)
    assert same(held, mapped)


def test_a_pack_is_made_once_and_other_pixels_are_packed_anew(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = Dataset.load

    def load(self: Dataset, index: int) -> object:
        read.append(index)
        return original(self, index)

    monkeypatch.setattr(Dataset, "load", load)
    first = load_training_images(request_, limit=0)
    assert len(read) == 20
    read.clear()
    assert same(load_training_images(request_, limit=0), first)
    assert len(read) == 16
    folder = Path(request_.name.removeprefix("folder:"))
    (folder / "00.png").write_bytes((folder / "01.png").read_bytes())
    second = load_training_images(request_, limit=0)
    assert torch.equal(second.images[0], second.images[1])
    assert second.sha256 != first.sha256


def test_other_processes_wait_for_the_first(request_: Request) -> None:
    found: list[TrainingImages] = []
    waiting = threading.Thread(
        target=lambda: found.append(load_training_images(request_, Group(1, 2, local_rank=1, local_world=2), limit=0))
    )
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    first = load_training_images(request_, Group(0, 2, local_world=2), limit=0)
    waiting.join(10)
    assert same(found[0], first)


def test_no_room_is_one_line(request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(MsbenchError, match=r"cannot write the packed images .* MSBENCH_CACHE to a larger disk") as error:
        load_training_images(request_, limit=0)
    assert "\n" not in str(error.value)


def test_memory_is_shared_by_a_machine_s_processes() -> None:
    assert data_module.memory_limit(4) == pytest.approx(data_module.memory_limit(1) / 4, abs=1)
