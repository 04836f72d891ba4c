"""The process that runs one decoder: waits for questions, measures, answers. Whatever the decoder does, it answers.

The process is bound to its cores before anything is computed, so that torch makes its thread pools on them.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

import torch

from harness.cost.attempt import attempt
from harness.environment import keep_freed_memory
from harness.speed.bench import Bench
from harness.speed.messages import Job


def serve(connection: Connection, job: Job) -> None:
    """Entry point of the process: answer questions until the other end closes or sends None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this process ends it
    # The command's stdout may be a JSON document; whatever a decoder prints goes to stderr.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = job.compile_cache
    keep_freed_memory()
    pinned = pin(job.cores)
    built = None
    with suppress(EOFError, ConnectionError):  # whoever asks has been killed
        while (question := connection.recv()) is not None:
            method, arguments = question
            built = built or attempt(Bench, job, pinned)
            outcome = attempt(method, built.value, *arguments) if built.status == "ok" else built
            if built.status == "ok" != outcome.status:
                attempt(built.value.release)  # what ran out of memory must not keep it from the others
            connection.send(outcome)


def pin(cores: tuple[int, ...] | None) -> bool:
    """Bind this process to `cores`, with as many threads; False where that is not asked for or the system cannot."""
    if cores is None:
        return False
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(len(cores))
    able = hasattr(os, "sched_setaffinity")
    if able:
        os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    return able
