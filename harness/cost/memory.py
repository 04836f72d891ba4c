"""Peak memory of a call: how far memory rises above what was held before it.

Weights and latents are held before, so they are in no figure, on a GPU as on a CPU; parameters are a column of their own.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def peak_memory_mb(decode: Callable[[], object], device: torch.device) -> float | None:
    """MiB that memory rises while `decode` runs; None where this platform cannot tell (a CPU whose kernel has no /proc to ask).

    CUDA: the peak of PyTorch's allocator less what was allocated before; exact, workspaces of libraries apart.
    CPU: the peak of the process's resident memory less that before, after freed heap went back to the system. The kernel
    keeps that peak itself (VmHWM, reset through /proc/self/clear_refs). Buffers of libraries count and heap is reused unevenly:
    calls differ by about 10 %.

    Args:
        decode: called once; call it once before, so that one-time set-up is not counted.
        device: where it runs.
    """
    if device.type == "cuda":
        return _cuda_peak_mb(decode, device)
    _return_freed_memory()
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return None
    before = _status_mb("VmRSS")
    decode()
    return max(0.0, _status_mb("VmHWM") - before)


def held_mb(device: torch.device) -> float | None:
    """MiB held now: by PyTorch on CUDA, by this process elsewhere; None where this platform cannot tell."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    return _status_mb("VmRSS") if _STATUS.is_file() else None


def _cuda_peak_mb(decode: Callable[[], object], device: torch.device) -> float:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    decode()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _return_freed_memory() -> None:
    """Give freed heap back to the system (glibc only), or a decode would reuse it unseen."""
    gc.collect()
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)


def _status_mb(field: str) -> float:
    """A `field` of /proc/self/status, which is in KiB, in MiB."""
    return int(_STATUS.read_text().partition(f"\n{field}:")[2].split()[0]) / 2**10
