"""Cells: one decoder in one setting and scope, and the figures that calls, counts and other cells make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from harness.cost.latency import latency_of
from harness.cost.roofline import Ceilings, roofline
from harness.speed.messages import Facts, Memory
from harness.speed.protocol import Batch, Cores, Scope, Setting, Status
from harness.speed.turns import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row of the result. Figures are None where the cell has none; `status` and `reason` say why."""

    decoder: str
    """the contestant's label"""
    batch: Batch
    """images per call as asked for"""
    images_per_call: int | None = None
    """the same as a number: for "max", what was found to fit"""
    mode: str
    """eager, compile or cudagraph"""
    dtype: str
    """fp32, bf16 or fp16"""
    scope: Scope
    """see `protocol.Scope`"""
    resolution: int
    """side in pixels"""
    cores: Cores | None
    """CPU cores; None on a GPU"""
    status: Status
    """ok, or why there are no figures"""
    reason: str | None = None
    """one line where it is not ok"""
    median_ms: float | None = None
    """milliseconds per call (not per image)"""
    p10_ms: float | None = None
    """10th percentile"""
    p90_ms: float | None = None
    """90th percentile"""
    p99_ms: float | None = None
    """99th percentile; close to the slowest call below 100 calls"""
    ms_per_image: float | None = None
    """the median over `images_per_call`"""
    n_calls: int = 0
    """calls timed"""
    warmup_calls: int | None = None
    """calls thrown away before"""
    images_per_s: float | None = None
    """throughput of calls back to back, with one wait at the end"""
    first_call_ms: float | None = None
    """the first call of this shape in a live process"""
    compile_s: float | None = None
    """what compiling or recording took: the first call less the median; None in eager mode"""
    cold_ms: float | None = None
    """process start to first images in a fresh process, encoding the test images taken off; compiled code is on disk by then"""
    peak_memory_mb: float | None = None
    """MiB above weights and latents in that process"""
    gflops: float | None = None
    """GFLOPs per image, counted in eager mode"""
    elementwise_gflops: float | None = None
    """what that count leaves out, estimated: one FLOP per element of every other operation"""
    parameters: int | None = None
    """parameters used by `decode`"""
    steps: int | None = None
    """network calls per image"""
    scales: int | None = None
    """number of resolutions"""
    ratio_to_first: float | None = None
    """how many times as fast an image is as the first decoder's in the same setting: `turns.time_ratio`; the ratio of medians
    where the two were not timed in turns"""
    flop_ratio_to_first: float | None = None
    """the first decoder's counted FLOPs over this one's"""
    share_of_flop_ratio: float | None = None
    """the one over the other: 1 where time follows FLOPs"""
    achieved_gflops_per_s: float | None = None
    """counted GFLOP/s at the median"""
    mfu: float | None = None
    """model FLOPs utilisation: that over the ceiling measured in this run"""
    achieved_gb_per_s: float | None = None
    """GB/s at the median if nothing were fused or cached: an upper bound"""
    bound: str | None = None
    """the ceiling this work meets first: compute or memory"""
    energy_j_per_image: float | None = None
    """joules per image of calls back to back, idle power included; GPUs with NVML only"""
    power: dict[str, Any] | None = None
    """`PowerReport` of those calls; on a GPU in scope `decode`"""
    flags: tuple[str, ...] = ()
    """what a reader should know about this row"""

    def against(self, first: Cell | None, measured: float | None = None) -> Cell:
        """The same cell with its ratios to the first decoder's; `measured` is the ratio of times where turns gave one."""
        time, flops, share = ratios(self, first, measured)
        return replace(self, ratio_to_first=time, flop_ratio_to_first=flops, share_of_flop_ratio=share)

    def as_record(self) -> dict[str, Any]:
        """In JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Place:
    """What cells of one group of worker processes share."""

    dtype: str
    """their arithmetic"""
    cores: Cores | None
    """CPU cores; None on a GPU"""
    ceilings: Ceilings | None = None
    """of the device in that dtype; None where measuring them failed"""


def empty_cell(label: str, setting: Setting, place: Place, scope: Scope, status: Status, reason: str | None) -> Cell:
    """A cell without figures."""
    return Cell(
        decoder=label,
        batch=setting.batch,
        mode=setting.mode,
        dtype=place.dtype,
        scope=scope,
        resolution=setting.resolution,
        cores=place.cores,
        status=status,
        reason=reason,
    )


def timed_cell(
    setting: Setting,
    place: Place,
    scope: Scope,
    timing: Timing,
    facts: Facts | None,
    memory: Memory | None,
    flags: Sequence[str],
) -> Cell:
    """The figures of one decoder's calls.

    Args:
        timing: finished, its reply ok.
        facts: counts; None where counting failed.
        memory: of the fresh process; None where that failed.
        flags: of the setting.
    """
    if timing.prepared is None:
        raise ValueError(f"{timing.label} was never prepared")
    prepared, row = timing.prepared, timing.rows.get(scope)
    latency = latency_of(timing.samples(scope), prepared.warmup_calls, prepared.settled)
    per_image = latency.ms_per_image(prepared.batch)
    calls, seconds = (row.calls, row.seconds) if row else (latency.n_calls, sum(latency.samples_ms) / 1e3)
    power = row.power if row else None
    work = facts.work if facts else None
    roof = roofline(work, per_image, place.ceilings, prepared.batch) if work and place.ceilings and per_image > 0 else None
    flops = work.gflops if work else None
    all_flags = [*flags, *(power.flags if power else ())]
    if not prepared.settled:
        all_flags.append("warm-up did not settle")
    if place.cores is not None and not prepared.pinned:
        all_flags.append("not pinned: this system cannot bind a process to cores")
    return replace(
        empty_cell(timing.label, setting, place, scope, "ok", None),
        images_per_call=prepared.batch,
        median_ms=latency.median_ms,
        p10_ms=latency.p10_ms,
        p90_ms=latency.p90_ms,
        p99_ms=latency.p99_ms,
        ms_per_image=per_image,
        n_calls=latency.n_calls,
        warmup_calls=latency.warmup_calls,
        images_per_s=prepared.batch * calls / seconds if seconds > 0 else None,
        first_call_ms=prepared.first_call_ms,
        compile_s=None if setting.mode == "eager" else max(0.0, prepared.first_call_ms - latency.median_ms) / 1e3,
        cold_ms=memory.cold_ms if memory else None,
        peak_memory_mb=memory.peak_mb if memory else None,
        gflops=flops,
        elementwise_gflops=work.elementwise_gflops if work else None,
        parameters=facts.spec.parameters if facts else None,
        steps=facts.spec.steps if facts else None,
        scales=facts.spec.scales if facts else None,
        achieved_gflops_per_s=flops / per_image * 1e3 if flops is not None and per_image > 0 else None,
        mfu=roof.flops_utilisation if roof else None,
        achieved_gb_per_s=roof.achieved_bytes_per_s / 1e9 if roof else None,
        bound=roof.bound if roof else None,
        energy_j_per_image=power.joules_per_image(prepared.batch * calls) if power else None,
        power=power.to_record() if power else None,
        flags=tuple(all_flags),
    )


def ratios(cell: Cell, first: Cell | None, measured: float | None = None) -> tuple[float | None, float | None, float | None]:
    """Time and FLOPs of the first decoder over this one's, and the one ratio's share of the other; the first's own are 1."""
    time = _over(first.ms_per_image if first else None, cell.ms_per_image) if measured is None else measured
    flops = _over(first.gflops if first else None, cell.gflops)
    return time, flops, _over(time, flops)


