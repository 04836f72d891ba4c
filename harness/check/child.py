"""The checks in a process of their own: one that dies, hangs or takes all memory is a finding too."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.check.conformance import CHECKS, Finding, conformance
from harness.decoder import DecoderOptions
from harness.errors import MsbenchError
from harness.registry import build_decoder
from harness.speed.client import obituary

BUILD = "build"
"""the check before all others: the decoder can be built"""
_SHARE = 0.8  # of the memory that is free


def check_apart(
    name: str, options: DecoderOptions, pixels: Tensor, timeout: float, report: Callable[[Finding], None]
) -> list[Finding]:
    """Build a decoder and try it in a process of its own.

    Args:
        name: the decoder, for `build_decoder`.
        options: how to build it.
        pixels: photographs, uint8 [B, 3, R, R] on the CPU.
        timeout: seconds a check may take.
        report: called with each finding as it comes.
    """
    context, found, current = multiprocessing.get_context("spawn"), list[Finding](), BUILD
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, name, options, pixels.numpy()))
    process.start()
    theirs.close()

    def note(finding: Finding) -> None:
        found.append(finding)
        report(finding)

    try:
        ours.poll(None)  # the start of the process is no check
        while ours.poll(timeout):
            message = ours.recv()
            if message is None:
                process.join(timeout)
                break
            if isinstance(message, Finding):
                note(message)
            else:
                current = message
        else:
            note(Finding(current, False, f"no answer after {timeout:g} s: it hangs, or --timeout is too short for it"))
    except EOFError:
        note(Finding(current, False, f"{obituary(process)}: nothing in a decoder may end the process (exit, abort, crash)"))
    finally:
        process.kill()
        process.join()
    for check, _, _ in CHECKS:
        if check not in [one.name for one in found]:
            note(Finding(check, None, f"not tried: needs {current}"))
    return found


def _serve(connection: Connection, name: str, options: DecoderOptions, pixels: NDArray[np.uint8]) -> None:
    """Entry point of the process: sends the name of each check before it, its finding after it, None at the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this process ends it
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the command's stdout may be a JSON document
    if options.device.type == "cpu":
        _bound_memory()
    connection.send(BUILD)
    try:
        spec = (decoder := build_decoder(name, options)).spec
        connection.send(Finding(BUILD, True, f"{spec.steps} steps, {spec.scales} scales, {spec.parameters:,} parameters"))
        for finding in conformance(decoder, torch.from_numpy(pixels).to(options.device), options.dtype, connection.send):
            connection.send(finding)
    except MsbenchError as error:
        connection.send(Finding(BUILD, False, str(error)))
    except KeyboardInterrupt:  # the decoder's own
        sys.exit(130)
    connection.send(None)


def _bound_memory() -> None:
    """Let this process take a share of the memory that is free now, where the system can tell and bound it."""
    with suppress(ImportError, OSError, IndexError, ValueError):
        import resource

        free, mine = (
            int(Path(file).read_text().partition(f"{field}:")[2].split()[0]) * 1024
            for file, field in (("/proc/meminfo", "MemAvailable"), ("/proc/self/status", "VmData"))
        )
        resource.setrlimit(resource.RLIMIT_DATA, (mine + int(_SHARE * free), resource.RLIM_INFINITY))
