"""Plots of results, in colours that colour-blind readers tell apart (Okabe and Ito), as SVG and PNG at README width."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd

_BLACK, _GREY = "#000000", "#767676"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_INCHES = (8.0, 4.6)
_DPI = 200  # 1,600 px, for 800 px shown on a dense screen
_SPEEDUP_COLUMNS = ("scales", "batch", "measured_speedup", "counted_speedup", "ideal_speedup")


def plot_speedup_vs_scales(rows: pd.DataFrame, path_svg: Path, path_png: Path, title: str | None = None) -> None:
    """Speed-up over full-resolution decoding against the number of scales: ideal, counted in FLOPs, and measured.

    Args:
        rows: one row per (scales, batch): scales K, batch (images per call), measured_speedup (ratio of median times; NaN
            leaves a gap), counted_speedup and ideal_speedup (the same in every batch; taken from the first).
        path_svg, path_png: where the two files go, atomically. The same rows give the same bytes.
        title: above the axes; None = the steps-in-all wording.

    Raises `ValueError` where a column is missing or there is no row.
    """
    missing = [column for column in _SPEEDUP_COLUMNS if column not in rows.columns]
    if missing or rows.empty:
        raise ValueError(f"cannot plot speed-ups: {'no rows' if rows.empty else f'no column {missing[0]!r}'}")

    figure = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    theory = rows.sort_values("scales").drop_duplicates("scales")
    axes.plot(
        theory["scales"], theory["ideal_speedup"], color=_GREY, linestyle="--", linewidth=1.6, label="ideal: cost ∝ pixels"
    )
    axes.plot(theory["scales"], theory["counted_speedup"], color=_BLACK, linewidth=1.6, label="counted FLOPs")
    for index, (batch, cells) in enumerate(rows.sort_values("scales").groupby("batch")):
        style = index % len(_COLOURS)
        axes.plot(
            cells["scales"],
            cells["measured_speedup"],
            color=_COLOURS[style],
            marker=_MARKERS[style],
            markersize=8,
            linewidth=2.0,
            label=f"measured, batch {batch}",
        )
    axes.axhline(1.0, color=_GREY, linewidth=0.8, zorder=0)
    axes.set_xticks(sorted(set(rows["scales"])))
    axes.set_xlim(min(rows["scales"]) - 0.15, max(rows["scales"]) + 0.15)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("number of scales K", fontsize=13)
    axes.set_ylabel("speed-up over K = 1 (×)", fontsize=13)
    axes.set_title(title or "Speed-up from spreading the same steps over K scales", fontsize=14, loc="left")
    axes.tick_params(labelsize=12)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=12, frameon=False, loc="upper left")
    _save(figure, path_svg, path_png)


def _save(figure: Figure, path_svg: Path, path_png: Path) -> None:
    """Write both files without dates or random ids, so that unchanged results leave unchanged files."""
    with mpl.rc_context({"svg.hashsalt": "msbench"}), atomic_path(path_svg) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": "msbench"})
    with atomic_path(path_png) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": "msbench"})
