"""What a decoder of a sweep costs in every mode: FLOPs and memory once, time and energy for each mode and batch size.

Time is taken as everywhere (`harness.cost.latency`); energy on a CUDA device only, over calls without a pause.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from harness.cost.cost import CostProtocol, decode_call, is_out_of_memory
from harness.cost.flops import count_flops
from harness.cost.latency import measure_latency
from harness.cost.memory import peak_memory_mb
from harness.cost.modes import Mode, UnsupportedModeError, in_mode
from harness.cost.power import PowerMonitor
from harness.decoder import Decoder, NoiseSource

Status = Literal["ok", "out of memory", "unsupported"]
_Result = TypeVar("_Result")


def measure_modes(
    decoder: Decoder,
    latents: Tensor,
    noise_for: Callable[[int], NoiseSource],
    modes: Sequence[Mode],
    protocol: CostProtocol,
    device: torch.device,
) -> dict[str, Any]:
    """Measure `decode` in each mode at each batch size.

    Args:
        decoder: built on `device`, as it is (eager).
        latents: at least as many as the largest batch, where `decode` wants them.
        noise_for: batch size -> a noise source for that many samples on `device`.
        modes: in the order of the cells.
        protocol: batch sizes and limits.
        device: what is waited for, and whose memory and energy are read.

    Returns:
        gflops and peak_memory_mb of one image, both eager and None where unknown; cells: mode, batch_size, status, reason, and,
        None where not measured, latency (fields of `Latency`), energy_j (an image, idle power included), power (fields of
        `PowerReport`).
    """

    def cell(mode: Mode, batch: int) -> dict[str, Any]:
        if mode == "compile":
            torch.compiler.reset()  # what other shapes left would turn static shapes into dynamic ones
        call = decode_call(in_mode(decoder, mode, device), latents, noise_for, batch)
        latency = measure_latency(
            call, device, min_calls=protocol.min_calls, max_calls=protocol.max_calls, max_seconds=protocol.max_seconds
        )
        # As many calls as fill the cell's time, waited for once at the end.
        count = max(1, math.ceil(1000.0 * protocol.max_seconds / latency.median_ms))
        energy, power = _energy(call, count, count * batch, device)
        return {"latency": asdict(latency), "energy_j": energy, "power": power}

    # FLOPs first: the call also does the one-time set-up that neither time nor memory should show.
    gflops, _, _ = _attempt(lambda: count_flops(decoder, latents[:1], noise_for(1)))
    memory, _, _ = _attempt(lambda: peak_memory_mb(decode_call(decoder, latents, noise_for, 1), device))
    cells = []
    for mode in modes:
        for batch in protocol.batch_sizes:
            found, status, reason = _attempt(lambda mode=mode, batch=batch: cell(mode, batch))  # type: ignore[misc]
            figures = found or {"latency": None, "energy_j": None, "power": None}
            cells.append({"mode": mode, "batch_size": batch, "status": status, "reason": reason, **figures})
    return {"gflops": gflops, "peak_memory_mb": memory, "cells": cells}


def _energy(
    call: Callable[[], object], count: int, images: int, device: torch.device
) -> tuple[float | None, dict[str, Any] | None]:
    """Joules an image over `count` calls without a pause, and all that was seen of the GPU; None on other devices."""
    if device.type != "cuda":
        return None, None
    index = torch.cuda.current_device() if device.index is None else device.index
    with PowerMonitor(index) as monitor:
        for _ in range(count):
            call()
        torch.cuda.synchronize(device)
    return monitor.report.joules_per_image(images), monitor.report.to_record()


def _attempt(measure: Callable[[], _Result]) -> tuple[_Result | None, Status, str | None]:
    """The measurement, or why there is none: memory ran out, or the mode cannot serve it. Any other error passes."""
    from torch._dynamo.exc import TorchDynamoException

    status: Status = "unsupported"
    reason: str | None
    try:
        return measure(), "ok", None
    except (UnsupportedModeError, TorchDynamoException) as error:
        reason = str(error).strip().partition("\n")[0]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        status, reason = "out of memory", None
    # Outside the handler, so that the error no longer holds the frames that hold the tensors.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None, status, reason
