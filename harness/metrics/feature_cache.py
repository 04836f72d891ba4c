"""Features of reference images, computed once: a file for each set of images and extractor, its rows found by pixels.

A row's key is the SHA-256 of the image's pixels, so that a row can only serve the image it was computed from, whatever changed
on disk. The file's name hashes what the run says of the set (name, split, resolution, preprocessing) and the extractor's
identity (weights, code version, kind of device); subsets share the file of their set. A file is replaced whole, carries a
checksum of its content, and is computed again where that does not match; a cache that cannot be written ends no run.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.files import atomic_path

Features = NDArray[np.float32]
MOST_ROWS = 100_000
"""images one file keeps (800 MB of Inception features); further ones are not kept"""
MOST_BYTES = 4 << 30
"""size of all files together; the ones longest not written go first"""
_BLOCK_ROWS = 1024
_LOG = logging.getLogger(__name__)


def pixels_sha256(image: NDArray[np.uint8]) -> bytes:
    """32 bytes over shape and pixels of uint8 [H, W, 3]."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).digest()


class FeatureCache:
    """Rows of one file; nothing is written before `save`.

    Args:
        folder: where the files lie (it may not exist); None = nothing is read or written.
        identity: what the file holds: the set of images and the extractor.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, str | int | None]) -> None:
        name = hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()[:32]
        self.path = None if folder is None else folder / f"{name}.safetensors"
        self._rows: dict[bytes, Features] = _read(self.path) if self.path is not None else {}
        self._new, self._block = 0, np.empty((0, 0), np.float32)

    def features(self, keys: Sequence[bytes], compute: Callable[[list[int]], Features]) -> Features:
        """Features [B, D] of a batch of images.

        Args:
            keys: `pixels_sha256` of each image.
            compute: features [m, D] of the images at these m positions of the batch; called only for what is not known.
        """
        missing = [place for place, key in enumerate(keys) if key not in self._rows]
        if missing:
            self._rows.update({keys[place]: self._kept(row) for place, row in zip(missing, compute(missing), strict=True)})
            self._new += len(missing)
        return np.stack([self._rows[key] for key in keys])

    def _kept(self, row: Features) -> Features:
        """A copy in a block of many rows: what lives long must not lie scattered over memory that is used again and again."""
        if not len(self._block):
            self._block = np.empty((_BLOCK_ROWS, len(row)), np.float32)
        kept: Features = self._block[0]
        self._block = self._block[1:]
        kept[:] = row
        return kept

    def save(self) -> None:
        """Write what is new, beside what another run has written meanwhile; a warning says where that cannot be done."""
        if self.path is None or not self._new:
            return
        rows = _read(self.path) | self._rows
        try:
            _write(self.path, dict(list(rows.items())[:MOST_ROWS]))
            _prune(self.path)
        except OSError as error:
            _LOG.warning("features of the reference are not kept for later runs: %s: %s", self.path.parent, error)
        self._new = 0


def _checksum(keys: NDArray[np.uint8], features: Features) -> str:
    return hashlib.sha256(keys.tobytes() + features.tobytes()).hexdigest()


def _read(path: Path) -> dict[bytes, Features]:
    """The file's rows; none where it is absent or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        if not path.is_file():
            return {}
        with safe_open(path, framework="numpy") as file:
            keys, features = file.get_tensor("keys"), file.get_tensor("features")
            checksum = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError) as error:
        _LOG.warning("cached features cannot be read and are computed again: %s: %s", path, error)
        return {}
    if keys.ndim != 2 or len(keys) != len(features) or checksum != _checksum(keys, features):
        _LOG.warning("cached features are damaged and are computed again: %s", path)
        return {}
    return {key.tobytes(): row for key, row in zip(keys, features, strict=True)}


def _write(path: Path, rows: Mapping[bytes, Features]) -> None:
    from safetensors.numpy import save_file

    keys = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
    features = np.ascontiguousarray(np.stack(list(rows.values())), dtype=np.float32)
    with atomic_path(path) as temporary:
        save_file({"keys": keys, "features": features}, temporary, metadata={"sha256": _checksum(keys, features)})
        temporary.chmod(0o644)  # safetensors makes files only the owner can read; a cache may be shared


def _prune(newest: Path) -> None:
    """Remove the files longest not written until all together fit; the newest stays."""
    files = []
    for path in newest.parent.glob("*.safetensors"):
        try:
            state = path.stat()
        except FileNotFoundError:  # another run removed it
            continue
        files.append((state.st_mtime, state.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= MOST_BYTES:
            return
        if path != newest:
            path.unlink(missing_ok=True)
            total -= size
