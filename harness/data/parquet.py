"""`hf:FILES`: images in parquet as Hugging Face's `datasets` writes them, from local files or a repository of its hub.

`hf:DIR/validation-*.parquet` reads files; `hf:OWNER/NAME@REVISION#SPLIT` fetches those of a split into the hub's cache, with
the token in `$HF_TOKEN` where the set is gated. The key is the file name in the image's `path`, where every row has one of its
own, else the number of the row. Nothing is opened by that path: an image is the bytes in the row.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow as pa
from pyarrow import compute, parquet

from harness.data.dataset import Dataset, build_dataset
from harness.data.folder import location_of
from harness.data.shards import expand
from harness.data.sources import MAX_BYTES, check_size, make_keys, printable
from harness.data.types import Entry, Request, Source
from harness.errors import MsbenchError, plugin_boundary
from harness.files import cache_dir
from harness.request.hub import hub_client

_LABELS = ("label", "labels", "fine_label", "cls")
_HUB = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?(?:#([\w./-]+))?")


class ParquetSource:
    """Images in rows of parquet files, read one row group at a time.

    A group is decoded once, whatever the order its rows are asked for: its images go to a file without a name in the cache
    folder, which is gone with the process, and are read from there.

    Args:
        rows: name of an image -> its file, the column with the bytes (in dotted form), the row group and the row in it.
    """

    def __init__(self, rows: Mapping[str, tuple[Path, str, int, int]]) -> None:
        self._rows, self._lock = rows, threading.Lock()
        self._places: dict[tuple[Path, int], list[tuple[int, int]]] = {}
        self._spool: IO[bytes] | None = None

    def read(self, name: str) -> bytes:
        """Its bytes; raises OSError where it has none or too many, or its group is damaged, MsbenchError without room."""
        path, column, group, row = self._rows[name]
        with self._lock:
            if (path, group) not in self._places:
                self._places[path, group] = self._unpack(path, column, group)
            start, size = self._places[path, group][row]
            if size < 0 or self._spool is None:
                raise OSError("the row holds no bytes of an image")
            check_size(size)
            self._spool.seek(start)
            return self._spool.read(size)

    def _unpack(self, path: Path, column: str, group: int) -> list[tuple[int, int]]:
        """(start, size) in the spool of every image of a row group; size -1 where there is none."""
        places = []
        try:
            # Page by page and row by row, so that memory holds one image however large the group is.
            with parquet.ParquetFile(path, buffer_size=1 << 20) as file:
                for batch in file.iter_batches(1, row_groups=[group], columns=[column]):
                    places += [self._keep(image, path) for image in _values(batch, column)]
        except (pa.ArrowException, LookupError) as error:
            raise OSError(f"row group {group} is damaged ({' '.join(str(error).split())})") from error
        return places

    def _keep(self, image: bytes | None, path: Path) -> tuple[int, int]:
        size = -1 if image is None else len(image)
        try:
            if self._spool is None:
                cache_dir().mkdir(parents=True, exist_ok=True)
                self._spool = tempfile.TemporaryFile(dir=cache_dir())  # noqa: SIM115 (as long as the source)
            end = self._spool.seek(0, os.SEEK_END)
            if image and size <= MAX_BYTES:
                self._spool.write(image)
                self._spool.flush()
        except OSError as error:
            told = f"cannot keep the images of {path.name} in {cache_dir()} ({error.strerror or error})"
            raise MsbenchError(f"{told}: set MSBENCH_CACHE to a disk with room for the set, or unpack it") from error
        return end, size


def open_parquet(request: Request) -> Dataset:
    """Open `hf:FILES` or a split of a repository; raises MsbenchError as `list_parquet` does."""
    source, entries, note = list_parquet(location_of(request, "hf:DIR/*.parquet or hf:OWNER/NAME@REVISION#SPLIT"), request)
    return build_dataset(request, entries, source, notes=[note], identity=lambda e: PurePosixPath(e.name).stem)


def list_parquet(location: str, request: Request) -> tuple[Source, list[Entry], str]:
    """The rows of all files, called FILE/NUMBER[/NAME], and a note on the revision; images are read later.

    Raises:
        MsbenchError: no file, one that cannot be read, no column of images; a repository or split that cannot be had.
    """
    paths, note = _files(location, request)
    places: list[tuple[Path, str, int, int]] = []
    names: list[str] = []
    labels: list[object] = []
    for path in paths:
        with plugin_boundary(str(path), "reading it (copy or download it again)"), parquet.ParquetFile(path) as file:
            column, *others = _columns(file.schema_arrow, path)
            table, facts = file.read([one for one in others if one]), file.metadata
            names += [PurePosixPath(one or "").name for one in _values(table, others[0])]
            labels += _values(table, others[1])
        for group in range(facts.num_row_groups):
            places += [(path, column, group, row) for row in range(facts.row_group(group).num_rows)]
    named = all(names) and len({PurePosixPath(name).stem.casefold() for name in names}) == len(names)
    keys, digits = make_keys(names) if named else {}, max(6, len(str(len(names))))
    rows, entries = {}, []
    for number, (place, name, label) in enumerate(zip(places, names, labels, strict=True)):
        key = keys[name] if named else f"{number:0{digits}}"
        inside = f"{place[0].name}/{number}/{name}" if named else f"{place[0].name}/{key}"
        rows[inside] = place
        entries.append(Entry(key, inside, None if label is None else printable(str(label)), key))
    return ParquetSource(rows), entries, note


def _columns(schema: pa.Schema, path: Path) -> tuple[str, str, str]:
    """Columns of the images' bytes, of their paths and of their labels, in dotted form; the last two may be missing."""
    found: dict[str, tuple[str, str]] = {}
    for name, kind in zip(schema.names, schema.types, strict=True):
        inner = {one.name: one.type for one in kind.fields} if pa.types.is_struct(kind) else {}
        if inner.get("bytes", kind) in (pa.binary(), pa.large_binary()):
            # string, or large_string
            found[name] = (f"{name}.bytes" if inner else name, f"{name}.path" * str(inner.get("path")).endswith("string"))
    if len(found) != 1 and "image" not in found:
        told = f"several columns of images ({', '.join(found)}): call one image" if found else "no column of images"
        raise MsbenchError(printable(f"{path} has {told}; its columns are {', '.join(schema.names)}"))
    label = next((one for one in _LABELS if one in schema.names and not pa.types.is_nested(schema.field(one).type)), "")
    return *(found.get("image") or next(iter(found.values()))), label


