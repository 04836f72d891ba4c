"""One decoder's cost by one protocol: time and energy per mode and batch size, FLOPs, peak memory and parameters.

`decode` alone is measured: from latents on the device to float pixels on the device, all steps and the noise included, the
encoder never.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor

from harness.cost.attempt import Outcome, Status, attempt
from harness.cost.fewer_steps import FewerSteps, ShortDecodes
from harness.cost.flops import Work, count_work
from harness.cost.latency import Latency, measure_latency, synchronise, timed_call
from harness.cost.memory import peak_memory_mb
from harness.cost.modes import Mode, eager_of, in_mode, mode_of
from harness.cost.power import PowerReport, gpu_index, watch_power
from harness.decoder import Decoder, NoiseSource
from harness.errors import MsbenchError
from harness.noise import SampleNoise

LARGEST_BATCH = 2**16
"""images a call at most"""


@dataclass(frozen=True, slots=True)
class CostProtocol:
    """How cost is measured; part of the record, since figures of different protocols do not compare.

    Raises `MsbenchError` for a number out of its range.
    """

    batch_sizes: tuple[int, ...] = (1, 8)
    """images per call, each timed by itself; none = FLOPs and parameters alone"""
    min_calls: int = 3
    """measured calls per batch size whatever they take"""
    max_calls: int = 100
    """measured calls per batch size at most"""
    max_seconds: float = 10.0
    """measured time per batch size; the warm-up may take as much again"""
    decoder_seconds: float | None = None
    """time for all of one decoder, if one image fits into it; None = what its cells take. A batch size that does not fit
    is estimated from decodes of fewer steps where they can be had (`measure_cost`), or skipped"""

    def __post_init__(self) -> None:
        for size in self.batch_sizes:
            if not 1 <= size <= LARGEST_BATCH:
                raise MsbenchError(f"cannot time batch size {size}: give whole numbers from 1 to {LARGEST_BATCH}")
        if not 1 <= self.min_calls <= self.max_calls:
            raise MsbenchError(f"min_calls {self.min_calls}, max_calls {self.max_calls}: need 1 <= min_calls <= max_calls")
        for seconds in (self.max_seconds, self.decoder_seconds):
            if seconds is not None and not 0 < seconds < math.inf:
                raise MsbenchError(f"cannot measure for {seconds:g} seconds: give a positive number")


@dataclass(frozen=True, slots=True)
class CostCell:
    """Time and energy in one mode at one batch size."""

    batch_size: int
    """images per call"""
    status: Status
    """anything but ok is a result, too"""
    latency: Latency | None
    """None where it is not ok"""
    mode: Mode = "eager"
    """how the decoder ran"""
    reason: str | None = None
    """one line why it is not ok, or what disturbed it"""
    disturbed: bool = False
    """other work ran on the machine meanwhile (`Latency.disturbance`): these times say little about the decoder"""
    energy_j: float | None = None
    """joules an image, idle power included, over calls without a pause; NVIDIA GPUs only"""
    power: PowerReport | None = None
    """all that was seen of the GPU meanwhile; None on other devices"""
    estimated: str | None = None
    """one line: the decodes of fewer steps that its times follow from (`harness.cost.fewer_steps`); None where measured"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What decoding costs on one device."""

    cells: tuple[CostCell, ...]
    """one per mode and batch size, in the order asked for"""
    gflops: float | None
    """GFLOPs per image over all steps (`Work.gflops`); None without a network, or where counting failed"""
    peak_memory_mb: float | None
    """MiB one image's decode needs above weights and latents (`peak_memory_mb`); None where unknown or not measured"""
    parameters: int
    """parameters used by `decode`"""
    uncounted: tuple[str, ...] = ()
    """operations that `gflops` leaves out though they may do matrix-like work (`Work.uncounted`)"""
    notes: tuple[str, ...] = ()
    """what could not be measured beside the cells, one line each"""

    @property
    def ms_per_image(self) -> dict[int, float]:
        """Batch size -> median milliseconds per image, where it was timed; of several modes the last."""
        return {cell.batch_size: cell.latency.ms_per_image(cell.batch_size) for cell in self.cells if cell.latency is not None}


