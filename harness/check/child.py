"""The checks in a process of their own: one that dies, hangs or takes all memory is a finding too."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.check.conformance import CHECKS, Finding, conformance
from harness.errors import MsbenchError
from harness.request.requests import DecoderRequest
from harness.speed.client import obituary

BUILD = "build"
"""the check before all others: the decoder can be built"""
_SHARE = 0.8  # of the memory that is free
_END_SECONDS = 5.0


def check_apart(
    request: DecoderRequest, device: torch.device, dtype: torch.dtype, pixels: Tensor, timeout: float
) -> Iterator[Finding]:
    """Build a decoder and try it in a process of its own; every check gives a finding, in order.

    Args:
        request: the decoder.
        device: where it is tried.
        dtype: its arithmetic, where the request names none.
        pixels: photographs, uint8 [B, 3, R, R] on the CPU.
        timeout: seconds a check may take.
    """
    context, missing = multiprocessing.get_context("spawn"), [BUILD, *(name for name, _, _ in CHECKS)]
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, request, device, dtype, pixels.numpy()))
    process.start()
    theirs.close()
    ended = f"no answer after {timeout:g} s: it hangs, or --timeout is too short for it"
    try:
        ours.recv()  # the start of the process is no check
        while missing and ours.poll(timeout):
            yield ours.recv()
            missing.pop(0)
    except EOFError:
        ended = f"{obituary(process)}: nothing in a decoder may end the process (exit, abort, crash)"
    finally:
        if not missing:
            process.join(_END_SECONDS)
        process.kill()
        process.join()
    for name in missing:
        failed = name == missing[0]
        yield Finding(name, False if failed else None, ended if failed else f"not tried: needs {missing[0]}")


def _serve(
    connection: Connection, request: DecoderRequest, device: torch.device, dtype: torch.dtype, pixels: NDArray[np.uint8]
) -> None:
    """Entry point of the process: sends that it began, then a finding a check."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this process ends it
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the command's stdout may be a JSON document
    if device.type == "cpu":
        _bound_memory()
    connection.send(None)
    try:
        decoder = request.build(device, dtype, resolution=pixels.shape[-1])
    except MsbenchError as error:
        connection.send(Finding(BUILD, False, str(error)))
        for name, _, _ in CHECKS:
            connection.send(Finding(name, None, f"not tried: needs {BUILD}"))
        return
    connection.send(Finding(BUILD, True, ""))
    with suppress(KeyboardInterrupt):  # the decoder's own
        for finding in conformance(decoder, torch.from_numpy(pixels).to(device), request.options(device, dtype).dtype):
            connection.send(finding)


def _bound_memory() -> None:
    """Let this process take a share of the memory that is free now, where the system can tell and bound it."""
    with suppress(ImportError, OSError, IndexError, ValueError):
        import resource

        free, mine = (
            int(Path(file).read_text().partition(f"{field}:")[2].split()[0]) * 1024
            for file, field in (("/proc/meminfo", "MemAvailable"), ("/proc/self/status", "VmData"))
        )
        resource.setrlimit(resource.RLIMIT_DATA, (mine + int(_SHARE * free), resource.RLIM_INFINITY))
