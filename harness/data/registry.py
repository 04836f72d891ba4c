"""Datasets by name: the one door to `harness.data`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from harness.data.dataset import Dataset
from harness.data.folder import open_folder
from harness.data.imagenet import open_imagenet_val
from harness.data.imagenette import open_imagenette
from harness.data.parquet import open_parquet
from harness.data.photos import open_photos
from harness.data.shards import open_shards
from harness.data.text import open_text
from harness.data.types import MAX_RESOLUTION, MIN_RESOLUTION, Request
from harness.errors import MsbenchError, UnknownNameError

_KNOWN: Mapping[str, tuple[str, Callable[[Request], Dataset]]] = {
    "photos": ("built-in demo set: 256-px crops of everyday photographs (its rFID is a smoke test)", open_photos),
    "text": ("built-in pages of text of 8 to 32 px, with what stands on them, for --extra-metrics ocr", open_text),
    "imagenette": ("ten ImageNet classes at 224 px, 3,925 val images (--data-dir, or downloaded)", open_imagenette),
    "imagenet-val": ("the 50,000 ImageNet validation images (--data-dir: folder, tar, wds:…, hf:…)", open_imagenet_val),
    "folder:PATH": ("your own images: a folder (sub-folder = label) or an uncompressed .tar", open_folder),
    "wds:PATTERN": ("WebDataset tars, wds:DIR/val-{000..063}.tar or wds:DIR/*.tar (.cls = label)", open_shards),
    "hf:FILES": ("Hugging Face parquet, hf:DIR/*.parquet, or hf:OWNER/NAME@REVISION#SPLIT of the hub", open_parquet),
}
"""dataset name -> (one line for `msbench ls datasets`, what opens it)"""


def dataset_names() -> dict[str, str]:
    """Dataset name -> one-line description."""
    return {name: description for name, (description, _) in _KNOWN.items()}


def open_dataset(request: Request) -> Dataset:
    """Open a dataset and check that it is what its name says; images are read later.

    Raises:
        UnknownNameError: no such dataset.
        MsbenchError: a bad value, or data that are missing, incomplete or something else than the name says.
    """
    name, resolution = request.name, request.resolution
    if request.split not in ("train", "val"):
        raise UnknownNameError("split", request.split, ("train", "val"))
    if resolution is not None and not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
        what = "large" if resolution > MAX_RESOLUTION else "small"
        raise MsbenchError(
            f"resolution too {what}: --resolution {resolution}, possible are {MIN_RESOLUTION} to {MAX_RESOLUTION}"
        )
    if request.max_samples is not None and request.max_samples < 1:
        raise MsbenchError(f"--max-samples must be at least 1, not {request.max_samples}")
    kinds = {known.partition(":")[0]: known for known in _KNOWN if ":" in known}
    known = _KNOWN.get(kinds.get(name.partition(":")[0], name) if ":" in name else name)
    if known is None:
        if "/" in name and Path(name).exists():
            raise MsbenchError(f"unknown dataset {name!r}. For the images there write --dataset folder:{name}")
        raise UnknownNameError("dataset", name, _KNOWN)
    return known[1](request)
