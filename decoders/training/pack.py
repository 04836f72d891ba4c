"""Training images too many for memory: decoded once into one file, which every process maps instead of reading."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from harness.data.dataset import Dataset
from harness.data.types import Example
from harness.errors import MsbenchError
from harness.files import atomic_path, cache_dir, write_text

_CHECKED = 16  # images decoded again before a pack is trusted
_POLL_SECONDS = 2.0


def memory_limit(processes: int) -> int:
    """Bytes of images that one of `processes` may hold in memory: a quarter of the machine's, shared among them."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4 // processes


def as_planes(example: Example) -> npt.NDArray[np.uint8]:
    """uint8 [3, S, S] of an example."""
    return np.ascontiguousarray(example.image.transpose(2, 0, 1))


def packed(dataset: Dataset, kept: Sequence[int], writes: bool) -> tuple[Tensor, str]:
    """The images `kept` of a dataset, uint8 [N, 3, S, S], mapped from a file in the cache, and the hash over keys and pixels.

    The file is named by what the images are called and how they are cropped; a few are decoded again and compared, and a pack
    of other pixels is made anew. It takes 3·S² bytes an image.

    Args:
        writes: this process makes the file where it is missing; another one waits for it.

    Raises:
        MsbenchError: there is no room for the file.
    """
    path = _path(dataset, kept)
    card = path.with_suffix(".json")
    if writes and not (card.is_file() and path.is_file() and _agrees(dataset, kept, path)):
        _write(dataset, kept, path)
    wait_for(card)
    return map_array(path), str(json.loads(card.read_text(encoding="utf-8"))["sha256"])


def wait_for(path: Path) -> None:
    """Return once another process has put `path` in its place. Files, not barriers: those time out before ImageNet is read."""
    while not path.is_file():
        time.sleep(_POLL_SECONDS)


def map_array(path: Path) -> Tensor:
    """An .npy file as a tensor that reads from disk as it is used; changes to it stay in this process."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _path(dataset: Dataset, kept: Sequence[int]) -> Path:
    info = dataset.info
    names = "\n".join(f"{dataset.entries[i].key}\t{dataset.entries[i].name}" for i in kept)
    key = hashlib.sha256(f"{info.name}\n{info.split}\n{info.resolution}\n{info.preprocessing}\n{names}".encode()).hexdigest()
    return cache_dir() / "pixels" / f"{key[:24]}.npy"


def _agrees(dataset: Dataset, kept: Sequence[int], path: Path) -> bool:
    """Whether a few images, spread over the pack, are still what was packed."""
    found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["rows"]
    pixels = np.load(path, mmap_mode="r")
    for place in np.linspace(0, len(kept) - 1, min(_CHECKED, len(kept))).round().astype(int).tolist():
        example = dataset.load(kept[place])
        row = found[place]
        if (example is None) != (row is None) or (example is not None and not np.array_equal(pixels[row], as_planes(example))):
            return False
    return True


def _write(dataset: Dataset, kept: Sequence[int], path: Path) -> None:
    side, digest = dataset.info.resolution, hashlib.sha256()
    places = {dataset.entries[i].key: place for place, i in enumerate(kept)}
    rows: list[int | None] = [None] * len(kept)
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(kept), 3, side, side)}
            np.lib.format.write_array_header_1_0(stream, header)
            start = stream.tell()
            for example in dataset.stream(kept):
                digest.update(example.key.encode() + example.image.tobytes())
                stream.write(as_planes(example).tobytes())
                rows[places[example.key]] = count
                count += 1
            # Unreadable files leave fewer rows than announced; the header is padded, so the new one is as long.
            stream.seek(0)
            np.lib.format.write_array_header_1_0(stream, header | {"shape": (count, 3, side, side)})
            if stream.tell() != start:
                raise ValueError("a header of another length")
    except OSError as error:
        need = len(kept) * 3 * side**2 / 2**30
        raise MsbenchError(
            f"cannot write the packed images to {path} ({error.strerror or error}): {need:.0f} GiB are needed; "
            "set MSBENCH_CACHE to a larger disk or take --max-samples"
        ) from error
    write_text(path.with_suffix(".json"), json.dumps({"sha256": digest.hexdigest(), "rows": rows}))
