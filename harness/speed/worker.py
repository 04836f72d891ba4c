"""The process that runs one decoder: waits for requests, measures, answers. Whatever the decoder does, it answers.

Heavy imports come after the process is bound to its cores, so that thread pools are made on them.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from harness.environment import keep_freed_memory
from harness.speed.messages import Job, Release, Reply

_LONGEST = 300


def serve(connection: Connection, job: Job) -> None:
    """Entry point of the process: answer requests until the other end closes or sends None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this process ends it
    # The command's stdout may be a JSON document; whatever a decoder prints goes to stderr.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = job.compile_cache
    keep_freed_memory()
    pinned = pin(job.cores)
    bench: Any = None
    failure: Reply | None = None
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        if request is None:
            return
        if bench is None and failure is None:
            built = attempt(_bench, job, pinned)
            bench, failure = built.value, None if built.status == "ok" else built
        reply = failure or attempt(bench.handle, request)
        if failure is None and reply.status != "ok":
            attempt(bench.handle, Release())  # what ran out of memory must not keep it from the others
        connection.send(reply)


def pin(cores: tuple[int, ...] | None) -> bool:
    """Bind this process to `cores`, with as many threads; False where that is not asked for or the system cannot."""
    if cores is None:
        return False
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(len(cores))
    able = hasattr(os, "sched_setaffinity")
    if able:
        os.sched_setaffinity(0, cores)
    import torch

    torch.set_num_threads(len(cores))
    return able


def attempt(call: Callable[..., Any], *arguments: Any) -> Reply:
    """The call's value, or the error as a recorded status: a decoder that throws must not end the run."""
    from harness.cost.modes import UnsupportedModeError

    try:
        return Reply("ok", value=call(*arguments))
    except UnsupportedModeError as error:
        return Reply("unsupported", _line(error), for_users=True)
    except Exception as error:  # noqa: BLE001 decoders are anybody's code
        return Reply("out of memory" if _out_of_memory(error) else "failed", _line(error), for_users=_for_users(error))


def _out_of_memory(error: BaseException | None) -> bool:
    """Memory ran out here or in what this error was raised from (compilers wrap what they meet)."""
    from harness.cost.cost import is_out_of_memory

    while error is not None:
        if is_out_of_memory(error):
            return True
        error = error.__cause__
    return False


def _for_users(error: Exception) -> bool:
    """The message says what a user should change."""
    from harness.errors import MsbenchError

    return isinstance(error, MsbenchError)


def _line(error: Exception) -> str:
    """Kind and message in one line; the message alone where it was written for users."""
    words = " ".join(str(error).split())
    text = words if _for_users(error) else f"{type(error).__name__}: {words}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _bench(job: Job, pinned: bool) -> Any:
    from harness.speed.bench import Bench

    return Bench(job, pinned, time.monotonic)