def _values(table: pa.Table | pa.RecordBatch, column: str) -> list[Any]:
    name, _, inner = (column, "", "") if column in table.schema.names else column.rpartition(".")
    values = table.column(name) if name else pa.nulls(table.num_rows)
    return list((compute.struct_field(values, inner) if inner else values).to_pylist())


def _files(location: str, request: Request) -> tuple[list[Path], str]:
    """Parquet files that are on this machine now, and where they come from."""
    if os.path.isdir(os.path.expanduser(location)):
        location += "/*.parquet"
    hub = _HUB.fullmatch(location)
    if hub is None or location.partition("#")[0].endswith(".parquet"):
        return expand(location), ""
    split = hub[3] or {"val": "validation"}.get(request.split, request.split)
    wanted = [f"{split}[-./]*parquet", f"*/{split}[-./]*parquet"]
    root = _fetch(location, hub[1], hub[2], wanted, request.offline)
    inside = sorted(path.relative_to(root) for path in root.rglob("*.parquet"))
    found = [path for path in inside if any(fnmatch(path.as_posix(), pattern) for pattern in wanted)]
    folders = sorted({path.parent.as_posix() for path in found})
    if len(folders) != 1:
        told = f"lies in {', '.join(folders)}: name one, as #{folders[0]}/{split}" if found else "has no parquet files"
        raise MsbenchError(f"hf:{location}: split {split} {told}")
    if (total := re.search(r"-of-(\d+)", found[0].name)) and int(total[1]) != len(found):
        raise MsbenchError(f"hf:{location}: {len(found)} of the {int(total[1])} files of {split} are in {root}; fetch it again")
    return [root / path for path in found], f"revision {root.name}, split {split}"


def _fetch(location: str, repository: str, revision: str | None, wanted: list[str], offline: bool) -> Path:
    """The folder in the hub's cache that holds those files of a repository."""
    page = f"https://huggingface.co/datasets/{repository}"
    with hub_client(f"hf:{location}", page, offline, "give files, hf:DIR/*.parquet") as hub:
        fetched = hub.snapshot_download(
            repository, repo_type="dataset", revision=revision, allow_patterns=wanted, local_files_only=offline
        )
        return Path(fetched)
