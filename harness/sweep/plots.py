"""The plots of a sweep: speed-up over scales, FLOPs against time, quality against time with the Pareto front, energy.

`write_plots` draws what a table can feed and names what it cannot. The drawing functions take rows of the table of a sweep
(`harness.sweep.table`). The same rows give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.files import safe_name
from harness.metrics.registry import METRICS
from harness.report import plot_style as style
from harness.report.plot_style import BLACK, GREY, LIGHT, NOTE, TICK, Label, Point, colour, ink, marker

if TYPE_CHECKING:
    import pandas as pd

_SIZE = 8
_BAR_INCHES = 0.34
_MOST_BARS = 16
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)))
_LETTERS = "N: network calls an image over all scales (NFE). K: scales; each doubles the resolution of the one before."
QUALITY = ("rfid", "lpips")
"""metrics that are drawn against time"""


def write_plots(frame: pd.DataFrame, folder: Path) -> tuple[list[Path], list[str]]:
    """Draw what the rows of `sweep_frame` allow, as .svg and .png below `folder`.

    Returns:
        The files written, and one line for each plot that was not drawn.
    """
    figures: dict[str, Figure] = {}
    omitted: list[str] = []
    grid = frame[frame["kind"] == "grid"]
    for decoder in dict.fromkeys(grid["decoder"]):
        rows = grid[grid["decoder"] == decoder].dropna(subset=["measured_speedup"])
        # One number of steps, the largest, so that nothing but K varies along a line.
        rows = rows[rows["steps"] == rows["steps"].max()]
        if rows["scales"].nunique() > 1:
            title = f"{decoder}: {rows['steps'].max()} steps spread over K scales{_where(rows)}"
            figures[f"speedup-{safe_name(decoder)}"] = plot_speedup_vs_scales(rows, title)
        else:
            omitted.append(f"no speed-up plot of {decoder}: it needs K = 1 and another K, both timed with as many steps")
    if (rows := frame.dropna(subset=["flop_ratio", "time_ratio"])).empty:
        omitted.append("no plot of FLOPs against time: no cell at K = 1 was timed")
    else:
        figures["flops-time"] = plot_flops_against_time(rows)
    for metric in QUALITY:
        if (rows := frame.dropna(subset=[metric, "ms_per_image"])).empty:
            omitted.append(f"no plot of {METRICS[metric].title} against time: no timed cell has it")
        else:
            figures[f"{metric}-time"] = plot_quality_against_time(rows, metric)
    if (rows := frame.dropna(subset=["energy_j"])).empty:
        why = next(iter(frame["power_reason"].dropna()), "it is measured on NVIDIA GPUs only")
        omitted.append(f"no plot of energy: {why}")
    else:
        figures["energy"] = plot_energy(rows)
    return [path for name, figure in figures.items() for path in style.save(figure, folder / name)], omitted


def _new_axes(title: str, x: str, y: str = "", height: float = style.INCHES[1]) -> tuple[Figure, Axes]:
    """Axes over a line that says what N and K are."""
    figure, axes = style.new_axes(title, x, y, height)
    axes.annotate(
        _LETTERS,
        (0.5, 0.0),
        xycoords=axes.xaxis.label,
        xytext=(0, -3),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=NOTE - 1,
        color=GREY,
    )
    return figure, axes


def _where(rows: pd.DataFrame) -> str:
    """Resolution, device and arithmetic, for a title."""
    first = rows.iloc[0]
    arithmetic = "" if first["dtype"] == "float32" else f", {first['dtype']}"
    return f" ({first['resolution']} px, {first['device']}{arithmetic})"


def plot_speedup_vs_scales(rows: pd.DataFrame, title: str) -> Figure:
    """Speed-up over full-resolution decoding against the number of scales: in theory, counted in FLOPs, and measured.

    Args:
        rows: one row per (scales, batch, mode): scales K, batch (images per call), mode, measured_speedup (ratio of median
            times; NaN leaves a gap), counted_speedup and theory_speedup (the same in every batch; the first is taken).
        title: above the axes.
    """
    figure, axes = _new_axes(title, "number of scales K", "speed-up over K = 1 (×)")
    theory = rows.sort_values("scales").drop_duplicates("scales")
    axes.plot(theory["scales"], theory["theory_speedup"], color=GREY, linestyle="--", linewidth=1.6, label="theory: $K/S_K$")
    axes.plot(theory["scales"], theory["counted_speedup"], color=BLACK, linewidth=1.6, label="counted FLOPs")
    modes = list(dict.fromkeys(rows["mode"]))
    for index, (batch, timed) in enumerate(rows.sort_values("scales", kind="stable").groupby("batch")):
        for mode, cells in timed.groupby("mode", sort=False):
            number = modes.index(mode)
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
    axes.grid(axis="y", color=LIGHT, linewidth=0.8)
    style.add_legend(figure, axes, room=5, size=TICK)
    return figure


def plot_flops_against_time(rows: pd.DataFrame) -> Figure:
    """How much of what was saved in FLOPs was saved in time: both ratios to one reference, logarithmic, with the diagonal.

    Points are coloured by the number of scales and shaped by batch size (and mode); those of the largest batch are labelled.

    Args:
        rows: kind ("grid" or "baseline"), decoder, scales, steps, batch, mode, flop_ratio and time_ratio (reference over cell).
    """
    title = "Time saved against FLOPs saved, from full resolution with most steps"
    figure, axes = _new_axes(title, "FLOPs saved (×, counted)", "time saved (×, measured)")
    scales = sorted(set(rows["scales"]))
    ways = sorted(set(zip(rows["batch"], rows["mode"], strict=True)))
    points = list(zip(rows["flop_ratio"], rows["time_ratio"], strict=True))
    for row, (x, y) in zip(_records(rows), points, strict=True):
        shape = marker(ways.index((row["batch"], row["mode"])))
        axes.plot(x, y, marker=shape, color=colour(scales.index(row["scales"])), markersize=_SIZE, linestyle="", alpha=0.85)
    low, high = min(map(min, points)) / 1.4, max(map(max, points)) * 1.6
    axes.plot((low, high), (low, high), color=GREY, linewidth=1.2, linestyle="--", zorder=0)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    for index, k in enumerate(scales):
        axes.plot([], [], marker="o", color=colour(index), markersize=_SIZE, linestyle="", label=f"K = {k}")
    several = rows["mode"].nunique() > 1
    for index, (batch, mode) in enumerate(ways):
        label = f"batch {batch:g}" + (f", {mode}" if several else "")
        axes.plot([], [], marker=marker(index), color=BLACK, markersize=_SIZE, linestyle="", fillstyle="none", label=label)
    axes.plot([], [], color=GREY, linewidth=1.2, linestyle="--", label="time saved = FLOPs saved")
    style.plain_numbers(axes, axes.xaxis, axes.yaxis)
    style.add_legend(figure, axes, room=7)
    # Decoders of one network lie on each other: a label for each (K, N) does.
    last = rows[rows["batch"] == rows["batch"].max()]
    grid = last[last["kind"] == "grid"].drop_duplicates(["scales", "steps"])
    labels = _names(last.drop_duplicates(["decoder"]), "flop_ratio", "time_ratio")
    labels += _steps(grid, "flop_ratio", "time_ratio", {k: ink(index) for index, k in enumerate(scales)})
    style.place_labels(figure, axes, labels, points, far=False)
    return figure


def plot_quality_against_time(rows: pd.DataFrame, metric: str) -> Figure:
    """A metric against time an image at the largest batch: a line for each decoder and number of scales over its numbers of
    steps, baselines by name, and the Pareto front of the networks (no other network is both faster and better).

    Args:
        rows: kind, decoder, model, scales, steps, batch, mode, parameters (0 without a network, which is never on the front),
            ms_per_image, the metric, n, and what the title says. Of several modes the fastest counts.
        metric: one of the registry's, a column.
    """
    name, higher = METRICS[metric].title, METRICS[metric].direction == "higher"
    title = f"{name} (n = {rows['n'].max():,.0f}) against decoding time{_where(rows)}"
    rows = _one_each(rows, "ms_per_image")
    figure, axes = _new_axes(title, f"milliseconds an image, batch {rows['batch'].max():g}", f"{name} {'↑' if higher else '↓'}")
    grid = rows[rows["kind"] == "grid"]
    fills = {True: "full", False: "none"}
    baselines = _baselines(rows)
    for row in baselines:
        fill = fills[bool(row["parameters"])]
        axes.plot(row["ms_per_image"], row[metric], color=BLACK, marker="X", markersize=_SIZE + 1, fillstyle=fill, linestyle="")
    labels, lines = _names(rows, "ms_per_image", metric), list[tuple[Point, Point]]()
    for index, ((model, k), unsorted) in enumerate(grid.groupby(["model", "scales"], sort=False)):
        cells = unsorted.sort_values("steps")
        axes.plot(
            cells["ms_per_image"],
            cells[metric],
            color=colour(index),
            marker=marker(index),
            markersize=_SIZE,
            linewidth=1.4,
            label=f"{model}, K = {k}",
        )
        lines += pairwise(zip(cells["ms_per_image"], cells[metric], strict=True))
        labels += _steps(cells, "ms_per_image", metric, {k: ink(index)})
    networks = rows[rows["parameters"] > 0]
    if front := pareto_front(list(zip(networks["ms_per_image"], networks[metric], strict=True)), higher):
        times, values = zip(*front, strict=True)
        lines += [((one[0], one[1]), (other[0], one[1])) for one, other in pairwise(front)]
        axes.step(times, values, where="post", color=GREY, linestyle="--", linewidth=1.4, zorder=0)
        axes.plot(times, values, marker="o", markersize=_SIZE + 7, fillstyle="none", color=GREY, linestyle="", zorder=1)
        axes.plot([], [], marker="o", markersize=_SIZE + 4, fillstyle="none", color=GREY, linestyle="--", label="Pareto front")
    for network, meaning in ((True, "other decoder"), (False, "without a network")):
        if any(bool(row["parameters"]) == network for row in baselines):
            fill = fills[network]
            axes.plot([], [], color=BLACK, marker="X", markersize=_SIZE + 1, fillstyle=fill, linestyle="", label=meaning)
    axes.set_xscale("log")
    style.plain_numbers(axes, axes.xaxis)
    axes.margins(x=0.1, y=0.12)
    style.add_legend(figure, axes, room=0)
    style.place_labels(figure, axes, labels, list(zip(rows["ms_per_image"], rows[metric], strict=True)), lines)
    return figure


def plot_energy(rows: pd.DataFrame) -> Figure:
    """Energy an image as bars, at the largest batch, the least first. Of more than 16 bars, those with the most steps stay.

    Args:
        rows: kind, decoder, model, scales, steps, batch, mode and energy_j (joules an image). Of several modes the one with the
            least energy counts.
    """
    rows = _one_each(rows, "energy_j")
    if len(rows) > _MOST_BARS:
        rows = rows[(rows["kind"] == "baseline") | (rows["steps"] == rows.loc[rows["kind"] == "grid", "steps"].max())]
    bars = _records(rows.sort_values("energy_j", ascending=False, kind="stable"))
    height = max(2.4, 1.3 + _BAR_INCHES * len(bars))
    figure, axes = _new_axes("Energy an image", f"joules an image, batch {rows['batch'].max():g}", height=height)
    scales = sorted({row["scales"] for row in bars if row["kind"] == "grid"})
    names = [
        _literal(row["decoder"]) if row["kind"] == "baseline" else f"{row['model']}, K = {row['scales']}, N = {row['steps']}"
        for row in bars
    ]
    shades = [GREY if row["kind"] == "baseline" else colour(scales.index(row["scales"])) for row in bars]
    drawn = axes.barh(range(len(bars)), [row["energy_j"] for row in bars], color=shades, height=0.72)
    axes.bar_label(drawn, labels=[f"{row['energy_j']:.3g}" for row in bars], padding=4, fontsize=NOTE)
    axes.set_yticks(range(len(bars)), names, fontsize=NOTE)
    axes.margins(x=0.12, y=0.02)
    axes.grid(axis="x", color=LIGHT, linewidth=0.8)
    return figure


def pareto_front(points: Sequence[tuple[float, float]], higher_is_better: bool = False) -> list[tuple[float, float]]:
    """The (time, quality) points that no other point beats in both, ordered by time: each is better than all faster ones."""
    sign = -1.0 if higher_is_better else 1.0
    front: list[tuple[float, float]] = []
    for time, quality in sorted(points, key=lambda point: (point[0], sign * point[1])):
        if not front or sign * quality < sign * front[-1][1]:
            front.append((time, quality))
    return front


def _one_each(rows: pd.DataFrame, least: str) -> pd.DataFrame:
    """At the largest batch, one row for each decoder, K and N as it is built: that of the mode with the least of a figure."""
    rows = rows[rows["batch"] == rows["batch"].max()].sort_values(least, kind="stable")
    return rows.drop_duplicates(["kind", "model", "scales", "steps"]).sort_index()


def _records(rows: pd.DataFrame) -> list[dict[Any, Any]]:
    return rows.to_dict("records")


def _baselines(rows: pd.DataFrame) -> list[dict[Any, Any]]:
    return _records(rows[rows["kind"] == "baseline"])


def _names(rows: pd.DataFrame, x: str, y: str) -> list[Label]:
    return [Label(row[x], row[y], _literal(row["decoder"])) for row in _baselines(rows)]


def _literal(label: str) -> str:
    """A label whose dollar signs begin no formula."""
    return label.replace("$", r"\$")


def _steps(rows: pd.DataFrame, x: str, y: str, shades: Mapping[Any, str]) -> list[Label]:
    """By colours of K, the most and the fewest steps first: where there is no room for all labels, those in between go."""
    ends = (rows["steps"].max(), rows["steps"].min())
    ordered = sorted(_records(rows), key=lambda row: row["steps"] not in ends)
    return [Label(row[x], row[y], f"N = {row['steps']}", shades[row["scales"]]) for row in ordered]
