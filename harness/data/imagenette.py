"""`imagenette`: ten ImageNet classes (fastai's second split), from a tar, an unpacked tree or torchvision's downloader.

Its train split was dealt from both ImageNet splits; files named `ILSVRC2012_val_*` are left out of training here, so that a
decoder trained on Imagenette can be measured on ImageNet's validation set.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from harness.data.dataset import Dataset, build_dataset
from harness.data.folder import list_source
from harness.data.images import ImageError, image_size
from harness.data.sources import is_image_name
from harness.data.types import Entry, Request, Source
from harness.errors import MsbenchError
from harness.files import cache_dir

CLASSES = frozenset(
    f"n{number:08d}" for number in (1440764, 2102040, 2979186, 3000684, 3028079, 3394916, 3417042, 3425413, 3445777, 3888257)
)
"""WordNet ids of the ten classes"""
SPLITS: Mapping[str, int] = {"train": 9103, "val": 3925}
"""images in each split; train without the 366 that are in ImageNet's validation set"""
DEFAULT_RESOLUTION = 224
_DOWNLOAD = "imagenette2-320"
_PROBES = 16  # headers read to learn how large the images are


def open_imagenette(request: Request, expected: Mapping[str, int] = SPLITS) -> Dataset:
    """Open one split; `expected` images must be there.

    Raises:
        MsbenchError: not found, not Imagenette, incomplete, not downloadable, or smaller than the resolution asked for.
    """
    root = request.data_dir if request.data_dir is not None else _downloaded(request.offline)
    path = _find(root, request.split)
    source, names, left_out = list_source(path, "imagenette")
    entries, excluded = _entries(names, path.is_file(), request.split)
    if not entries:
        example = f"{request.split}/n01440764/NAME.JPEG"
        raise MsbenchError(f"imagenette: {path} holds no {request.split} images (such as {example}); check --data-dir")
    wanted = expected[request.split]
    if len(entries) != wanted:
        raise MsbenchError(
            f"imagenette: {path} holds {len(entries):,} of {wanted:,} {request.split} images; "
            "get it again, or use --dataset folder:PATH for a set of your own"
        )
    resolution = request.resolution or DEFAULT_RESOLUTION
    if not request.allow_upsampling:
        _refuse_upsampling(path, entries, source, resolution)
    held_out = f"{excluded} files left out that are in ImageNet's validation set" if excluded else ""
    return build_dataset(
        request, entries, source, resolution=DEFAULT_RESOLUTION, notes=[held_out, left_out], split=request.split
    )


def _entries(names: Sequence[str], in_tar: bool, split: str) -> tuple[list[Entry], int]:
    """Entries of the split (in a tar one of the folders), and how many files are left out as ImageNet's validation images."""
    entries, excluded = [], 0
    for name in filter(is_image_name, names):
        path = PurePosixPath(name)
        if path.parent.name not in CLASSES or (in_tar and split not in path.parts[:-1]):
            continue
        if split == "train" and path.name.startswith("ILSVRC2012_val_"):
            excluded += 1
        else:
            entries.append(Entry(path.stem, name, path.parent.name, path.stem))
    return entries, excluded


def _find(root: Path, split: str) -> Path:
    """The one folder of class folders or tar below `root` that holds the split; raises MsbenchError where there is not one."""
    if not root.exists():
        raise MsbenchError(f"imagenette: {root} does not exist; without --data-dir it is downloaded")
    if root.is_file():
        return root
    folders = [root / split, *sorted(folder / split for folder in root.glob("imagenette2*"))]
    if root.name == split:
        folders.append(root)
    found = [folder for folder in folders if any((folder / wnid).is_dir() for wnid in CLASSES)]
    found += sorted({*root.glob(f"imagenette*{split}.tar"), *root.glob("imagenette2*.tar")})
    if len(found) == 1:
        return found[0]
    if found:
        places = ", ".join(str(path.relative_to(root)) for path in found)
        raise MsbenchError(f"imagenette: {root} holds the {split} split more than once ({places}); point --data-dir at one")
    packed = next(iter(sorted(root.glob("imagenette*.tgz"))), None)
    advice = f"unpack {packed.name} first" if packed else "point --data-dir elsewhere, or leave it out to download"
    raise MsbenchError(
        f"imagenette: {root} holds no {split}/ with class folders, no imagenette2*/{split}/ "
        f"and no imagenette-*-{split}.tar; {advice}"
    )


def _refuse_upsampling(path: Path, entries: Sequence[Entry], source: Source, resolution: int) -> None:
    """Raise MsbenchError where the images as stored are smaller than `resolution` (median short side of a few headers)."""
    sides = []
    for entry in entries[:: max(1, len(entries) // _PROBES)]:
        # A damaged file is reported when it is read for use; here it only has no say in the size.
        with contextlib.suppress(ImageError, OSError):
            sides.append(min(image_size(source.read(entry.name))))
    if sides and (native := int(statistics.median(sides))) < resolution:
        raise MsbenchError(
            f"imagenette: {path} is {native} px natively and would be upsampled to {resolution}; "
            f"use --resolution {native} or less, or --allow-upsampling"
        )


def _downloaded(offline: bool) -> Path:
    """Root of torchvision's copy in the cache, fetched once; a download that fails or is killed leaves nothing behind."""
    root = cache_dir() / "imagenette"
    target = root / _DOWNLOAD
    if target.is_dir():
        return root
    if offline:
        raise MsbenchError(f"imagenette is not in {root} and --offline is set; pass --data-dir")
    from torchvision.datasets import Imagenette

    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=root) as staging:
            with contextlib.redirect_stdout(sys.stderr):
                Imagenette(staging, split="val", size="320px", download=True)
            if not target.is_dir():  # another process may have been faster
                os.replace(Path(staging) / _DOWNLOAD, target)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise MsbenchError(f"imagenette: no download to {root} ({error}); fetch it elsewhere and pass --data-dir") from error
    return root
