"""Training by several processes under torchrun: what they agree on, average and send; nothing of it with one process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

# First imported inside a process group, as optimisers do, dynamo would keep the group and its threads alive past its end, and
# an exit while one of them still works aborts the process.
import torch._dynamo
import torch.distributed as dist
from torch import Tensor, nn

from harness.errors import MsbenchError


@dataclass(frozen=True, slots=True)
class Group:
    """The processes of one training. With one of them every method is a no-op.

    Each method is collective: all processes must call it, in the same order.
    """

    rank: int = 0
    """this process, from 0; rank 0 alone writes files"""
    world: int = 1
    """number of processes"""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """where this process trains, and where the tensors that are exchanged lie"""
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
        with torch.no_grad():
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

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier()

    def _reduce(self, value: float, operation: dist.ReduceOp.RedOpType) -> float:
        tensor: Tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=operation)
        return float(tensor)


@contextmanager
def current_group(device: torch.device) -> Iterator[Group]:
    """The processes torchrun started (gloo on a CPU, nccl on GPUs, one GPU a process), or a group of one without it.

    Raises:
        MsbenchError: WORLD_SIZE is set, but the processes cannot find one another.
    """
    if "WORLD_SIZE" not in os.environ:
        yield Group(device=device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise MsbenchError(f"WORLD_SIZE is set but no process group began ({reason}): start with torchrun") from error
    try:
        local = (int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        yield Group(dist.get_rank(), dist.get_world_size(), device, *local)
    finally:
        dist.destroy_process_group()
