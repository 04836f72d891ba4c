"""The speed-up from several scales, as a picture: measured in each mode and batch, counted in FLOPs, and as theory has it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.report.plot_style import AXIS, BLACK, GREY, LIGHT, TICK, TITLE, add_legend, colour, marker, new_axes, save

if TYPE_CHECKING:
    import pandas as pd

_SPEEDUP_COLUMNS = ("scales", "batch", "measured_speedup", "counted_speedup", "ideal_speedup")
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)))


def plot_speedup_vs_scales(rows: pd.DataFrame, path_svg: Path, path_png: Path, title: str | None = None) -> None:
    """Speed-up over full-resolution decoding against the number of scales: ideal, counted in FLOPs, and measured.

    Args:
        rows: one row per (scales, batch) or (scales, batch, mode): scales K, batch (images per call), measured_speedup (ratio
            of median times; NaN leaves a gap), counted_speedup and ideal_speedup (the same in every batch; the first
            is taken); where there is a column theory_speedup (K / S_K), that is drawn instead of ideal_speedup.
        path_svg, path_png: where the two files go, atomically. The same rows give the same bytes.
        title: above the axes; None = the steps-in-all wording.

    Raises `ValueError` where a column is missing or there is no row.
    """
    missing = [column for column in _SPEEDUP_COLUMNS if column not in rows.columns]
    if missing or rows.empty:
        raise ValueError(f"cannot plot speed-ups: {'no rows' if rows.empty else f'no column {missing[0]!r}'}")

    figure, axes = new_axes()
    theory = rows.sort_values("scales").drop_duplicates("scales")
    if "theory_speedup" in rows:
        ideal, label = theory["theory_speedup"], "theory: $K/S_K$"
    else:
        ideal, label = theory["ideal_speedup"], "ideal: cost ∝ pixels"
    axes.plot(theory["scales"], ideal, color=GREY, linestyle="--", linewidth=1.6, label=label)
    axes.plot(theory["scales"], theory["counted_speedup"], color=BLACK, linewidth=1.6, label="counted FLOPs")
    modes = list(dict.fromkeys(rows["mode"])) if "mode" in rows else [""]
    for index, batch in enumerate(sorted(set(rows["batch"]))):
        for number, mode in enumerate(modes):
            cells = rows[(rows["batch"] == batch) & ((rows["mode"] == mode) if mode else True)].sort_values("scales")
            if cells.empty:
                continue
            axes.plot(
                cells["scales"],
                cells["measured_speedup"],
                color=colour(index),
                marker=marker(index),
                linestyle=_DASHES[number % len(_DASHES)],
                markerfacecolor=colour(index) if number == 0 else "white",
                markersize=8,
                linewidth=2.0,
                label=f"measured, batch {batch:g}" if len(modes) == 1 else f"batch {batch:g}, {mode}",
            )
    axes.axhline(1.0, color=GREY, linewidth=0.8, zorder=0)
    axes.set_xticks(sorted(set(rows["scales"])))
    axes.set_xlim(min(rows["scales"]) - 0.15, max(rows["scales"]) + 0.15)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("number of scales K", fontsize=AXIS)
    axes.set_ylabel("speed-up over K = 1 (×)", fontsize=AXIS)
    axes.set_title(title or "Speed-up from spreading the same steps over K scales", fontsize=TITLE, loc="left")
    axes.grid(axis="y", color=LIGHT, linewidth=0.8)
    add_legend(figure, axes, room=5, size=TICK)
    save(figure, path_svg, path_png)
