"""Writing files so that a reader never sees half of one: a temporary name in the same folder, then a rename."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import MsbenchError


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it to `target` on success, remove it on any error.

    The temporary name keeps the target's suffix, since many writers choose their format by it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.{secrets.token_hex(4)}{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(target: Path, data: bytes) -> None:
    """Write `data` to `target` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: Path, text: str) -> None:
    """Write `text` (UTF-8) to `target` atomically."""
    write_bytes(target, text.encode())


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cache_dir() -> Path:
    """The cache folder: `$MSBENCH_CACHE`, else `~/.cache/msbench` (`$XDG_CACHE_HOME/msbench` where that is set).

    The folder may not exist yet; whoever writes creates it.

    Raises:
        MsbenchError: none is chosen and this user has no home folder.
    """
    chosen, base = os.environ.get("MSBENCH_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        if chosen:
            return Path(chosen).expanduser()
        return (Path(base) if base else Path.home() / ".cache") / "msbench"
    except RuntimeError as error:
        raise MsbenchError(f"no folder to keep downloads in ({error}); set MSBENCH_CACHE to one") from error


def features_dir() -> Path | None:
    """Where features of reference images are kept: `$MSBENCH_FEATURES`, else `features` in the cache folder; None for "off"."""
    chosen = os.environ.get("MSBENCH_FEATURES")
    if chosen == "off":
        return None
    return Path(chosen).expanduser() if chosen else cache_dir() / "features"