def measure_cost(
    decoder: Decoder,
    latents: Tensor,
    seed: int,
    protocol: CostProtocol,
    device: torch.device,
    modes: Sequence[Mode] | None = None,
    fewer: FewerSteps | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Cost:
    """Measure `decoder` on `latents`. Whatever the decoder raises is a cell's status or a note; what was measured stays.

    Args:
        decoder: built on `device`, in any mode; FLOPs are those of its eager form, memory is that of the decoder as it is.
        latents: [n, ...] where `decode` wants them; repeated in turn where a batch is larger than n.
        seed: seeds the noise of the samples.
        protocol: batch sizes and limits.
        device: what is waited for, and whose memory and energy are read.
        modes: time it in each of them, `decoder` being eager; None = as it is.
        fewer: gives the same decoder with so many steps, in its mode; None = what does not fit `decoder_seconds` is skipped.
        clock: seconds, monotonic; tests bring their own.

    Raises `ValueError` without latents.
    """
    if latents.shape[0] < 1:
        raise ValueError("cannot measure cost on 0 latents")

    started = clock()

    def count(one: Decoder) -> Work:
        return count_work(eager_of(one), latents[:1], noise_for(seed, 1, device))

    def peak() -> float | None:
        decode = decode_call(decoder, latents, seed, 1)
        if mode_of(decoder) == "compile":
            decode()  # compiling takes memory of its own
        return peak_memory_mb(decode, device)

    # FLOPs first: the call also does the one-time set-up that neither time nor memory should show.
    counted = attempt(count, decoder)
    work: Work | None = counted.value
    memory = attempt(peak) if protocol.batch_sizes else Outcome("ok")
    single = attempt(timed_call, decode_call(decoder, latents, seed, 1), device, clock) if protocol.decoder_seconds else None

    def cell(mode: Mode, batch_size: int, share: float) -> CostCell:
        """Time of one call after the other, then, on an NVIDIA GPU, energy of as many calls as fill the same time."""
        within = protocol
        if single and single.value:
            if 2 * batch_size * single.value > share:  # a warm-up and a call
                return estimate(mode, batch_size, share)
            parts = 3 if device.type == "cuda" else 2  # warm-up, calls, and there energy
            within = replace(protocol, min_calls=1, max_seconds=min(protocol.max_seconds, share / parts))
        chosen = decoder if mode == mode_of(decoder) else in_mode(decoder, mode, device)
        call, seconds = decode_call(chosen, latents, seed, batch_size), within.max_seconds
        calls = {"min_calls": within.min_calls, "max_calls": within.max_calls}
        latency = measure_latency(call, device, **calls, max_seconds=seconds, clock=clock)
        count, power = max(1, math.ceil(1000.0 * seconds / latency.median_ms)), None

        def back_to_back() -> None:
            for _ in range(count):
                call()
            synchronise(device)

        if device.type == "cuda":
            _, power = watch_power(back_to_back, gpu_index(device))
        energy = power.joules_per_image(count * batch_size) if power else None
        line = latency.disturbance()
        return CostCell(batch_size, "ok", latency, mode, line, line is not None, energy, power)

    def estimate(mode: Mode, batch_size: int, share: float) -> CostCell:
        """Time of a call that does not fit, from fewer steps."""
        found = attempt(lambda: short_decodes().latency(batch_size, share))
        if found.value is None:
            why = f"two decodes do not fit into --decoder-seconds {protocol.decoder_seconds:g}; {found.reason}"
            return CostCell(batch_size, "skipped_budget", None, mode, why)
        latency, how = found.value
        return CostCell(batch_size, "ok", latency, mode, line := latency.disturbance(), line is not None, estimated=how)

    @cache
    def short_decodes() -> ShortDecodes:
        if fewer is None or single is None:
            raise MsbenchError("times are estimated from fewer steps on demo sets alone")

        def timed(one: Decoder, batch_size: int) -> Callable[[], float]:
            return partial(timed_call, decode_call(one, latents, seed, batch_size), device, clock)

        gflops = work.gflops if work else None
        return ShortDecodes(decoder.spec, gflops, fewer, lambda one: count(one).gflops, timed, single.value)

    ways = [(mode, batch_size) for mode in modes or (mode_of(decoder),) for batch_size in protocol.batch_sizes]
    cells = []
    for place, (mode, batch_size) in enumerate(ways):
        left = (protocol.decoder_seconds or math.inf) - (clock() - started)
        outcome = attempt(cell, mode, batch_size, left / (len(ways) - place))
        cells.append(outcome.value or CostCell(batch_size, outcome.status, None, mode, outcome.reason))
    notes = [f"{what}: {one.reason}" for what, one in (("FLOPs not counted", counted), ("no memory", memory)) if one.reason]
    return Cost(
        tuple(cells),
        work.gflops if work else None,
        memory.value,
        decoder.spec.parameters,
        work.uncounted if work else (),
        tuple(notes),
    )


def noise_for(seed: int, batch_size: int, device: torch.device) -> NoiseSource:
    """The noise of a timed batch: one stream a sample, the same in every call."""
    return SampleNoise.for_samples(seed, [f"cost-{index}" for index in range(batch_size)], device)


def decode_call(decoder: Decoder, latents: Tensor, seed: int, batch_size: int) -> Callable[[], Tensor]:
    """A call that decodes one batch and does nothing else; latents are repeated in turn where they run out."""
    rows = torch.arange(batch_size, device=latents.device) % latents.shape[0]
    batch, noise = latents[rows], noise_for(seed, batch_size, latents.device)

    def decode() -> Tensor:
        with torch.inference_mode():
            return decoder.decode(batch, noise)

    return decode
