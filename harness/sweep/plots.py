"""The plots of a sweep: speed-up over scales, FLOPs against time, quality against time with the Pareto front, energy.

`write_plots` draws what a table can feed and names what it cannot. The drawing functions take the table of a sweep
(`harness.sweep.table`), or any with the columns they name. The same rows give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from harness.metrics.registry import METRICS
from harness.report.plot_style import (
    AXIS,
    BLACK,
    GREY,
    LIGHT,
    NOTE,
    TICK,
    TITLE,
    Label,
    Point,
    add_legend,
    colour,
    ink,
    marker,
    new_axes,
    place_labels,
    save,
)

if TYPE_CHECKING:
    import pandas as pd

_SIZE = 8
_BAR_INCHES = 0.34
_MOST_BARS = 16
_SPEEDUP_COLUMNS = ("scales", "batch", "measured_speedup", "counted_speedup", "ideal_speedup")
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)))
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
    rows = _usable(rows, _SPEEDUP_COLUMNS, ())
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


def plot_flops_against_time(rows: pd.DataFrame, path_svg: Path, path_png: Path, title: str | None = None) -> None:
    """How much of what was saved in FLOPs was saved in time: both ratios to one reference, logarithmic, with the diagonal.

    Points are coloured by the number of scales and shaped by batch size (and mode); those of the largest batch are labelled.

    Args:
        rows: kind ("grid" or "baseline"), decoder, scales, steps, batch, mode, flop_ratio and time_ratio (reference over cell);
            rows without either ratio are left out.
        path_svg, path_png: where the two files go, atomically.
        title: above the axes.

    Raises `ValueError` where a column is missing or no row has both ratios.
    """
    columns = ("kind", "decoder", "scales", "steps", "batch", "mode", "flop_ratio", "time_ratio")
    rows = _usable(rows, columns, ("flop_ratio", "time_ratio"))
    figure, axes = new_axes()
    scales = sorted(set(rows["scales"]))
    ways = sorted({(float(row["batch"]), str(row["mode"])) for row in _records(rows)})
    points = [(row["flop_ratio"], row["time_ratio"]) for row in _records(rows)]
    for row, (x, y) in zip(_records(rows), points, strict=True):
        shape = marker(ways.index((row["batch"], row["mode"])))
        axes.plot(x, y, marker=shape, color=colour(scales.index(row["scales"])), markersize=_SIZE, linestyle="", alpha=0.85)
    low, high = min(map(min, points)) / 1.4, max(map(max, points)) * 1.6
    axes.plot((low, high), (low, high), color=GREY, linewidth=1.2, linestyle="--", zorder=0)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    for index, k in enumerate(scales):
        axes.plot([], [], marker="o", color=colour(index), markersize=_SIZE, linestyle="", label=f"K = {k}")
    several = len(set(rows["mode"])) > 1
    for index, (batch, mode) in enumerate(ways):
        label = f"batch {batch:g}" + (f", {mode}" if several else "")
        axes.plot([], [], marker=marker(index), color=BLACK, markersize=_SIZE, linestyle="", fillstyle="none", label=label)
    axes.plot([], [], color=GREY, linewidth=1.2, linestyle="--", label="time saved = FLOPs saved")
    axes.set_xlabel("FLOPs saved (×, counted)", fontsize=AXIS)
    axes.set_ylabel("time saved (×, measured)", fontsize=AXIS)
    axes.set_title(title or "Time saved against FLOPs saved, from full resolution with most steps", fontsize=TITLE, loc="left")
    _logarithmic(axes, "both")
    add_legend(figure, axes, room=7)
    # Decoders of one network lie on each other: a label for each (K, N) does.
    last = rows[rows["batch"] == rows["batch"].max()]
    grid = last[last["kind"] == "grid"].drop_duplicates(["scales", "steps"])
    labels = [
        Label(row["flop_ratio"], row["time_ratio"], row["decoder"]) for row in _baselines(last.drop_duplicates(["decoder"]))
    ]
    labels += [
        Label(row["flop_ratio"], row["time_ratio"], f"N = {row['steps']}", ink(scales.index(row["scales"])))
        for row in _ends_first(grid)
    ]
    place_labels(figure, axes, labels, points, far=False)
    save(figure, path_svg, path_png)


def plot_quality_against_time(
    rows: pd.DataFrame,
    path_svg: Path,
    path_png: Path,
    metric: str = "rfid",
    metric_label: str = "rFID",
    higher_is_better: bool = False,
    title: str | None = None,
) -> None:
    """A metric against time an image at the largest batch: a line for each decoder and number of scales over its numbers of
    steps, baselines by name, and the Pareto front of the networks (no other network is both faster and better).

    Args:
        rows: kind, decoder, model, scales, steps, batch, mode, parameters (0 without a network, which is never on the front),
            ms_per_image and the metric; rows without either figure are left out. Of several modes the fastest counts.
        path_svg, path_png: where the two files go, atomically.
        metric: column of the metric.
        metric_label: its name on the axis.
        higher_is_better: its direction.
        title: above the axes.

    Raises `ValueError` where a column is missing or no row has both figures.
    """
    columns = ("kind", "decoder", "model", "scales", "steps", "batch", "mode", "parameters", "ms_per_image", metric)
    rows = _usable(rows, columns, ("ms_per_image", metric))
    rows = _one_each(rows[rows["batch"] == rows["batch"].max()], "ms_per_image")
    figure, axes = new_axes()
    grid = rows[rows["kind"] == "grid"]
    labels: list[Label] = []
    lines: list[tuple[Point, Point]] = []
    for row in _baselines(rows):
        fill = "full" if row["parameters"] else "none"
        axes.plot(row["ms_per_image"], row[metric], color=BLACK, marker="X", markersize=_SIZE + 1, fillstyle=fill, linestyle="")
        labels.append(Label(row["ms_per_image"], row[metric], row["decoder"]))
    for index, (model, k) in enumerate(dict.fromkeys(zip(grid["model"], grid["scales"], strict=True))):
        cells = grid[(grid["model"] == model) & (grid["scales"] == k)].sort_values("steps")
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
        labels += [Label(row["ms_per_image"], row[metric], f"N = {row['steps']}", ink(index)) for row in _ends_first(cells)]
    networks = rows[rows["parameters"] > 0]
    front = pareto_front(list(zip(networks["ms_per_image"], networks[metric], strict=True)), higher_is_better)
    if front:
        times, values = zip(*front, strict=True)
        lines += [((one[0], one[1]), (other[0], one[1])) for one, other in pairwise(front)]
        axes.step(times, values, where="post", color=GREY, linestyle="--", linewidth=1.4, zorder=0)
        axes.plot(times, values, marker="o", markersize=_SIZE + 7, fillstyle="none", color=GREY, linestyle="", zorder=1)
        axes.plot([], [], marker="o", markersize=_SIZE + 4, fillstyle="none", color=GREY, linestyle="--", label="Pareto front")
    for fill, meaning in (("full", "baseline"), ("none", "baseline without a network")):
        if any(bool(row["parameters"]) == (fill == "full") for row in _baselines(rows)):
            axes.plot([], [], color=BLACK, marker="X", markersize=_SIZE + 1, fillstyle=fill, linestyle="", label=meaning)
    _logarithmic(axes, "x")
    axes.margins(x=0.1, y=0.12)
    axes.set_xlabel(f"milliseconds an image, batch {rows['batch'].max():g}", fontsize=AXIS)
    axes.set_ylabel(f"{metric_label} {'↑' if higher_is_better else '↓'}", fontsize=AXIS)
    axes.set_title(title or f"{metric_label} against decoding time", fontsize=TITLE, loc="left")
    add_legend(figure, axes, room=0)
    place_labels(figure, axes, labels, list(zip(rows["ms_per_image"], rows[metric], strict=True)), lines)
    save(figure, path_svg, path_png)


def plot_energy(rows: pd.DataFrame, path_svg: Path, path_png: Path, title: str | None = None) -> None:
    """Energy an image as bars, at the largest batch, the least first. Of more than 16 bars, those with the most steps stay.

    Args:
        rows: kind, decoder, model, scales, steps, batch, mode and energy_j (joules an image); rows without energy are left out.
            Of several modes the one with the least energy counts.
        path_svg, path_png: where the two files go, atomically.
        title: above the axes.

    Raises `ValueError` where a column is missing or no row has energy.
    """
    columns = ("kind", "decoder", "model", "scales", "steps", "batch", "mode", "energy_j")
    rows = _usable(rows, columns, ("energy_j",))
    rows = _one_each(rows[rows["batch"] == rows["batch"].max()], "energy_j")
    if len(rows) > _MOST_BARS:
        rows = rows[(rows["kind"] == "baseline") | (rows["steps"] == rows.loc[rows["kind"] == "grid", "steps"].max())]
    bars = _records(rows.sort_values("energy_j", ascending=False, kind="stable"))
    figure, axes = new_axes(max(2.4, 1.3 + _BAR_INCHES * len(bars)))
    scales = sorted({row["scales"] for row in bars if row["kind"] == "grid"})
    names = [
        row["decoder"] if row["kind"] == "baseline" else f"{row['model']}, K = {row['scales']}, N = {row['steps']}"
        for row in bars
    ]
    shades = [GREY if row["kind"] == "baseline" else colour(scales.index(row["scales"])) for row in bars]
    drawn = axes.barh(range(len(bars)), [row["energy_j"] for row in bars], color=shades, height=0.72)
    axes.bar_label(drawn, labels=[f"{row['energy_j']:.3g}" for row in bars], padding=4, fontsize=NOTE)
    axes.set_yticks(range(len(bars)), names, fontsize=NOTE)
    axes.margins(x=0.12, y=0.02)
    axes.grid(axis="x", color=LIGHT, linewidth=0.8)
    axes.set_xlabel(f"joules an image, batch {rows['batch'].max():g}", fontsize=AXIS)
    axes.set_title(title or "Energy an image", fontsize=TITLE, loc="left")
    save(figure, path_svg, path_png)


def pareto_front(points: Sequence[tuple[float, float]], higher_is_better: bool = False) -> list[tuple[float, float]]:
    """The (time, quality) points that no other point beats in both, ordered by time: each is better than all faster ones."""
    sign = -1.0 if higher_is_better else 1.0
    front: list[tuple[float, float]] = []
    for time, quality in sorted(points, key=lambda point: (point[0], sign * point[1])):
        if not front or sign * quality < sign * front[-1][1]:
            front.append((time, quality))
    return front


def _usable(rows: pd.DataFrame, columns: Sequence[str], needed: Sequence[str]) -> pd.DataFrame:
    """The rows that have all of `needed`."""
    missing = [column for column in columns if column not in rows.columns]
    if missing:
        raise ValueError(f"cannot plot: no column {missing[0]!r}")
    rows = rows.dropna(subset=list(needed))
    if rows.empty:
        raise ValueError(f"cannot plot: no row has {' and '.join(needed)}" if needed else "cannot plot: no rows")
    return rows


def _one_each(rows: pd.DataFrame, least: str) -> pd.DataFrame:
    """One row for each decoder, K and N as it is built: that of the mode with the least of a figure."""
    return rows.sort_values(least, kind="stable").drop_duplicates(["kind", "model", "scales", "steps"]).sort_index()


def _records(rows: pd.DataFrame) -> list[dict[Any, Any]]:
    return rows.to_dict("records")


def _baselines(rows: pd.DataFrame) -> list[dict[Any, Any]]:
    return _records(rows[rows["kind"] == "baseline"])


def _ends_first(rows: pd.DataFrame) -> list[dict[Any, Any]]:
    """The most and the fewest steps first: where there is no room for all labels, those in between go."""
    ends = (rows["steps"].max(), rows["steps"].min())
    return sorted(_records(rows), key=lambda row: row["steps"] not in ends)


def _logarithmic(axes: Axes, which: str) -> None:
    """Logarithmic axes with plain numbers at 1, 2 and 5 of each decade."""
    chosen = [axes.xaxis, axes.yaxis] if which == "both" else [axes.xaxis]
    axes.set_xscale("log")
    if which == "both":
        axes.set_yscale("log")
    for axis in chosen:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(color=LIGHT, linewidth=0.8)
    axes.tick_params(labelsize=TICK)
