"""Several processes under torchrun: what they agree on, average and send; nothing of it with one process."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.errors import ElsewhereError, MsbenchError
from harness.interrupt import EXIT_CODE

RANK, WORLD = "RANK", "WORLD_SIZE"
"""variables of the environment by which torchrun tells a process which it is, and of how many"""
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Group:
    """The processes of one job. With one of them every method is a no-op.

    Each method is collective: all processes must call it, in the same order; each raises `MsbenchError` where one has ended.
    """

    rank: int = 0
    """this process, from 0; rank 0 alone writes files"""
    world: int = 1
    """number of processes"""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """where this process computes, and where the tensors that are exchanged lie"""
    local_rank: int = 0
    """this process among those of its machine; 0 fills the machine's cache"""
    local_world: int = 1
    """number of processes on this machine"""

    @property
    def writes(self) -> bool:
        """This process writes the run's files."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes; one that some lack counts as 0 there, one all lack stays None.

        Averaged by hand, because DistributedDataParallel hooks into one forward per backward, and losses call parts of their
        module several times a step. One flat all-reduce per dtype: many small ones would each pay the latency.
        """
        if self.world == 1:
            return
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = {}
        for parameter in parameters:
            by_dtype.setdefault(parameter.dtype, []).append(parameter)
        for dtype, members in by_dtype.items():
            present = torch.tensor([p.grad is not None for p in members], dtype=dtype, device=self.device)
            pieces = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in members]
            flat = torch.cat([*pieces, present])
            with self._broken():
                dist.all_reduce(flat)
            *means, seen = torch.split(flat, [*(p.numel() for p in members), len(members)])
            for parameter, mean, count in zip(members, means, seen.tolist(), strict=True):
                if count > 0 and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                if parameter.grad is not None:
                    parameter.grad.copy_((mean / self.world).view(parameter.shape))

    def broadcast(self, module: nn.Module) -> None:
        """Give every process rank 0's parameters and buffers."""
        if self.world == 1:
            return
        with torch.no_grad(), self._broken():
            for tensor in (*module.parameters(), *module.buffers()):
                sent = tensor.detach().clone(memory_format=torch.contiguous_format).to(self.device)
                dist.broadcast(sent, src=0)
                tensor.copy_(sent)

    def max(self, value: float) -> float:
        """The largest of the processes' values."""
        return value if self.world == 1 else self._reduce(value, dist.ReduceOp.MAX)

    def sum(self, value: float) -> float:
        """The sum of the processes' values, in float64."""
        return value if self.world == 1 else self._reduce(value, dist.ReduceOp.SUM)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag if self.world == 1 else self.max(float(flag)) > 0.0

    def gather(self, value: Value) -> list[Value]:
        """Every process's value, by rank."""
        found: list[Value | None] = [value] * self.world
        if self.world > 1:
            with self._broken():
                dist.all_gather_object(found, value)
        return found  # type: ignore[return-value]

    def share(self, value: Value) -> Value:
        """Rank 0's value."""
        return self.gather(value if self.writes else None)[0]  # type: ignore[return-value]

    @contextmanager
    def together(self) -> Iterator[None]:
        """What all processes do, without a collective inside: where one fails, all fail, and rank 0 says why.

        Raises:
            MsbenchError: this process failed, in rank 0 also another one; an `OSError` counts as a failure too.
            ElsewhereError: another process failed.
        """
        if self.world == 1:
            yield
            return
        failed: MsbenchError | OSError | None = None
        try:
            yield
        except (MsbenchError, OSError) as error:
            failed = error
        lines = self.gather("" if failed is None else str(failed) or type(failed).__name__)
        if (rank := next((rank for rank, line in enumerate(lines) if line), None)) is not None:
            line = f"process {rank} of {self.world}: " * (rank > 0) + lines[rank]
            raise (MsbenchError if self.writes else ElsewhereError)(line) from failed

    def barrier(self) -> None:
        """Wait for all processes."""
        self.sum(0.0)

    def _reduce(self, value: float, operation: dist.ReduceOp.RedOpType) -> float:
        tensor: Tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        with self._broken():
            dist.all_reduce(tensor, op=operation)
        return float(tensor)

    @contextmanager
    def _broken(self) -> Iterator[None]:
        """Say in one line that the connection to another process broke; what the backend tells of it is its own affair."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            who = f"process {self.rank} of {self.world}"
            raise MsbenchError(f"{who}: another one has ended, so this one ends too; --resume goes on") from error


@contextmanager
def current_group(device: torch.device, patience: timedelta | None = None) -> Iterator[Group]:
    """The processes torchrun started (gloo on a CPU, nccl on GPUs, one GPU a process), or a group of one without it.

    Objects are exchanged through gloo on GPUs too, which notices at once where a process has ended.

    Args:
        device: of the job; a process on a GPU has the one of its local rank.
        patience: how long one process waits for another; None = the backend's own.

    Raises:
        MsbenchError: WORLD_SIZE is set, but the processes cannot find one another, or there are more of them than GPUs.
    """
    if WORLD not in os.environ:
        yield Group(device=device)
        return
    local = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type == "cuda":
        device = torch.device("cuda", local[0])
        if local[0] >= (gpus := torch.cuda.device_count()):
            raise MsbenchError(f"process {local[0]} of this machine has no GPU of its own: there are {gpus}; start as many")
        torch.cuda.set_device(device)
    # First imported inside a process group, as optimisers do, dynamo would keep the group and its threads alive past its end,
    # and an exit while one of them still works aborts the process.
    import_module("torch._dynamo")
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=patience)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise MsbenchError(f"WORLD_SIZE is set but no process group began ({reason}): start with torchrun") from error
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), device, *local)
    finally:
        dist.destroy_process_group()


def start_processes(count: int, arguments: Sequence[str]) -> int:
    """Run `msbench` with these arguments in so many processes on this machine, as torchrun does; returns its exit code.

    Raises:
        MsbenchError: one of them was killed, and the others were ended for it.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    logging.disable()  # what fails tells so itself
    name, script = secrets.token_hex(8), Path(__file__).resolve().parents[1] / "msbench.py"
    logs = DefaultLogsSpecs(os.devnull)  # else a folder for them stays behind
    config = LaunchConfig(
        1, 1, count, run_id=name, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0, logs_specs=logs
    )
    try:
        elastic_launch(config, sys.executable)(str(script), *arguments)
    except SignalException as error:
        return 130 if error.sigval == signal.SIGINT else EXIT_CODE
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            raise MsbenchError(f"process {rank} of {count} was killed ({failure.signal_name()}); --resume goes on") from error
        return int(failure.exitcode)
    return 0
