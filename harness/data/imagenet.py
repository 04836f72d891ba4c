"""`imagenet-val`: the 50,000 validation images of ILSVRC2012, as class folders, one flat folder or the official tar.

Images are named `ILSVRC2012_val_00000001.JPEG` in every layout and keep that name as their key, so the layouts give the same
dataset. A flat layout has labels where a label file lies beside it: the development kit's
`ILSVRC2012_validation_ground_truth.txt` or Kaggle's `LOC_val_solution.csv`.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.data.dataset import Dataset, build_dataset
from harness.data.folder import list_source
from harness.data.images import ADM_CROP_UPSAMPLE
from harness.data.types import Entry, Request
from harness.errors import MsbenchError

DEFAULT_RESOLUTION = 256
TAR_NAME = "ILSVRC2012_img_val.tar"
_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)
_TRAINING = re.compile(r"n\d{8}_\d+\.JPEG", re.IGNORECASE)
# Usual places below a root, before the root itself, so that a train folder beside them is never searched.
_PLACES = ("val", "validation", "ILSVRC2012_img_val", "ILSVRC/Data/CLS-LOC/val", "Data/CLS-LOC/val", "")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a complete set holds."""

    classes: int = 1000
    """class folders, where there are any"""
    images: int = 50_000
    """validation images"""


def open_imagenet_val(request: Request, expected: Expected = Expected()) -> Dataset:
    """Open the validation set. As in ADM, images smaller than the resolution are enlarged, so that all 50,000 count.

    Raises:
        MsbenchError: no data_dir, the train split is asked for, nothing found, the training set found, or incomplete.
    """
    if request.split != "val":
        raise MsbenchError("imagenet-val is for measuring only; train on imagenette or folder:PATH")
    if request.data_dir is None:
        raise MsbenchError(f"imagenet-val needs --data-dir: class folders, a folder of the 50,000 images, or {TAR_NAME}")
    place = _find(request.data_dir)
    source, names = list_source(place, "imagenet-val")
    images = [name for name in names if _VALIDATION.fullmatch(PurePosixPath(name).name)]
    folders = {PurePosixPath(name).parent for name in images}
    in_classes = len(folders) > 1
    _check(place, images, len(folders) if in_classes else None, expected)
    note = "images smaller than the resolution are enlarged, as in ADM"
    labels: dict[str, str] = {}
    if in_classes:
        labels = {PurePosixPath(name).stem: PurePosixPath(name).parent.name for name in images}
    else:
        labels = _read_labels([request.data_dir, place, place.parent], images)
        note += "" if labels else "; no labels found, so subsets are uniform rather than class-stratified"
    entries = []
    for name in images:
        key = PurePosixPath(name).stem
        entries.append(Entry(key, name, labels.get(key), key))
    return build_dataset(
        request,
        entries,
        source,
        resolution=request.resolution or DEFAULT_RESOLUTION,
        preprocessing=ADM_CROP_UPSAMPLE,
        note=note,
        allow_upsampling=True,
        split="val",
    )


def _check(place: Path, images: Sequence[str], folders: int | None, expected: Expected) -> None:
    """Raise MsbenchError that names what is missing or too much."""
    again = "unpack or download it again"
    if folders is not None and folders != expected.classes:
        raise MsbenchError(f"imagenet-val: {place} has {folders:,} of {expected.classes:,} class folders; {again}")
    twice = next((name for name, uses in Counter(PurePosixPath(name).stem for name in images).items() if uses > 1), None)
    if twice is not None:
        raise MsbenchError(f"imagenet-val: {place} holds {twice} more than once; keep one copy of the validation set there")
    if len(images) != expected.images:
        raise MsbenchError(f"imagenet-val: {place} holds {len(images):,} of {expected.images:,} images; {again}")


def _find(root: Path) -> Path:
    """The folder or tar below `root` with validation images, looking at a few names only; raises MsbenchError."""
    if not root.exists():
        raise MsbenchError(f"imagenet-val: {root} does not exist; check --data-dir")
    if root.is_file():
        return root
    places = [root / place for place in _PLACES]
    for place in filter(Path.is_dir, places):
        if any(_VALIDATION.fullmatch(name) for name in _peek(place)):
            return place
    for place in places:
        if (place / TAR_NAME).is_file():
            return place / TAR_NAME
    for place in filter(Path.is_dir, (*places, root / "train")):
        for name in _peek(place):
            if _TRAINING.fullmatch(name):
                raise MsbenchError(f"imagenet-val: {place} holds training images ({name}), not the validation set")
    raise MsbenchError(
        f"imagenet-val: {root} holds no ILSVRC2012_val_*.JPEG (flat or in class folders) and no {TAR_NAME}; check --data-dir"
    )


def _peek(folder: Path) -> Iterator[str]:
    """Names of the files in `folder`, and of the first few in each of its sub-folders."""
    try:
        with os.scandir(folder) as found:
            for item in found:
                if not item.is_dir():
                    yield item.name
                elif os.access(item.path, os.R_OK | os.X_OK):
                    with os.scandir(item.path) as inner:
                        yield from (entry.name for entry in itertools.islice(inner, 3))
    except OSError as error:
        raise MsbenchError(f"imagenet-val: cannot list {folder}: {error.strerror or error}") from error


def _read_labels(folders: Sequence[Path], images: Sequence[str]) -> dict[str, str]:
    """Image key -> class from a label file in one of `folders`; empty where there is none, MsbenchError where it has gaps."""
    for folder in folders:
        kit, kaggle = folder / "ILSVRC2012_validation_ground_truth.txt", folder / "LOC_val_solution.csv"
        if kaggle.is_file():
            rows = (line.split(",", 1) for line in kaggle.read_text().splitlines()[1:] if "," in line)
            labels = {key: boxes.split()[0] for key, boxes in rows if boxes.split()}
            return _complete(kaggle, labels, images)
        if kit.is_file():
            labels = {f"ILSVRC2012_val_{i:08d}": number for i, number in enumerate(kit.read_text().split(), start=1)}
            return _complete(kit, labels, images)
    return {}


def _complete(path: Path, labels: dict[str, str], images: Sequence[str]) -> dict[str, str]:
    missing = [name for name in images if PurePosixPath(name).stem not in labels]
    if missing:
        raise MsbenchError(
            f"imagenet-val: {path} has no label for {len(missing):,} images, {missing[0]} for one; replace or remove it"
        )
    return labels
