"""Rows: one decoder in one setting and scope, the figures that calls, counts and other rows make of it, everybody's fastest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from harness.cost.attempt import Status
from harness.cost.load import Load
from harness.cost.power import PowerReport
from harness.cost.roofline import Ceilings, roofline
from harness.speed.messages import Facts, Memory
from harness.speed.protocol import Scope, Setting
from harness.speed.turns import TimedCalls, time_ratio

ONE_BY_ONE = "timed one after the other: largest batches do not fit side by side"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Setting):
    """Figures of one decoder in one setting and scope."""

    decoder: str
    """the contestant's label"""
    scope: Scope
    """see `protocol.Scope`"""

    @property
    def setting(self) -> Setting:
        """What was timed."""
        return Setting(self.resolution, self.mode, self.batch, self.dtype, self.cores)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedRow(Row):
    """One row of the result, one of its `cells`. Figures are None where it has none; `status` and `reason` say why."""

    status: Status
    """ok, or why there are no figures"""
    reason: str | None = None
    """one line where it is not ok"""
    images_per_call: int | None = None
    """`batch` as a number: for "max", what was found to fit"""
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
    power: PowerReport | None = None
    """all that was seen of the GPU during those calls; in scope `decode`"""
    uncounted: tuple[str, ...] = ()
    """operations that `gflops` leaves out though they may do matrix-like work"""
    load: Load | None = None
    """what else the machine did during the timed calls"""
    disturbed: bool = False
    """other work ran meanwhile: these times say little about the decoder; `flags` says what was seen"""
    flags: tuple[str, ...] = ()
    """what a reader should know about this row"""

    def against(self, first: SpeedRow | None, measured: float | None = None) -> SpeedRow:
        """The same row with its ratios to the first decoder's; `measured` is the ratio of times where turns gave one.

        Of times that other work disturbed there is none.
        """
        time = None
        if first and not first.disturbed and not self.disturbed:
            time = _over(first.ms_per_image, self.ms_per_image) if measured is None else measured
        flops = _over(first.gflops if first else None, self.gflops)
        return replace(self, ratio_to_first=time, flop_ratio_to_first=flops, share_of_flop_ratio=_over(time, flops))


def speed_row(
    timing: TimedCalls, scope: Scope, facts: Facts | None = None, memory: Memory | None = None, ceilings: Ceilings | None = None
) -> SpeedRow:
    """The row of one decoder's calls, without figures where its outcome is not ok.

    Args:
        timing: finished, or never begun.
        scope: which of its times.
        facts: counts; None where counting failed.
        memory: of the fresh process; None where that failed.
        ceilings: of the device; None where measuring them failed.
    """
    setting, outcome, prepared = timing.setting, timing.outcome, timing.prepared
    row = SpeedRow(**asdict(setting), decoder=timing.label, scope=scope, status=outcome.status, reason=outcome.reason)
    if (latency := timing.latency(scope)) is None or prepared is None:
        return row
    burst = timing.bursts.get(scope)
    per_image = latency.ms_per_image(prepared.batch)
    calls, seconds = (burst.calls, burst.seconds) if burst else (latency.n_calls, sum(latency.samples_ms) / 1e3)
    power = burst.power if burst else None
    work = facts.work if facts else None
    roof = roofline(work, per_image, ceilings, prepared.batch) if work and ceilings and per_image > 0 else None
    flops = work.gflops if work else None
    disturbance = latency.disturbance()
    flags = {
        ONE_BY_ONE: setting.batch == "max",
        f"the search for the largest batch ended early ({prepared.note})": prepared.note,
        **dict.fromkeys(power.flags if power else (), True),
        "warm-up did not settle": not prepared.settled,
        "not pinned: this system cannot bind a process to cores": setting.cores is not None and not prepared.pinned,
        f"not counted: {', '.join(work.uncounted) if work else ''}": work and work.uncounted,
        str(disturbance): disturbance,
    }
    return replace(
        row,
        **_figures(latency, "median_ms", "p10_ms", "p90_ms", "p99_ms", "n_calls", "warmup_calls"),
        **_figures(prepared, "first_call_ms"),
        **_figures(memory, "cold_ms", "peak_memory_mb"),
        **_figures(work, "gflops", "elementwise_gflops"),
        **_figures(facts and facts.spec, "parameters", "steps", "scales"),
        images_per_call=prepared.batch,
        ms_per_image=per_image,
        images_per_s=prepared.batch * calls / seconds if seconds > 0 else None,
        compile_s=None if setting.mode == "eager" else max(0.0, prepared.first_call_ms - latency.median_ms) / 1e3,
        achieved_gflops_per_s=flops / per_image * 1e3 if flops is not None and per_image > 0 else None,
        mfu=roof.flops_utilisation if roof else None,
        achieved_gb_per_s=roof.achieved_bytes_per_s / 1e9 if roof else None,
        bound=roof.bound if roof else None,
        energy_j_per_image=power.joules_per_image(prepared.batch * calls) if power else None,
        power=power,
        uncounted=work.uncounted if work else (),
        load=latency.load,
        disturbed=disturbance is not None,
        flags=tuple(flag for flag, holds in flags.items() if holds),
    )


