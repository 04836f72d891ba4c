"""`folder:PATH`: any folder (searched to the bottom, the sub-folder is the label) or uncompressed tar of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from harness.data.dataset import Dataset, build_dataset
from harness.data.images import preprocessing_name
from harness.data.sources import FolderSource, is_image_name, list_folder, make_keys, open_tar
from harness.data.types import Entry, Request, Source
from harness.errors import MsbenchError

DEFAULT_RESOLUTION = 256


def list_source(path: Path, name: str) -> tuple[Source, list[str]]:
    """Source and sorted file names (images or not) of a folder or tar; raises MsbenchError where `path` is neither."""
    if path.is_dir():
        return FolderSource(path), list_folder(path)
    if not path.exists():
        raise MsbenchError(f"{name}: {path} does not exist")
    tar = open_tar(path)
    return tar, sorted(tar.members)


def open_folder(request: Request) -> Dataset:
    """Open `folder:PATH`. It has no splits: whatever split is asked for gets every image.

    Raises:
        MsbenchError: no path or two, a path that is neither folder nor tar, or no image in it.
    """
    written = request.name.removeprefix("folder:")
    if bool(written) == (request.data_dir is not None):
        raise MsbenchError("give the images once: --dataset folder:PATH, PATH a folder or an uncompressed .tar")
    path = request.data_dir if request.data_dir is not None else Path(written).expanduser()
    source, names = list_source(path, request.name)
    images = [name for name in names if is_image_name(name)]
    if not images:
        raise MsbenchError(f"{request.name}: {path} holds no image files ({len(names)} files of other kinds)")
    ignored = len(names) - len(images)
    return build_dataset(
        request,
        _entries(images, top=path.stem if path.is_file() else None),
        source,
        resolution=request.resolution or DEFAULT_RESOLUTION,
        preprocessing=preprocessing_name(request.allow_upsampling),
        note=f"{ignored} files ignored that are not named as images" if ignored else "",
        allow_upsampling=request.allow_upsampling,
    )


def _entries(names: Sequence[str], top: str | None) -> list[Entry]:
    """Entries for image names; `top` (the tar's own name) is dropped where everything lies below it, so that a folder and
    the tar made of it have the same keys."""
    wrapped = top is not None and all(PurePosixPath(name).parts[0] == top for name in names)
    inside = {name: name.split("/", 1)[1] if wrapped else name for name in names}
    keys = make_keys(inside.values())
    entries = []
    for name, relative in inside.items():
        parent = str(PurePosixPath(relative).parent)
        key = keys[relative]
        entries.append(Entry(key, name, None if parent == "." else parent, key))
    return entries
