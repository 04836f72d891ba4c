"""`folder:PATH`: any folder (searched to the bottom, the sub-folder is the label), uncompressed tar or `.npz` of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from harness.data.dataset import Dataset, build_dataset
from harness.data.npz import open_npz
from harness.data.sources import FolderSource, is_image_name, list_folder, make_keys, open_tar, printable
from harness.data.types import Entry, Request, Source
from harness.errors import MsbenchError

_NAMED = 5  # folders left out that a note names


def list_source(path: Path, name: str) -> tuple[Source, list[str], str]:
    """Source, sorted file names (images or not) and a note on folders left out; of a folder, a tar or an `.npz`.

    Raises:
        MsbenchError: `path` is neither.
    """
    if path.is_dir():
        names, left_out = list_folder(path)
        more = f" and {len(left_out) - _NAMED} more" * (len(left_out) > _NAMED)
        return FolderSource(path), names, printable(f"left out: {', '.join(left_out[:_NAMED])}{more}") if left_out else ""
    if not path.is_file():
        raise MsbenchError(f"{name}: {path} {'is neither a folder nor a file' if path.exists() else 'does not exist'}")
    if path.suffix == ".npz":
        samples = open_npz(path)
        return samples, samples.names, ""
    tar = open_tar(path)
    return tar, sorted(tar.members), ""


def open_folder(request: Request) -> Dataset:
    """Open `folder:PATH`. It has no splits: whatever split is asked for gets every image.

    Raises:
        MsbenchError: no path or two, a path that is neither folder nor tar, or no image in it.
    """
    path = Path(os.path.expanduser(location_of(request, "folder:PATH, PATH a folder or an uncompressed .tar")))
    source, names, left_out = list_source(path, request.name)
    images = [name for name in names if is_image_name(name)]
    if not images:
        raise MsbenchError(
            f"{request.name}: {path} holds no image files ({len(names)} files of other kinds){'; ' * bool(left_out)}{left_out}"
        )
    ignored = len(names) - len(images)
    return build_dataset(
        request,
        _entries(images, top=path.stem if path.is_file() else None),
        source,
        notes=[f"{ignored} files ignored that are not named as images" if ignored else "", left_out],
        identity=lambda entry: PurePosixPath(entry.name).stem,
    )


def location_of(request: Request, advice: str) -> str:
    """What stands behind the colon of a dataset's name, or in --data-dir; raises MsbenchError unless one of them says it."""
    written = request.name.partition(":")[2]
    if bool(written) == (request.data_dir is not None):
        raise MsbenchError(f"give the images once: --dataset {advice}")
    return written or str(request.data_dir)


def _entries(names: Sequence[str], top: str | None) -> list[Entry]:
    """Entries for image names; `top` (the tar's own name) is dropped where everything lies below it, so that a folder and
    the tar made of it have the same keys."""
    wrapped = top is not None and all(PurePosixPath(name).parts[0] == top for name in names)
    inside = {name: name.split("/", 1)[1] if wrapped else name for name in names}
    keys = make_keys(inside.values())
    entries = []
    for name, relative in inside.items():
        parent = printable(str(PurePosixPath(relative).parent))
        entries.append(Entry(keys[relative], name, None if parent == "." else parent, keys[relative]))
    return entries
