"""The one table of a sweep: a row for each cell, mode and batch size; speed-ups as measured, as counted and in theory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.cost.cost import CostCell
from harness.cost.theory import even_split, ideal_speedup, ideal_sweep_cost
from harness.metrics.registry import METRICS
from harness.sweep.cells import cost_of
from harness.sweep.plan import SweepCell
from harness.sweep.sweep import MeasuredCell, Sweep

if TYPE_CHECKING:
    import pandas as pd

SAME_NETWORK = 2.0
"""Networks whose numbers of parameters differ by more are of different sizes, and the ratio of their times is no speed-up."""


def sweep_frame(sweep: Sweep) -> pd.DataFrame:
    """One row per (cell, mode, batch size); a skipped cell has one row without mode and batch.

    Columns: kind ("grid" or "baseline"), decoder, scales, steps, batch, mode, dtype, device, resolution, status ("ok", "out of
    memory", "unsupported", "failed", "skipped"), reason; model, weights, weights_sha256, network, trained_on, parameters;
    ms_per_image (median), p10, p90 and p99 too, n_calls, gflops, peak_memory_mb, energy_j (an image), gpu_flags ("throttled",
    "shared"), power_reason, disturbed (other work ran meanwhile, `reason` says what was seen); quality ("measured" or None),
    quality_reason, n, each metric with its 95 % interval as NAME_low and NAME_high;

    - theory_speedup = K / S_K, ideal_speedup for the steps as they are split, counted_speedup (FLOPs), measured_speedup (time):
      against K = 1 with as many steps, the same decoder, mode and batch;
    - flop_ratio and time_ratio: against K = 1 with the most steps; baselines against that of the first decoder.
    """
    import pandas as pd

    rows = [row for one in sweep.cells for row in _rows(sweep, one)]
    full = [row for row in rows if row["kind"] == "grid" and row["scales"] == 1 and row["status"] == "ok"]
    same_steps = {(row["decoder"], row["steps"], row["batch"], row["mode"]): row for row in full}
    # Rows come with rising numbers of steps, and the last one stays.
    longest = {(row["decoder"], row["batch"], row["mode"]): row for row in full}
    first = sweep.request.decoders[0]
    for row in rows:
        grid, way = row["kind"] == "grid", (row["batch"], row["mode"])
        if grid and (base := same_steps.get((row["decoder"], row["steps"], *way))) and _alike(base, row):
            row["counted_speedup"], row["measured_speedup"] = _ratios(base, row)
        if (base := longest.get((row["decoder"] if grid else first, *way))) and (not grid or _alike(base, row)):
            row["flop_ratio"], row["time_ratio"] = _ratios(base, row)
    return pd.DataFrame(rows)


def _rows(sweep: Sweep, one: MeasuredCell) -> list[dict[str, Any]]:
    cell, request = one.cell, sweep.request
    common: dict[str, Any] = {
        "kind": "baseline" if cell.baseline else "grid",
        "decoder": cell.decoder,
        "scales": cell.scales,
        "steps": cell.steps,
        "batch": None,
        "mode": None,
        "dtype": str(request.run.dtype).removeprefix("torch."),
        "device": request.run.device,
        "resolution": sweep.resolution,
        "status": "skipped",
        "reason": cell.skipped,
        **dict.fromkeys(("model", "weights", "weights_sha256", "network", "trained_on")),
        **dict.fromkeys(("parameters", *_TIMES, "n_calls", "gflops", "peak_memory_mb", "energy_j"), float("nan")),
        **dict.fromkeys(("gpu_flags", "power_reason", "disturbed")),
        "quality": None,
        "quality_reason": None if cell.fit else cell.skipped,
        **dict.fromkeys(("n", *_METRICS, *(f"{name}_{end}" for name in _METRICS for end in ("low", "high"))), float("nan")),
        **_theory(cell),
        **dict.fromkeys(("counted_speedup", "measured_speedup", "flop_ratio", "time_ratio"), float("nan")),
    }
    if one.figures is None or cell.fit is None:
        return [common]
    figures, spec, cost = one.figures, one.figures["spec"], cost_of(one.figures)
    common |= {
        **{name: getattr(cell.fit, name) for name in ("model", "weights")},
        **{name: spec[name] for name in ("weights_sha256", "trained_on", "parameters")},
        "network": "default" if cell.fit.default_network else "of its checkpoint",
        "gflops": _number(cost.gflops),
        "peak_memory_mb": _number(cost.peak_memory_mb),
        "quality_reason": figures["quality_reason"],
        **_quality(figures["quality"]),
    }
    return [common | _timed(timed) for timed in cost.cells] or [common | {"status": "ok"}]


_METRICS = tuple(name for name in METRICS if not name.startswith("pyiqa:"))  # a sweep computes none of pyiqa's
_TIMES = ("ms_per_image", "p10_ms_per_image", "p90_ms_per_image", "p99_ms_per_image")


def _timed(timed: CostCell) -> dict[str, Any]:
    way = {"mode": timed.mode, "batch": timed.batch_size, "status": timed.status, "reason": timed.reason}
    latency, power = timed.latency, timed.power
    if latency is None:
        return way
    times = (latency.median_ms, latency.p10_ms, latency.p90_ms, latency.p99_ms)
    return {
        **way,
        **{name: value / timed.batch_size for name, value in zip(_TIMES, times, strict=True)},
        "n_calls": latency.n_calls,
        "disturbed": timed.disturbed,
        "energy_j": _number(timed.energy_j),
        "gpu_flags": ", ".join(power.flags if power else ()) or None,
        "power_reason": power and power.reason,
    }


def _quality(quality: Mapping[str, Any] | None) -> dict[str, Any]:
    if quality is None:
        return {}
    found = {"quality": "measured", "n": quality["n"], **{name: _number(quality.get(name)) for name in _METRICS}}
    for name, (low, high) in quality["intervals"].items():
        found |= {f"{name}_low": low, f"{name}_high": high}
    return found


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _theory(cell: SweepCell) -> dict[str, float]:
    """Theory for a cell of the grid; a baseline has none."""
    if cell.baseline or cell.steps < cell.scales:
        return {"theory_speedup": float("nan"), "ideal_speedup": float("nan")}
    split = even_split(cell.steps, cell.scales)
    return {"theory_speedup": cell.scales / ideal_sweep_cost(cell.scales), "ideal_speedup": ideal_speedup(split)}


def _alike(base: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Both networks are of one kind and size, as random ones of one preset are: folding latents to K grids takes parameters."""
    if base["network"] != row["network"]:
        return False
    small, large = sorted((base["parameters"], row["parameters"]))
    return base["weights"] == row["weights"] == "random" or bool(large <= SAME_NETWORK * small)


def _ratios(base: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[float, float]:
    """FLOPs and time of `base` over those of `row`; NaN where one is unknown or, of times, disturbed."""
    times = float("nan") if base["disturbed"] or row["disturbed"] else base["ms_per_image"] / row["ms_per_image"]
    return base["gflops"] / row["gflops"], times
