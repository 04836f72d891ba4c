"""Where files lie: a folder or an uncompressed tar, listed once, read by name from any thread."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.errors import MsbenchError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2"})
"""file names that count as images, in lower case; what is inside is found out on reading"""
_MAX_KEY = 120  # leaves room for suffixes below the 255 bytes of common file systems


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Files below one folder."""

    root: Path
    """the folder that names are relative to"""

    def read(self, name: str) -> bytes:
        """Bytes of root/name; raises OSError."""
        return (self.root / name).read_bytes()


@dataclass(frozen=True, slots=True)
class TarSource:
    """Members of an uncompressed tar, read by offset; every read opens the file anew, so threads share nothing."""

    path: Path
    """the tar"""
    members: Mapping[str, tuple[int, int]]
    """member name -> (offset of its data, size), in bytes"""

    def read(self, name: str) -> bytes:
        """Bytes of one member; raises OSError where the tar has shrunk or gone."""
        offset, size = self.members[name]
        with self.path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(size)
        if len(data) != size:
            raise OSError(f"{self.path} ends inside {name}")
        return data


def is_image_name(name: str) -> bool:
    """True for an image suffix outside hidden files and folders (`._x.jpg`, `__MACOSX/`)."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden


def list_folder(root: Path) -> list[str]:
    """Relative names (sorted, forward slashes) of all files below `root`; links are followed, loops are not.

    Raises:
        MsbenchError: `root` is not a readable folder.
    """
    names: list[str] = []

    def visit(folder: Path, prefix: str, above: frozenset[str]) -> None:
        real = os.path.realpath(folder)
        if real in above:
            return
        with os.scandir(folder) as found:
            for item in found:
                if item.is_dir():
                    visit(Path(item.path), f"{prefix}{item.name}/", above | {real})
                elif item.is_file():
                    names.append(prefix + item.name)

    try:
        visit(root, "", frozenset())
    except OSError as error:
        raise MsbenchError(f"cannot list {root}: {error.strerror or error}") from error
    return sorted(names)


def open_tar(path: Path) -> TarSource:
    """Index an uncompressed tar: names of its plain files, without a leading `./`.

    Raises:
        MsbenchError: missing, not a tar, compressed, cut short, holding sparse files or one name twice.
    """
    members: dict[str, tuple[int, int]] = {}
    try:
        length = path.stat().st_size
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = str(PurePosixPath(member.name))
                if member.islnk() and (linked := members.get(str(PurePosixPath(member.linkname)))):
                    members[name] = linked  # a hard link shares the data of an earlier member
                if not member.isreg():
                    continue
                if member.issparse() or name in members:
                    raise MsbenchError(f"{path}: cannot read {name} by its offset (sparse or stored twice); unpack the tar")
                if member.offset_data + member.size > length:
                    raise MsbenchError(f"{path} is cut short: {name} is incomplete; copy or download the tar again")
                members[name] = (member.offset_data, member.size)
    except tarfile.ReadError as error:
        raise MsbenchError(f"{path}: {_tar_trouble(path, error)}") from error
    except OSError as error:
        raise MsbenchError(f"cannot read {path}: {error.strerror or error}") from error
    return TarSource(path, members)


def _tar_trouble(path: Path, error: Exception) -> str:
    with path.open("rb") as stream:
        head = stream.read(4)
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd")):  # gzip, bzip2, xz, zstd
        return "is compressed and cannot be read by offset; uncompress it (for .tgz: gunzip) or unpack it"
    if "unexpected end" in str(error):
        return "is cut short; copy or download the tar again"
    return f"is not a tar ({error})"


def make_keys(names: Iterable[str]) -> dict[str, str]:
    """Relative name -> key: the path without suffix, `/` as `__`, other unusual characters as `-`.

    A name that would lose something this way, or that clashes with another (upper and lower case count as the same), gets
    eight hex digits of its SHA-256 appended.
    """
    plain: dict[str, str] = {}
    exact: dict[str, bool] = {}
    for name in names:
        stem = str(PurePosixPath(name).with_suffix("")).replace("/", "__")
        safe = re.sub(r"[^A-Za-z0-9._-]", "-", stem)[:_MAX_KEY]
        plain[name] = safe
        exact[name] = safe == stem and not safe.startswith((".", "-"))
    uses = Counter(safe.casefold() for safe in plain.values())
    return {
        name: safe if exact[name] and uses[safe.casefold()] == 1 else f"{safe.lstrip('.-')}-{_digest(name)}"
        for name, safe in plain.items()
    }


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
