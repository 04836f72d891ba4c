"""Which plots a sweep's table can feed; the others are named with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.metrics.registry import METRICS
from harness.report.plots import plot_speedup_vs_scales
from harness.report.plots_cost import plot_energy, plot_flops_against_time, plot_quality_against_time

if TYPE_CHECKING:
    import pandas as pd

QUALITY = (("rfid", "rFID"), ("lpips", "LPIPS"))
"""metrics that are drawn against time, and their names"""


def write_plots(frame: pd.DataFrame, folder: Path) -> tuple[list[Path], list[str]]:
    """Draw what the rows of `sweep_frame` allow, as .svg and .png below `folder`.

    Returns:
        The files written, and one line for each plot that was not drawn.
    """
    written: list[Path] = []
    omitted: list[str] = []

    def paths(name: str) -> tuple[Path, Path]:
        written.extend((folder / f"{name}.svg", folder / f"{name}.png"))
        return written[-2], written[-1]

    grid = frame[frame["kind"] == "grid"]
    for decoder in dict.fromkeys(grid["decoder"]):
        rows = grid[grid["decoder"] == decoder].dropna(subset=["measured_speedup"])
        # One number of steps, the largest, so that nothing but K varies along a line.
        rows = rows[rows["steps"] == rows["steps"].max()]
        if rows["scales"].nunique() > 1:
            title = f"{decoder}: {rows['steps'].max()} steps spread over K scales{_where(rows)}"
            plot_speedup_vs_scales(rows, *paths(f"speedup-{decoder}"), title)
        else:
            omitted.append(f"no speed-up plot of {decoder}: it needs K = 1 and another K, both timed with as many steps")
    if frame[["flop_ratio", "time_ratio"]].dropna().empty:
        omitted.append("no plot of FLOPs against time: no cell at K = 1 was timed")
    else:
        plot_flops_against_time(frame, *paths("flops-time"))
    for metric, label in QUALITY:
        rows = frame.dropna(subset=[metric, "ms_per_image"])
        if rows.empty:
            omitted.append(f"no plot of {label} against time: no timed cell has it")
            continue
        title = f"{label} (n = {rows['n'].max():,.0f}) against decoding time{_where(rows)}"
        better = METRICS[metric].direction == "higher"
        plot_quality_against_time(frame, *paths(f"{metric}-time"), metric, label, better, title)
    if frame["energy_j"].isna().all():
        why = next(iter(frame["power_reason"].dropna()), "it is measured on NVIDIA GPUs only")
        omitted.append(f"no plot of energy: {why}")
    else:
        plot_energy(frame, *paths("energy"))
    return written, omitted


def _where(rows: pd.DataFrame) -> str:
    """Resolution, device and arithmetic, for a title."""
    first = rows.iloc[0]
    arithmetic = "" if first["dtype"] == "float32" else f", {first['dtype']}"
    return f" ({first['resolution']} px, {first['device']}{arithmetic})"