def _figures(source: object, *names: str) -> dict[str, Any]:
    """Fields of `source` that a row takes over under their own names; None where there is no source."""
    return {name: getattr(source, name) if source else None for name in names}


def _over(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseFloor(Row):
    """The first decoder against a second process of itself, timed in the same turns: what differences mean nothing."""

    rounds: int
    """turns both had"""
    ratio: float | None = None
    """the one's time over the other's, as every ratio (`turns.time_ratio`); 1 at best; None where one of them failed"""
    floor: float | None = None
    """95th percentile of |ratio - 1| over the turns, and at least |ratio - 1|: ratios within 1 ± floor show nothing"""


def noise_floor(one: TimedCalls, other: TimedCalls, scope: Scope) -> NoiseFloor:
    """A against A in one setting and scope."""
    turns = list(zip(one.per_image(scope), other.per_image(scope), strict=False))
    found = NoiseFloor(**asdict(one.setting), decoder=one.label, scope=scope, rounds=len(turns))
    if not turns or any(b <= 0 for _, b in turns) or not one.outcome.status == other.outcome.status == "ok":
        return found
    ratio = median(a / b for a, b in turns)
    spread = float(np.percentile([abs(a / b - 1.0) for a, b in turns], 95))
    return replace(found, ratio=ratio, floor=max(abs(ratio - 1.0), spread))


_FASTEST = (
    *("decoder", "mode", "dtype", "resolution", "cores", "batch", "images_per_call", "scope", "ms_per_image", "n_calls"),
    *("gflops", "ratio_to_first", "flop_ratio_to_first", "share_of_flop_ratio", "disturbed"),
)


@dataclass(frozen=True, slots=True)
class Fastest:
    """One table of everybody in their own fastest mode and dtype: one resolution, number of cores and batch."""

    side_by_side: bool
    """all were timed in the same turns, so that drift of the machine is not in the ratios"""
    rows: list[SpeedRow]
    """both scopes, in the order of the decoders"""

    def entries(self) -> list[dict[str, Any]]:
        """In JSON types, one a decoder and scope."""
        return [_figures(row, *_FASTEST) | {"side_by_side": self.side_by_side} for row in self.rows]

    def timed_again(self, timings: Mapping[str, TimedCalls], first: str) -> Fastest:
        """The same table with the times of `timings`, in which everybody took turns; `first` is whom ratios are to."""
        rows = []
        for row, mine in ((row, timings[row.decoder]) for row in self.rows):
            took, calls = 1e3 * median(mine.per_image(row.scope)), len(mine.samples(row.scope))
            rows.append(replace(row, ms_per_image=took, n_calls=calls, disturbed=not mine.clean))
        firsts = {row.scope: row for row in rows if row.decoder == first}
        ratios = [time_ratio(timings[first], timings[row.decoder], row.scope) if firsts else None for row in rows]
        return Fastest(True, [row.against(firsts.get(row.scope), ratio) for row, ratio in zip(rows, ratios, strict=True)])


def fastest(measured: Iterable[SpeedRow], first: str) -> list[Fastest]:
    """Every decoder in its own fastest mode and dtype, per resolution, number of cores and batch.

    Ratios are to the decoder labelled `first` in *its* fastest (None where it has no figure); where everybody's fastest is one
    setting they are the ones measured in turns there.
    """
    timed = [row for row in measured if row.status == "ok" and row.ms_per_image is not None]
    tables: dict[tuple[Any, ...], dict[str, SpeedRow]] = {}
    for row in (row for row in timed if row.scope == "decode"):
        group = tables.setdefault((row.resolution, row.cores, row.batch), {})
        group[row.decoder] = min(group.get(row.decoder, row), row, key=lambda one: one.ms_per_image or 0.0)
    ends = {(row.decoder, row.setting): row for row in timed if row.scope != "decode"}
    found = []
    for group in tables.values():
        settings = {row.setting for row in group.values()}
        in_turns = len(settings) == 1 and settings.pop().batch != "max"
        rows = []
        for chosen in (group, {name: ends[name, row.setting] for name, row in group.items() if (name, row.setting) in ends}):
            rows += [row if in_turns else row.against(chosen.get(first)) for row in chosen.values()]
        found.append(Fastest(in_turns, rows))
    return found
