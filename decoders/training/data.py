"""Training images as uint8, with the frozen encoder's latents beside them, cropped together.

Those too many for memory are decoded once into one file in the cache, which every process maps instead of reading.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from decoders.checkpoint import NamedLatents
from decoders.latents import FrozenEncoder
from harness.data.dataset import Dataset
from harness.data.registry import open_dataset
from harness.data.types import Example, Request
from harness.distributed import Group
from harness.errors import MsbenchError, plugin_boundary
from harness.files import atomic_path, cache_dir, write_text

MIN_IMAGES = 16
HELD_OUT_PREFIX = "ILSVRC2012_val_"
_CHECKED = 16  # images decoded again before a pack is trusted
_POLL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """Images of one size and, once encoded, their latents."""

    name: str
    """dataset and split, as a model card states it"""
    images: Tensor
    """uint8 [N, 3, S, S]"""
    sha256: str
    """hash over keys and pixels"""
    latents: Tensor | None = None
    """float32 [N, C, S/f, S/f], as their encoder gives them"""
    named: NamedLatents | None = None
    """whose they are, where crops of them must be normalised"""

    def with_latents(self, encode: Callable[[Tensor], Tensor], grid: int, batch: int = 32) -> TrainingImages:
        """Encode every image once, whole up to a multiple of `grid` pixels; crops are then cut from the cache."""
        with torch.inference_mode():
            batches = (trim(self.images[i : i + batch], grid) for i in range(0, len(self.images), batch))
            parts = [encode(to_float(images)).float() for images in batches]
        return replace(self, latents=torch.cat(parts).clone(memory_format=torch.contiguous_format))

    def resident(self, device: torch.device) -> TrainingImages:
        """Images and latents on `device` where they take at most half of its free memory; as they are otherwise."""
        if device.type != "cuda":
            return self
        tensors = [tensor for tensor in (self.images, self.latents) if tensor is not None]
        free, _ = torch.cuda.mem_get_info(device)
        if sum(tensor.nbytes for tensor in tensors) > free // 2:
            return self
        return replace(self, images=self.images.to(device), latents=None if self.latents is None else self.latents.to(device))

    def crops(
        self, count: int, size: int, grid: int, generator: torch.Generator, multiple: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Random crops whose corners lie on multiples of `grid` pixels.

        Args:
            size: largest side of a crop; less where the images are smaller.
            multiple: the side is a multiple of this; None = of `grid`.

        Returns:
            images float32 [count, 3, s, s] in [-1, 1] and normalised latents [count, C, s/grid, s/grid] (None without a cache).

        Raises:
            MsbenchError: crops or images are smaller than one multiple.
        """
        side, multiple = self.images.shape[-1], multiple or grid
        asked, size = size, min(size, side) // multiple * multiple
        if size == 0:
            raise MsbenchError(
                f"{self.name}: crops of {asked} px of images of {side} px are too small to train on, {multiple} px are needed"
            )
        index = torch.randint(len(self.images), (count,), generator=generator).tolist()
        corners = (torch.randint((side - size) // grid + 1, (count, 2), generator=generator) * grid).tolist()
        images = cut(self.images, index, corners, size)
        if self.latents is None:
            return to_float(images), None
        latents = cut(self.latents, index, [(y // grid, x // grid) for y, x in corners], size // grid)
        if self.named is not None:
            mean, std = self.named.moments(latents.device)
            latents = (latents - mean) / std
        return to_float(images), latents

    def encoded_crops(
        self, count: int, size: int, grid: int, generator: torch.Generator, multiple: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """`crops` of cached images, with their latents, on `device`."""
        images, latents = self.crops(count, size, grid, generator, multiple)
        assert latents is not None, "a denoiser needs cached latents"
        return images.to(device), latents.to(device)


def cut(source: Tensor, index: Sequence[int], corners: Sequence[Sequence[int]], size: int) -> Tensor:
    """Windows of `size` at (y, x) `corners` of the images `index` of [N, C, H, W]: [count, C, size, size].

    On a GPU it is one gather, not a kernel for each window.
    """
    if source.device.type == "cpu":
        return torch.stack([source[i, :, y : y + size, x : x + size] for i, (y, x) in zip(index, corners, strict=True)])
    return gather(source, index, corners, size)


def gather(source: Tensor, index: Sequence[int], corners: Sequence[Sequence[int]], size: int) -> Tensor:
    """`cut` as one indexing operation."""
    device = source.device
    steps = torch.arange(size, device=device)
    starts = torch.tensor(corners, device=device)[:, :, None] + steps  # [count, 2, size]
    rows, columns = starts[:, 0, None, :, None], starts[:, 1, None, None, :]
    channels = torch.arange(source.shape[1], device=device)[None, :, None, None]
    return source[torch.tensor(index, device=device)[:, None, None, None], channels, rows, columns]


def trim(images: Tensor, multiple: int) -> Tensor:
    """Leave out the last rows and columns beyond a multiple of `multiple`. [..., H, W]."""
    height, width = (side // multiple * multiple for side in images.shape[-2:])
    return images[..., :height, :width]


def encode_cached(
    data: TrainingImages, encoder: FrozenEncoder, device: torch.device, report: Callable[[str], None], writes: bool = True
) -> TrainingImages:
    """`data` with its latents, mapped from the cache, into which they go where these weights never encoded these pixels.

    With `writes` False this process waits for another one that encodes.
    """
    # Options of a named encoder change its latents, not its weights.
    key = hashlib.sha256(f"{encoder.sha256} {encoder.name}".encode()).hexdigest() if encoder.name else str(encoder.sha256)
    path = cache_dir() / "latents" / f"{data.sha256[:24]}-{key[:24]}.npy"
    if writes and not path.is_file():
        report(f"encoding {len(data.images)} images")
        # One that samples its posterior leaves the run's own draws as they were.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            encoded = data.with_latents(lambda images: encoder.encode(images.to(device)).cpu(), encoder.down_factor)
        assert encoded.latents is not None
        with plugin_boundary(f"the cache file {path}", "writing it (is its disk full?)"), atomic_path(path) as temporary:
            np.save(temporary, encoded.latents.numpy())
    wait_for(path)
    return replace(data, latents=map_array(path))


def to_float(images: Tensor) -> Tensor:
    """uint8 [0, 255] -> float32 [-1, 1]."""
    return images.float() / 127.5 - 1.0


def load_training_images(request: Request, group: Group | None = None, limit: int | None = None) -> TrainingImages:
    """A dataset's train split: in memory, or mapped from a packed file in the cache where memory is too small for it.

    Args:
        group: the processes that train together; the first of each machine packs.
        limit: bytes of images that this process may hold; None = `memory_limit`.

    Raises:
        MsbenchError: the dataset is wrong, or too small to train on.
    """
    dataset = open_dataset(request)
    group = group or Group()
    # ImageNet's validation images are what others are measured on; they are not trained on, whatever folder they lie in.
    kept = [i for i, entry in enumerate(dataset.entries) if not entry.name.rpartition("/")[2].startswith(HELD_OUT_PREFIX)]
    if len(kept) * 3 * dataset.info.resolution**2 > (memory_limit(group.local_world) if limit is None else limit):
        images, sha256 = packed(dataset, kept, group.local_rank == 0)
    else:
        images, sha256 = _in_memory(dataset, kept)
    if len(images) < MIN_IMAGES:
        raise MsbenchError(f"{request.name}: {len(images)} usable images, training needs at least {MIN_IMAGES}")
    split = f" {request.split}" if request.split else ""
    return TrainingImages(f"{request.name}{split}", images, sha256)


def _in_memory(dataset: Dataset, kept: Sequence[int]) -> tuple[Tensor, str]:
    digest = hashlib.sha256()
    side = dataset.info.resolution
    images = torch.empty((len(kept), 3, side, side), dtype=torch.uint8)
    count = 0
    for example in dataset.stream(kept):
        digest.update(example.key.encode() + example.image.tobytes())
        images[count] = torch.from_numpy(as_planes(example))
        count += 1
    return images[:count], digest.hexdigest()


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
    path = _pack_path(dataset, kept)
    card = path.with_suffix(".json")
    if writes and not (card.is_file() and path.is_file() and _agrees(dataset, kept, path)):
        _write_pack(dataset, kept, path)
    wait_for(card)
    return map_array(path), str(json.loads(card.read_text(encoding="utf-8"))["sha256"])


def wait_for(path: Path) -> None:
    """Return once another process has put `path` in its place. Files, not barriers: those time out before ImageNet is read."""
    while not path.is_file():
        time.sleep(_POLL_SECONDS)


def map_array(path: Path) -> Tensor:
    """An .npy file as a tensor that reads from disk as it is used; changes to it stay in this process."""
    with plugin_boundary(f"the cache file {path}", "reading it (where it is damaged, remove it)"):
        return torch.from_numpy(np.load(path, mmap_mode="c"))


def _pack_path(dataset: Dataset, kept: Sequence[int]) -> Path:
    info = dataset.info
    names = "\n".join(f"{dataset.entries[i].key}\t{dataset.entries[i].name}" for i in kept)
    key = hashlib.sha256(f"{info.name}\n{info.split}\n{info.resolution}\n{info.preprocessing}\n{names}".encode()).hexdigest()
    return cache_dir() / "pixels" / f"{key[:24]}.npy"


def _agrees(dataset: Dataset, kept: Sequence[int], path: Path) -> bool:
    """Whether a few images, spread over the pack, are still what was packed."""
    try:
        found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["rows"]
        pixels = np.load(path, mmap_mode="r")
    except (OSError, ValueError, LookupError, TypeError):  # a damaged pack is made anew
        return False
    for place in np.linspace(0, len(kept) - 1, min(_CHECKED, len(kept))).round().astype(int).tolist():
        example = dataset.load(kept[place])
        row = found[place]
        if (example is None) != (row is None) or (example is not None and not np.array_equal(pixels[row], as_planes(example))):
            return False
    return True


def _write_pack(dataset: Dataset, kept: Sequence[int], path: Path) -> None:
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
