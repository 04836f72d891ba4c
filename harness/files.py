"""Writing files so that a reader never sees half of one: a temporary name in the same folder, then a rename."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import MsbenchError

LOCK = ".lock"
_LONGEST_NAME = 60


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
    """Be the only writer of `folder`, which is made if need be: its file `.lock` names host, process and that process's start.

    The lock of a process of this host that has ended is taken over.

    Raises:
        MsbenchError: another process is writing there, or the folder cannot be written to.
    """
    lock = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while not _take(lock, f"{socket.gethostname()} {os.getpid()} {_birth(os.getpid())}"):
            pass
    except OSError as error:
        raise MsbenchError(f"cannot write to {folder} ({error.strerror or error}); choose another folder") from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _take(lock: Path, mine: str) -> bool:
    """Write the lock; False where another has just gone and one should try again."""
    try:
        with lock.open("x") as stream:
            stream.write(mine)
        return True
    except FileExistsError:
        pass
    try:
        holder = lock.read_text(errors="replace")
        host, pid, birth = holder.split() if len(holder.split()) == 3 else ("an unknown host", "0", "")
        if host != socket.gethostname() or not pid.isdecimal() or _birth(int(pid)) in (birth, "unknown"):
            hint = "wait for it or choose another folder; if it is gone, delete that file"
            raise MsbenchError(f"{lock.parent} is being written by process {pid} on {host} ({lock}): {hint}")
        moved = lock.with_name(f"{LOCK}.{os.getpid()}")
        lock.rename(moved)
        if moved.read_text(errors="replace") != holder:  # another process took the ended one's place first
            os.link(moved, lock)
        moved.unlink()
    except FileNotFoundError:
        pass
    return False


def _birth(pid: int) -> str:
    """When a process of this host began, in ticks since boot; "ended" without such a process, "unknown" without /proc."""
    try:
        os.kill(pid, 0)
        state, *_, start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:20]
    except (ProcessLookupError, OverflowError):
        return "ended"
    except OSError:
        return "unknown"
    return "ended" if state == "Z" else start


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
