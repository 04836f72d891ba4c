"""`imagenet-val`: the 50,000 validation images of ILSVRC2012: class folders, a flat folder, the official tar, `wds:`, `hf:`.

Images are named `ILSVRC2012_val_00000001.JPEG` in every layout and keep that name as their key, so the layouts give the same
dataset. A flat layout has labels where a label file lies beside it: the development kit's
`ILSVRC2012_validation_ground_truth.txt`, Kaggle's `LOC_val_solution.csv`, or a `val_labels.csv` of ImageId,Class. Fewer images
than there should be are measured and called partial.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from harness.data.dataset import Dataset, build_dataset
from harness.data.folder import list_source
from harness.data.parquet import list_parquet
from harness.data.shards import list_shards
from harness.data.sources import is_folder, is_image_name, printable
from harness.data.types import Entry, Request
from harness.errors import MsbenchError

TAR_NAME = "ILSVRC2012_img_val.tar"
# Hugging Face's files have their class behind the number; shards write the suffix as jpg.
_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})(?:_n\d{8})?\.jpe?g", re.IGNORECASE)
_WORDNET = re.compile(r"n\d{8}")
_LABEL_FILES = ("LOC_val_solution.csv", "val_labels.csv", "ILSVRC2012_validation_ground_truth.txt")
_TRAINING = re.compile(r"n\d{8}_\d+\.JPEG", re.IGNORECASE)
# Usual places below a root, before the root itself, so that a train folder beside them is never searched.
_PLACES = ("val", "validation", "ILSVRC2012_img_val", "ILSVRC/Data/CLS-LOC/val", "Data/CLS-LOC/val", "")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a complete set holds; a partial one has fewer."""

    classes: int = 1000
    """class folders, where there are any"""
    images: int = 50_000
    """validation images"""


def open_imagenet_val(request: Request, expected: Expected = Expected()) -> Dataset:
    """Open the validation set. As in ADM, images smaller than the resolution are enlarged, so that all 50,000 count.

    Raises:
        MsbenchError: no data_dir, the train split is asked for, nothing found, the training set found, or something else.
    """
    if request.split != "val":
        raise MsbenchError("imagenet-val is for measuring only; train on imagenette or folder:PATH")
    if request.data_dir is None:
        raise MsbenchError(f"imagenet-val needs --data-dir: class folders, a folder of the 50,000 images, or {TAR_NAME}")
    kind, _, location = str(request.data_dir).partition(":")
    given: dict[str, str | None] = {}
    if kind in ("wds", "hf"):
        place = request.data_dir
        source, found, left_out = list_shards(location) if kind == "wds" else list_parquet(location, request)
        given = {entry.name: entry.label for entry in found}
        names = list(given)
    else:
        place = _find(request.data_dir)
        source, names, left_out = list_source(place, "imagenet-val")
    matches = {name: _VALIDATION.fullmatch(PurePosixPath(name).name) for name in names}
    keys = {name: f"ILSVRC2012_val_{match[1]}" for name, match in matches.items() if match}
    folders = set() if given else {PurePosixPath(name).parent for name in keys}
    # One folder is a class where it is named as one: a partial set may have no other.
    in_classes = len(folders) > 1 or any(_WORDNET.fullmatch(folder.name) for folder in folders)
    _check(place, list(keys.values()), folders if in_classes else set(), expected)
    labels = {key: label for name, key in keys.items() if (label := given.get(name)) is not None}
    if in_classes:
        labels = {key: printable(PurePosixPath(name).parent.name) for name, key in keys.items()}
    elif not labels:
        labels = _read_labels([request.data_dir, place, place.parent], list(keys.values()), expected)
    partial = len(keys) < expected.images
    others = sum(is_image_name(name) for name in names) - len(keys)
    return build_dataset(
        replace(request, allow_upsampling=True),
        [Entry(key, name, labels.get(key), key) for name, key in keys.items()],
        source,
        notes=[
            "images smaller than the resolution are enlarged, as in ADM",
            f"partial: {len(keys):,} of {expected.images:,} images" if partial else "",
            f"{others} images ignored that are not named as ImageNet's" if others else "",
            "" if labels else "no labels found",
            left_out,
        ],
        split="val",
        partial=partial,
    )


def _check(place: Path, keys: Sequence[str], folders: Collection[PurePosixPath], expected: Expected) -> None:
    """Raise MsbenchError where these are not images of the validation set; some may be missing."""
    beyond = next((key for key in keys if not 1 <= int(key[-8:]) <= expected.images), None)
    if beyond is not None:
        raise MsbenchError(f"imagenet-val: {place} holds {beyond}, which is none of the {expected.images:,} validation images")
    if len(folders) > expected.classes or len({len(folder.parts) for folder in folders}) > 1:
        advice = f"keep the {expected.classes:,} class folders side by side, or one flat folder"
        raise MsbenchError(f"imagenet-val: {place} has images in {len(folders):,} folders; {advice}")


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
    raise MsbenchError(f"imagenet-val: {root} has neither ILSVRC2012_val_*.JPEG nor {TAR_NAME}; check --data-dir")


def _peek(folder: Path) -> Iterator[str]:
    """Names of the files in `folder`, and of the first few in each of its sub-folders."""
    try:
        with os.scandir(folder) as found:
            for item in found:
                if not is_folder(item):
                    yield item.name
                elif os.access(item.path, os.R_OK | os.X_OK):
                    with os.scandir(item.path) as inner:
                        yield from (entry.name for entry in itertools.islice(inner, 3))
    except OSError as error:
        raise MsbenchError(f"imagenet-val: cannot list {folder}: {error.strerror or error}") from error


def _read_labels(folders: Sequence[Path], keys: Sequence[str], expected: Expected) -> dict[str, str]:
    """Image key -> class from the first label file in `folders`; empty where there is none.

    Raises:
        MsbenchError: the file is no text, has another number of labels or classes than it should, or lacks an image.
    """
    path = next((folder / name for folder in folders for name in _LABEL_FILES if (folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MsbenchError(f"imagenet-val: {path} cannot be read as UTF-8 text ({error}); replace or remove it") from error
    if path.suffix == ".csv":  # a header; image, then the class, then in Kaggle's file boxes
        rows = [line.replace(",", " ").split() for line in lines[1:]]
        labels = {PurePosixPath(row[0]).stem: row[1] for row in rows if len(row) > 1}
    else:  # one class a line, by the number of the image
        numbers = " ".join(lines).split()
        labels = {f"ILSVRC2012_val_{i:08d}": number for i, number in enumerate(numbers, start=1)}
    missing = [key for key in keys if key not in labels]
    classes = len({labels[key] for key in keys if key in labels})
    if path.suffix != ".csv" and len(labels) != expected.images:
        trouble = f"has {len(labels):,} of {expected.images:,} labels"
    elif missing:
        trouble = f"has no label for {len(missing):,} images, {missing[0]} for one"
    elif classes > expected.classes:
        trouble = f"has {classes:,} classes, not {expected.classes:,}"
    else:
        return labels
    raise MsbenchError(f"imagenet-val: {path} {trouble}; replace or remove it")
