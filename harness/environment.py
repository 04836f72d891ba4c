"""What a run ran on: machine, libraries, accelerator and the state of the code, for the record."""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.files import sha256_file

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's <malloc.h>
_NEVER = 2**31 - 1
_GROW_BY = 64 * 2**20
_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("numpy", "scipy", "pandas", "pillow", "torch-fidelity", "lpips", "torchvision", "scikit-image")


def environment() -> dict[str, Any]:
    """Describe this process and machine in JSON types.

    Keys: platform, python, cpu_model, cpu_cores, torch, torch_threads, packages {name: version or None}, msbench, git {commit,
    dirty} (both None outside a checkout), cuda, cudnn, driver, gpus [{name, memory_mb, capability}], tf32 {matmul, cudnn}. What
    the machine does not have is None, [] for gpus. Nothing that names the user or the host is kept.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu_model": cpu_model(),
        "cpu_cores": os.cpu_count(),
        "torch": str(torch.__version__),
        "torch_threads": torch.get_num_threads(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "msbench": msbench_version(),
        "git": git_state(_ROOT),
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,  # type: ignore[no-untyped-call]
        "driver": _driver_version() if on_gpu else None,
        "gpus": _gpus() if on_gpu else [],
        "tf32": {"matmul": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32} if on_gpu else None,
    }


@dataclass(frozen=True, slots=True)
class Start:
    """When a run began, and on what: code that changes while it runs is not the code that ran."""

    unix: float = field(default_factory=time.time)
    """time in seconds"""
    counter: float = field(default_factory=time.monotonic)
    """seconds of a clock that nobody sets"""
    facts: dict[str, Any] = field(default_factory=environment)
    """see `environment`"""

    @property
    def date(self) -> str:
        """In UTC, as ISO 8601."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.unix))

    def seconds(self) -> float:
        """Since then, to a tenth."""
        return round(time.monotonic() - self.counter, 1)


def source_sha256(thing: object) -> str | None:
    """SHA-256 of the file of the module that defines an object's class; None where there is no file."""
    path = getattr(sys.modules.get(type(thing).__module__), "__file__", None)
    return sha256_file(Path(path)) if path and Path(path).is_file() else None


def command_line() -> str:
    """How msbench was called, as a shell takes it again."""
    return shlex.join(["msbench", *sys.argv[1:]])


def cpu_model() -> str | None:
    """The processor's name: from /proc/cpuinfo or, on a Mac, where it names the chip and so its GPU, from sysctl."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    if sys.platform == "darwin" and (chip := _output("sysctl", "-n", "machdep.cpu.brand_string")):
        return chip
    return platform.processor() or platform.machine() or None


def msbench_version() -> str | None:
    """The installed package's version; in a checkout that is not installed, the one in its pyproject.toml."""
    if (installed := _version("msbench")) is not None:
        return installed
    project = _project_table(_ROOT)
    return None if project is None else str(project["version"])


def git_state(root: Path) -> dict[str, Any]:
    """{commit: hash or None, dirty: bool or None} of msbench's own checkout at `root`.

    Dirty means that tracked files differ from the commit (as in `git describe --dirty`). An installation inside some other
    project's repository does not take that repository's commit for its own: `root` must be the top of the working tree.
    """
    unknown: dict[str, Any] = {"commit": None, "dirty": None}
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve() or _project_table(root) is None:
        return unknown
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if commit is None or changes is None else bool(changes)}


def _git(root: Path, *arguments: str) -> str | None:
    """Standard output of a git command; None where git is missing, slow or refuses."""
    return _output("git", "-C", str(root), *arguments)


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _project_table(root: Path) -> dict[str, Any] | None:
    """`[project]` of msbench's pyproject.toml at `root`; None where there is none or it is another project's."""
    path = root / "pyproject.toml"
    if not path.is_file():
        return None
    project: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    return project if project.get("name") == "msbench" else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> list[dict[str, Any]]:
    import torch

    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"name": g.name, "memory_mb": g.total_memory // 2**20, "capability": f"{g.major}.{g.minor}"} for g in found]


def _driver_version() -> str | None:
    """The NVIDIA driver's version through NVML; None where NVML does not answer (a ROCm build, a stripped container)."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        version = pynvml.nvmlSystemGetDriverVersion()
    finally:
        pynvml.nvmlShutdown()
    return version.decode() if isinstance(version, bytes) else str(version)


def keep_freed_memory() -> bool:
    """Set this process's C allocator to keep what is freed; False where it is not glibc's, and nothing is done.

    By default glibc hands big blocks back to the system as soon as they are freed, so that every call takes its tensors anew,
    page by page.

    Called by processes of msbench's own, at their start; never by a function that others import.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROW_BY))
    answers = [library.mallopt(name, value) for name, value in settings]
    return all(answer == 1 for answer in answers)
