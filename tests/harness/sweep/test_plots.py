"""Plots of cost: they show what they were given, in the same bytes each time, and their labels keep apart."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text
from PIL import Image

from harness.report.plot_style import Label, new_axes, place_labels, save
from harness.sweep.plots import (
    pareto_front,
    plot_energy,
    plot_flops_against_time,
    plot_quality_against_time,
    plot_speedup_vs_scales,
)

BLUE, ORANGE, GREEN, GREY = (0, 114, 178), (213, 94, 0), (0, 158, 115), (118, 118, 118)


def row(kind: str, decoder: str, k: int, n: int, **values: Any) -> dict[str, Any]:
    base = {"kind": kind, "decoder": decoder, "model": decoder, "scales": k, "steps": n, "batch": 8.0, "mode": "eager"}
    cost = {
        "n": 8,
        "resolution": 64,
        "device": "cpu",
        "dtype": "float32",
        "parameters": 1,
        "ms_per_image": 10.0 * n / k,
        "rfid": 60.0 + 100.0 / max(n, 1),
        "energy_j": n / k,
    }
    return {**base, **cost, "flop_ratio": 50.0 * k / max(n, 1), "time_ratio": 40.0 * k / max(n, 1), **values}


def rows() -> pd.DataFrame:
    grid = [row("grid", "ms-diffusion", k, n) for k in (1, 3) for n in (4, 10, 50)]
    vae = row("baseline", "vae", 1, 1, rfid=58.0)
    jpeg = row(
        "baseline", "jpeg", 1, 0, ms_per_image=0.5, rfid=40.0, parameters=0, flop_ratio=np.nan, time_ratio=900.0, energy_j=0.01
    )
    return pd.DataFrame([*grid, vae, jpeg])


def count(path: Path, colour: tuple[int, int, int]) -> int:
    """Pixels of exactly this colour."""
    with Image.open(path) as picture:
        return int((np.asarray(picture.convert("RGB")) == colour).all(axis=-1).sum())


def has(path: Path, colour: tuple[int, int, int]) -> bool:
    """A whole marker or line is of this colour, not only the edge of a letter."""
    return count(path, colour) > 100


def draw(name: str, rows: pd.DataFrame, stem: Path) -> Path:
    """The PNG of a plot."""
    match name:
        case "speedup":
            figure = plot_speedup_vs_scales(rows, "speed-up")
        case "quality":
            figure = plot_quality_against_time(rows, "rfid")
        case _:
            figure = {"flops": plot_flops_against_time, "energy": plot_energy}[name](rows.dropna(subset=["flop_ratio"]))
    return save(figure, stem)[1]


@pytest.mark.parametrize("name", ["flops", "quality", "energy", "speedup"])
def test_the_same_rows_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    files = []
    for turn in ("a", "b"):
        png = draw(name, speedups() if name == "speedup" else rows(), tmp_path / turn / "plot")
        with Image.open(png) as picture:
            assert (picture.format, picture.width) == ("PNG", 1600)  # 800 px on a dense screen
        svg = png.with_suffix(".svg").read_text()
        assert svg.startswith("<?xml")
        assert "<dc:date>" not in svg
        assert has(png, BLUE)
        files.append((svg, png.read_bytes()))
    assert files[0] == files[1]


@pytest.mark.parametrize("higher", [False, True])
def test_the_pareto_front_is_what_no_point_beats(higher: bool) -> None:
    points = [(float(t), float(q)) for t, q in np.random.default_rng(0).integers(0, 12, (60, 2))]

    def beaten(time: float, quality: float) -> bool:
        better = (lambda q: q >= quality) if higher else (lambda q: q <= quality)
        return any(t <= time and better(q) and (t, q) != (time, quality) for t, q in points)

    assert pareto_front(points, higher) == sorted({point for point in points if not beaten(*point)})


def test_a_codec_without_a_network_is_not_on_the_front(tmp_path: Path) -> None:
    codec = rows().query("decoder == 'jpeg'")
    grey = [count(draw("quality", codec.assign(parameters=some), tmp_path / "p"), GREY) for some in (0, 1)]
    assert grey[1] > grey[0] + 100  # the front's ring


def test_of_too_many_bars_those_of_few_steps_go(tmp_path: Path) -> None:
    def height(scales: int) -> int:
        grid = [row("grid", "ms-diffusion", k, n) for k in range(1, scales + 1) for n in (4, 10, 50)]
        with Image.open(draw("energy", pd.DataFrame(grid), tmp_path / "e")) as picture:
            return picture.height

    assert height(5) > height(6)  # 15 bars, then the 6 with 50 steps


def test_a_line_for_each_mode_and_batch(tmp_path: Path) -> None:
    ratios = {"measured_speedup": 1.5, "counted_speedup": 1.6, "theory_speedup": 1.6}
    cells = [
        {"scales": k, "batch": batch, "mode": mode, **{name: value**k for name, value in ratios.items()}}
        for k, batch, mode in itertools.product((1, 2, 3), (1, 8, 32), ("eager", "compile"))
    ]
    sizes = []
    for name, chosen in (("all", cells), ("eager", [one for one in cells if one["mode"] == "eager"])):
        png = draw("speedup", pd.DataFrame(chosen), tmp_path / name)
        assert has(png, BLUE)
        assert has(png, ORANGE)
        assert has(png, GREEN)
        with Image.open(png) as picture:
            sizes.append(picture.height)
    assert sizes[0] > sizes[1]  # eight entries of a legend go below the axes


def test_labels_keep_clear_of_each_other_and_of_points() -> None:
    figure, axes = new_axes()
    generator = np.random.default_rng(1)
    points = [(float(x), float(y)) for x, y in generator.random((12, 2))]
    axes.plot(*zip(*points, strict=True), "o")
    written = place_labels(figure, axes, [Label(x, y, f"N = {i}") for i, (x, y) in enumerate(points)], points)
    figure.draw_without_rendering()
    assert isinstance(figure.canvas, FigureCanvasAgg)
    renderer = figure.canvas.get_renderer()
    notes = [child for child in axes.get_children() if isinstance(child, Annotation)]
    boxes = [Text.get_window_extent(note, renderer) for note in notes]
    assert len(boxes) == written >= 10
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert not any(box.contains(*axes.transData.transform(point)) for box in boxes for point in points)


def test_labels_without_room_are_left_out() -> None:
    figure, axes = new_axes()
    axes.plot([0.0, 1.0], [0.0, 1.0])
    labels = [Label(0.5, 0.5, "N = 50")] * 20
    assert 1 <= place_labels(figure, axes, labels, [(0.5, 0.5)], far=False) < 9


def speedups() -> pd.DataFrame:
    rows = [
        (scales, batch, "eager", 0.5 + 0.5 * scales / batch, scales * 0.7, scales * 0.75)
        for scales in range(1, 5)
        for batch in (1, 8)
    ]
    return pd.DataFrame(rows, columns=["scales", "batch", "mode", "measured_speedup", "counted_speedup", "theory_speedup"])


def test_the_plot_depends_on_the_figures(tmp_path: Path) -> None:
    first = draw("speedup", speedups(), tmp_path / "a")
    second = draw("speedup", speedups().assign(measured_speedup=1.0), tmp_path / "b")
    assert first.read_bytes() != second.read_bytes()
