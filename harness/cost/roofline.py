"""The roofline: what a decode reaches, held against what this device was seen to reach on a large product and a large copy.

Model of Williams, Waterman & Patterson, "Roofline" (CACM 52(4), 2009). The ceilings are measured, not taken from a data sheet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from harness.cost.flops import Work
from harness.cost.latency import timed_call

_WARM_UP_CALLS = 2
_CALLS = 5
_MATMUL_SIDES = {"cuda": (2048, 4096, 8192), "cpu": (256, 512, 1024, 2048, 4096)}
_CONV_CHANNELS, _CONV_SIDE = {"cuda": 512, "cpu": 128}, 64
_CONV_BATCHES = {"cuda": (4, 16, 64), "cpu": (1, 2, 4, 8, 16)}
_COPY_MIB = {"cuda": (256, 1024), "cpu": (256,)}  # beyond any cache

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The fastest this device was seen to compute and to move memory, in one dtype; the best of several calls each."""

    flops_per_s: float
    """FLOP/s of the fastest candidate, a multiply-add being two; with tricks such as Winograd's it may pass the data sheet's"""
    flops_how: str
    """the candidate that reached it, with its size"""
    bytes_per_s: float
    """bytes/s of a copy, read and written bytes both counted; a CPU that reads what it overwrites moves half as much again"""
    bytes_how: str
    """the copy's size"""
    candidates: dict[str, float]
    """FLOP/s of each candidate, the best size of each"""
    device: str
    """device type it was measured on"""
    dtype: str
    """dtype of the product, the convolution and the copy"""
    threads: int | None
    """torch's threads on a CPU; None elsewhere"""


@dataclass(frozen=True, slots=True)
class Roofline:
    """One timing cell against the ceilings. Figures that need counted FLOPs are None where no network ran."""

    achieved_flops_per_s: float | None
    """counted FLOP/s (`Work.gflops`; element-wise work is not in it)"""
    achieved_bytes_per_s: float
    """bytes/s as if nothing were fused or cached: an upper bound"""
    flops_utilisation: float | None
    """model FLOPs utilisation: achieved over the ceiling"""
    bound: Literal["compute", "memory"]
    """the ceiling that takes longer for this work; with utilisations far below 1 neither is reached (launches, overhead)"""


def roofline(work: Work, ms_per_image: float, ceilings: Ceilings, batch_size: int = 1) -> Roofline:
    """Hold a measured time against measured ceilings.

    Args:
        work: from `count_work`, counted in the dtype that was timed.
        ms_per_image: median milliseconds per image.
        ceilings: of the same device, dtype and number of threads.
        batch_size: images per call of the timing; weights are read once a call.

    Raises `ValueError` unless the time is positive.
    """
    if ms_per_image <= 0:
        raise ValueError(f"a decode takes time, got {ms_per_image} ms per image")
    seconds, moved = ms_per_image / 1e3, 1e9 * work.gigabytes(batch_size)
    flops = None if work.gflops is None else 1e9 * work.gflops / seconds
    memory_bound = moved / ceilings.bytes_per_s > (flops or 0.0) * seconds / ceilings.flops_per_s
    return Roofline(flops, moved / seconds, flops and flops / ceilings.flops_per_s, "memory" if memory_bound else "compute")


