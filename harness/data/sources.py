"""Where files lie: a folder or an uncompressed tar, listed once, read by name from any thread."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.errors import MsbenchError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2"})
"""file names that count as images, in lower case; what is inside is found out on reading"""
SAVED_IMAGES = ".msbench-images"
"""file that marks a folder of images saved by msbench"""
OUTPUT_MARKERS = frozenset({SAVED_IMAGES, "record.json", "sweep.parquet", "state.pt"})
"""files that mark a folder as an output of msbench: saved images, a run, a sweep, a training"""
MAX_BYTES = 1 << 30
"""largest file of one image that is read; pixels of 16 bits at the largest resolution take less than half of it"""
_MAX_KEY = 120  # leaves room for suffixes below the 255 bytes of common file systems


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Files below one folder."""

    root: Path
    """the folder that names are relative to"""

    def read(self, name: str) -> bytes:
        """Bytes of root/name; raises OSError, also for what is no plain file (opening a FIFO would block) or too large."""
        path = self.root / name
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("a FIFO, socket or device, not a file")
        check_size(path.stat().st_size)
        return path.read_bytes()


@dataclass(frozen=True, slots=True)
class TarSource:
    """Members of uncompressed tars, read by offset; every read opens the file anew, so threads share nothing."""

    members: Mapping[str, tuple[Path, int, int] | str]
    """member name -> (its tar, offset of its data, size), or why it has no data"""

    def read(self, name: str) -> bytes:
        """Bytes of one member; raises OSError where it is a link, a device or too large, or the tar has shrunk or gone."""
        member = self.members[name]
        if isinstance(member, str):
            raise OSError(member)
        path, offset, size = member
        check_size(size)
        with path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(size)
        if len(data) != size:
            raise OSError(f"{path} ends inside {name}")
        return data


def check_size(size: int) -> None:
    """Raise OSError for the file of an image that has too many bytes to be read into memory."""
    if size > MAX_BYTES:
        raise OSError(f"{size:,} bytes, and of an image at most {MAX_BYTES:,} are read")


def printable(text: str) -> str:
    """`text` with every byte that is not UTF-8 as `\\xNN`, so that JSON, parquet and a terminal can hold it."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_image_name(name: str) -> bool:
    """True for an image suffix outside hidden files and folders (`._x.jpg`, `__MACOSX/`)."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden


def list_folder(root: Path) -> tuple[list[str], list[str]]:
    """Relative names (sorted, forward slashes) of all below `root` that is no folder, and the folders left out, with reasons.

    Links are followed, loops are not; outputs of msbench, which may lie below the data, are no data.

    Raises:
        MsbenchError: `root` is not a readable folder.
    """
    names: list[str] = []
    left_out: list[str] = []
    waiting: list[tuple[str, frozenset[str]]] = [("", frozenset())]
    while waiting:
        prefix, above = waiting.pop()
        real = os.path.realpath(root / prefix)
        try:
            with os.scandir(root / prefix) as found:
                items = list(found)
        except OSError as error:
            if not prefix:
                raise MsbenchError(f"cannot list {root}: {error.strerror or error}") from error
            left_out.append(f"{prefix} (cannot be listed: {error.strerror or error})")
            continue
        if real in above:
            left_out.append(f"{prefix} (a loop of links)")
        elif prefix and OUTPUT_MARKERS & {item.name for item in items}:
            left_out.append(f"{prefix} (made by msbench)")
        else:
            waiting += [(f"{prefix}{item.name}/", above | {real}) for item in items if is_folder(item)]
            names += [prefix + item.name for item in items if not is_folder(item)]
    return sorted(names), sorted(left_out)


def is_folder(item: os.DirEntry[str]) -> bool:
    """Whether `item` is a folder or a link to one; False for a loop of links, which Python raises."""
    try:
        return item.is_dir()
    except OSError:
        return False


def open_tar(path: Path) -> TarSource:
    """Index an uncompressed tar: names of its files, links and devices, without a leading `./`.

    Raises:
        MsbenchError: missing, not a tar, compressed, damaged or cut short, holding sparse files or one name twice.
    """
    members: dict[str, tuple[Path, int, int] | str] = {}
    last = ""
    try:
        length = path.stat().st_size
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = str(PurePosixPath(member.name))
                if member.size < 0 or (member.isreg() and member.offset_data + member.size > length):
                    raise tarfile.ReadError(f"{name} is incomplete or has an impossible size")
                if member.issparse() or name in members:
                    raise MsbenchError(
                        f"{path}: {printable(name)} is sparse or stored twice and has no one offset; unpack the tar"
                    )
                if member.isreg():
                    members[name] = (path, member.offset_data, member.size)
                elif member.islnk():  # a hard link shares the data of an earlier member
                    members[name] = members.get(str(PurePosixPath(member.linkname)), "a hard link to nothing in this tar")
                elif not member.isdir():
                    members[name] = "a link, FIFO or device, not a file"
                last = name
            _check_end(path, archive.offset)
    except (tarfile.TarError, ValueError, OverflowError, MemoryError) as error:
        raise MsbenchError(f"{path}{_tar_trouble(path, last, error)}") from error
    except OSError as error:
        raise MsbenchError(f"cannot read {path}: {error.strerror or error}") from error
    return TarSource(members)


def _check_end(path: Path, offset: int) -> None:
    """Raise `tarfile.ReadError` unless zeros alone follow. tarfile itself stops in silence at a header it cannot read."""
    with path.open("rb") as stream:
        stream.seek(offset)
        block = stream.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("the end mark is missing")
        while block:
            if any(block):
                raise tarfile.ReadError("no header, but data follow")
            block = stream.read(1 << 20)


def _tar_trouble(path: Path, last: str, error: Exception) -> str:
    with path.open("rb") as stream:
        head = stream.read(4)
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd")):  # gzip, bzip2, xz, zstd
        return " is compressed and cannot be read by offset; uncompress it (for .tgz: gunzip) or unpack it"
    if not last:
        return f" is not a tar, or damaged at its start ({error})"
    return f" is cut short or damaged after {printable(last)} ({printable(str(error))}); copy or download the tar again"


def make_keys(names: Iterable[str]) -> dict[str, str]:
    """Relative name -> key: the path without suffix, `/` as `__`, other unusual characters as `-`.

    A name that would lose something this way, or that clashes with another (upper and lower case count as the same), gets
    eight hex digits of its SHA-256 appended.
    """
    stems = {name: str(PurePosixPath(name).with_suffix("")).replace("/", "__") for name in names}
    keys = {name: re.sub(r"[^A-Za-z0-9._-]", "-", stem)[:_MAX_KEY] for name, stem in stems.items()}
    uses = Counter(key.casefold() for key in keys.values())
    for name, key in keys.items():
        if key != stems[name] or key.startswith((".", "-")) or uses[key.casefold()] > 1:
            digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
            keys[name] = f"{key.lstrip('.-')}-{digest[:8]}"
    return keys
