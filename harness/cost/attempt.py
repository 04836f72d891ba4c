"""One guard around everything a decoder is asked to do: a value, or why there is none, with memory handed back."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from harness.errors import MsbenchError

Status = Literal["ok", "out of memory", "unsupported", "failed", "skipped_budget"]
"""Every one of them is a result; the last only where there is a budget (`msbench speed`)"""

_LONGEST = 300
_OUT_OF_MEMORY = re.compile(r"out of memory|DefaultCPUAllocator.*allocate memory|ALLOC\w*_FAILED", re.DOTALL)


class UnsupportedModeError(MsbenchError):
    """A decoder or a device that a mode cannot serve; a recorded result."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt."""

    status: Status
    """ok, or why there is no value"""
    reason: str | None = None
    """one line where it is not ok"""
    value: Any = None
    """what was asked for"""
    for_users: bool = False
    """the reason says what a user should change: an unknown option, a missing checkpoint"""


def attempt(call: Callable[..., Any], *arguments: Any) -> Outcome:
    """The call's value, or its error as a status: decoders are anybody's code, and one that fails must not end the rest."""
    try:
        return Outcome("ok", value=call(*arguments))
    except (Exception, SystemExit) as error:  # noqa: BLE001 decoders are anybody's code
        outcome = Outcome(_status(error), one_line(error), for_users=isinstance(error, MsbenchError))
    # Outside the handler, so that the error no longer holds the frames that hold the tensors.
    free_memory()
    return outcome


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory of device or host ran out in `error` or in what it was raised from (compilers wrap what they meet).

    Allocators say so with an exception of their own; the CPU's, cuBLAS, cuDNN and the CUDA runtime in a plain RuntimeError.
    """
    while error is not None:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            return True
        if isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)):
            return True
        error = error.__cause__
    return False


def free_memory() -> None:
    """Hand back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def one_line(error: BaseException) -> str:
    """Kind and message in one line; the message alone where it was written for users."""
    words = " ".join(str(error).split())
    text = words if isinstance(error, MsbenchError) else f"{type(error).__name__}: {words}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _status(error: BaseException) -> Status:
    if is_out_of_memory(error):
        return "out of memory"
    # A compiler that cannot take a decoder is told by its module: importing it takes seconds.
    compiler = type(error).__module__.startswith("torch._dynamo")
    return "unsupported" if compiler or isinstance(error, UnsupportedModeError) else "failed"