def measure_ceilings(
    device: torch.device, dtype: torch.dtype, *, seconds: float = 2.0, clock: Clock = time.perf_counter
) -> Ceilings:
    """Measure both ceilings: a square matrix product and a 3×3 channels-last convolution, the faster one; a large copy.

    oneDNN and cuDNN may run convolutions faster than products (another blocking; TF32, which PyTorch allows to convolutions but
    not to products), so a ceiling of products alone could be passed by a network. Sizes grow until a call takes too long for
    its share of the time; each size gets two warm-up calls and the best of five. At most about 0.5 GiB is held on a CPU, 3 GiB
    on a GPU.

    Where a GPU's memory does not hold a size, the smaller ones count. Raises `torch.OutOfMemoryError` where it holds none.

    Args:
        device: on a CPU with as many threads as torch has now.
        dtype: floating point.
        seconds: about how long to measure; the smallest sizes run whatever they take.
        clock: seconds, monotonic; tests bring their own.
    """
    kind = "cuda" if device.type == "cuda" else "cpu"
    with torch.inference_mode():
        products = _fastest(_matmuls(kind, device, dtype), device, 0.4 * seconds, clock)
        convolutions = _fastest(_convolutions(kind, device, dtype), device, 0.4 * seconds, clock)
        copy = _fastest(_copies(kind, device, dtype), device, 0.2 * seconds, clock)
    flops, how = max(products, convolutions)
    return Ceilings(
        flops_per_s=flops,
        flops_how=how,
        bytes_per_s=copy[0],
        bytes_how=copy[1],
        candidates={"matmul": products[0], "convolution": convolutions[0]},
        device=device.type,
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads() if device.type == "cpu" else None,
    )


_Candidate = tuple[str, float, Callable[[], object]]


def _matmuls(kind: str, device: torch.device, dtype: torch.dtype) -> Iterator[_Candidate]:
    for side in _MATMUL_SIDES[kind]:
        left, right = _values(device, dtype, side, side), _values(device, dtype, side, side)
        yield f"matmul {side}×{side}×{side}", 2.0 * side**3, lambda a=left, b=right: a @ b  # type: ignore[misc]


def _convolutions(kind: str, device: torch.device, dtype: torch.dtype) -> Iterator[_Candidate]:
    channels, side = _CONV_CHANNELS[kind], _CONV_SIDE
    weight = _values(device, dtype, channels, channels, 3, 3).to(memory_format=torch.channels_last)
    for batch in _CONV_BATCHES[kind]:
        images = _values(device, dtype, batch, channels, side, side).to(memory_format=torch.channels_last)
        name = f"3×3 convolution, {channels} to {channels} channels, {batch}×{side}×{side}, channels-last"
        flops = 2.0 * 9 * channels**2 * batch * side**2
        yield name, flops, lambda x=images, w=weight: functional.conv2d(x, w, padding=1)  # type: ignore[misc]


def _copies(kind: str, device: torch.device, dtype: torch.dtype) -> Iterator[_Candidate]:
    for mib in _COPY_MIB[kind]:
        count = mib * 2**20 // dtype.itemsize
        source, target = (torch.full((count,), 1.0, device=device, dtype=dtype) for _ in range(2))
        yield f"copy of {mib} MiB", 2.0 * mib * 2**20, lambda a=source, b=target: b.copy_(a)  # type: ignore[misc]


def _values(device: torch.device, dtype: torch.dtype, *shape: int) -> Tensor:
    """Uniform in [-1, 1): a GPU draws less power, and so runs faster, on constants. Leaves torch's own generator alone."""
    generator = torch.Generator(device).manual_seed(0)
    return torch.empty(shape, device=device, dtype=dtype).uniform_(-1.0, 1.0, generator=generator)


def _fastest(candidates: Iterator[_Candidate], device: torch.device, seconds: float, clock: Clock) -> tuple[float, str]:
    """(units per second, name) of the fastest; no larger size starts once time or memory is used up."""
    best, spent = (0.0, ""), 0.0
    try:
        for name, units, call in candidates:
            times = []
            for index in range(_WARM_UP_CALLS + _CALLS):
                times.append(timed_call(call, device, clock))
                # A slow first size keeps one warm-up and one measured call.
                if index >= 1 and spent + sum(times) > seconds:
                    break
            spent += sum(times)
            best = max(best, (units / min(times[min(_WARM_UP_CALLS, len(times) - 1) :]), name))
            # The next size takes several times as long a call.
            if spent + (_WARM_UP_CALLS + _CALLS) * 2 * times[-1] > seconds:
                break
    except torch.OutOfMemoryError:
        # A full GPU still has the smaller sizes' answer.
        if not best[1]:
            raise
    return best