def _over(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """The first decoder against a second process of itself, timed in the same turns: what differences mean nothing."""

    decoder: str
    """who"""
    batch: Batch
    mode: str
    dtype: str
    scope: Scope
    resolution: int
    cores: Cores | None
    rounds: int
    """turns both had"""
    ratio: float | None
    """the one's time over the other's, as every ratio (`turns.time_ratio`); 1 at best; None where one of them failed"""
    floor: float | None
    """95th percentile of |ratio - 1| over the turns, and at least |ratio - 1|: ratios within 1 ± floor show nothing"""

    def as_record(self) -> dict[str, Any]:
        """In JSON types."""
        return asdict(self)


def noise_floor(setting: Setting, place: Place, scope: Scope, one: Timing, other: Timing) -> NoiseFloor:
    """A against A in one setting and scope."""
    turns = list(zip(one.per_image(scope), other.per_image(scope), strict=False))
    whole: float | None = None
    floor: float | None = None
    if turns and all(b > 0 for _, b in turns) and one.reply.status == other.reply.status == "ok":
        whole = median(a / b for a, b in turns)
        floor = max(abs(whole - 1.0), float(np.percentile([abs(a / b - 1.0) for a, b in turns], 95)))
    return NoiseFloor(
        one.label, setting.batch, setting.mode, place.dtype, scope, setting.resolution, place.cores, len(turns), whole, floor
    )
