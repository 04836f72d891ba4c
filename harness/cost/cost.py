"""One decoder's cost by one protocol: time per batch size, FLOPs, peak memory and parameters. Scope: `decode` alone.

`decode` runs from latents on the device to float pixels on the device, all steps and the noise included, the encoder never.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor

from harness.cost.flops import count_flops
from harness.cost.latency import Latency, measure_latency
from harness.cost.memory import peak_memory_mb
from harness.cost.modes import CompiledDecoder, eager_of
from harness.decoder import Decoder, NoiseSource

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class CostProtocol:
    """How cost is measured; part of the record, since figures of different protocols do not compare."""

    batch_sizes: tuple[int, ...] = (1, 8)
    """images per call, one timing cell each"""
    min_calls: int = 3
    """measured calls per cell whatever they take"""
    max_calls: int = 100
    """measured calls per cell at most"""
    max_seconds: float = 10.0
    """measured time per cell; the warm-up may take as much again"""


@dataclass(frozen=True, slots=True)
class CostCell:
    """The timing at one batch size."""

    batch_size: int
    """images per call"""
    status: Literal["ok", "out of memory"]
    """out of memory is a result, not a failure"""
    latency: Latency | None
    """None where memory ran out"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What decoding costs on one device."""

    cells: tuple[CostCell, ...]
    """one per batch size, in the protocol's order"""
    gflops: float | None
    """GFLOPs per image over all steps (`count_flops`); None without a network, or where one image ran out of memory"""
    peak_memory_mb: float | None
    """MiB one image's decode needs above weights and latents (`peak_memory_mb`); None where unknown or out of memory"""
    parameters: int
    """parameters used by `decode`"""

    @property
    def ms_per_image(self) -> dict[int, float]:
        """Batch size -> median milliseconds per image, where memory sufficed."""
        return {cell.batch_size: cell.latency.ms_per_image(cell.batch_size) for cell in self.cells if cell.latency is not None}


def measure_cost(
    decoder: Decoder,
    latents: Tensor,
    noise_for: Callable[[int], NoiseSource],
    protocol: CostProtocol,
    device: torch.device,
) -> Cost:
    """Measure `decoder` on latents of real images.

    Args:
        decoder: built on `device`, in any mode; FLOPs are those of its eager form.
        latents: [n, ...] from `decoder.encode`, where `decode` wants them; repeated in turn where a batch is larger than n.
        noise_for: batch size -> a noise source for that many samples on `device`.
        protocol: batch sizes and limits.
        device: what is waited for and whose memory is read.

    Raises `ValueError` without latents or with a batch size below one.
    """
    if latents.shape[0] < 1 or not protocol.batch_sizes or min(protocol.batch_sizes) < 1:
        raise ValueError(f"cannot time batch sizes {protocol.batch_sizes} on {latents.shape[0]} latents")

    def decode_of(batch_size: int) -> Callable[[], Tensor]:
        return decode_call(decoder, latents, noise_for, batch_size)

    def timed(batch_size: int) -> Latency:
        return measure_latency(
            decode_of(batch_size),
            device,
            min_calls=protocol.min_calls,
            max_calls=protocol.max_calls,
            max_seconds=protocol.max_seconds,
        )

    def peak() -> float | None:
        decode = decode_of(1)
        if isinstance(decoder, CompiledDecoder):
            decode()  # compiling takes memory of its own
        return peak_memory_mb(decode, device)

    # FLOPs first: the call also does the one-time set-up that neither time nor memory should show.
    gflops = _unless_out_of_memory(lambda: count_flops(eager_of(decoder), latents[:1], noise_for(1)))
    memory = _unless_out_of_memory(peak)
    cells = []
    for batch_size in protocol.batch_sizes:
        latency = _unless_out_of_memory(partial(timed, batch_size))
        cells.append(CostCell(batch_size, "out of memory" if latency is None else "ok", latency))
    return Cost(tuple(cells), gflops, memory, decoder.spec.parameters)


def decode_call(
    decoder: Decoder, latents: Tensor, noise_for: Callable[[int], NoiseSource], batch_size: int
) -> Callable[[], Tensor]:
    """A call that decodes one batch and does nothing else; latents are repeated in turn where they run out."""
    rows = torch.arange(batch_size, device=latents.device) % latents.shape[0]
    batch, noise = latents[rows], noise_for(batch_size)

    def decode() -> Tensor:
        with torch.inference_mode():
            return decoder.decode(batch, noise)

    return decode


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that device or host memory ran out; the CPU allocator says so in a plain RuntimeError."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error) and "allocate memory" in str(error)


def _unless_out_of_memory(measure: Callable[[], _Result]) -> _Result | None:
    """The measurement; None, with memory handed back, where it ran out. Any other error passes."""
    try:
        return measure()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler, so that the error no longer holds the frames that hold the tensors.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
