"""Writing files so that a reader never sees half of one: a temporary name in the same folder, then a rename."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from safetensors import SafetensorError

from harness.errors import MsbenchError

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
_LONGEST_NAME = 60


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it to `target` on success, remove it on any error.

    The temporary name keeps the target's suffix, since many writers choose their format by it. Where safetensors cannot
    write, which has an error of its own, an `OSError` says so.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.{secrets.token_hex(4)}{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn an `OSError` into an `MsbenchError` that names a run's folder, and says what to do where it is full."""
    try:
        yield
    except OSError as error:
        raise MsbenchError(f"{folder} is full or not writable ({error.strerror or error}): make room, then --resume") from error


def write_bytes(target: Path, data: bytes) -> None:
    """Write `data` to `target` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: Path, text: str) -> None:
    """Write `text` (UTF-8) to `target` atomically."""
    write_bytes(target, text.encode())


def safe_name(label: str) -> str:
    """The name of the file or folder that belongs to a label: one component of a path, the label itself where that can be.

    Other labels lose what paths or shells read otherwise and end in part of their hash, so that no two get one name.
    """
    plain = re.sub(r"[^\w.@=+,-]+", "_", label, flags=re.ASCII).lstrip(".-")[:_LONGEST_NAME]
    if label and plain == label != "reference":
        return label
    return f"{plain or 'row'}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Be the only writer of `folder`, which is made if need be: holds the system's lock on its file `.lock`, which says who.

    What a killed writer left half-written in it is removed.
    The system lets go of it when the process ends, however that comes about. On Windows nothing is held.

    Raises:
        MsbenchError: another process is writing there, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while (stream := _held(folder / LOCK)) is None:
            pass
        for leftover in folder.glob(f".*.[0-9]*.{'[0-9a-f]' * 8}*"):  # the names `atomic_path` writes under
            leftover.unlink()
    except OSError as error:
        raise MsbenchError(f"cannot write to {folder} ({error.strerror or error}); choose another folder") from error
    with stream:
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


def _held(lock: Path) -> TextIO | None:
    """The file, locked; None where its last holder has just removed it."""
    with ExitStack() as stack:
        stream = stack.enter_context(lock.open("a+"))
        try:
            if sys.platform != "win32":
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(stream.fileno()), lock.stat()):
                stream.truncate(0)
                print(f"process {os.getpid()} on {socket.gethostname()}", end="", file=stream, flush=True)
                stack.pop_all()
                return stream
        except BlockingIOError as error:
            stream.seek(0)
            holder = stream.read() or "another process"
            raise MsbenchError(f"{lock.parent} is being written by {holder}: wait for it or choose another folder") from error
        except FileNotFoundError:
            pass
    return None


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
    return Path(os.path.expanduser(chosen)) if chosen else cache_dir() / "features"
