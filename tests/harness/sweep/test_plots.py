"""Plots of cost: they show what they were given, in the same bytes each time, and their labels keep apart."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text
from PIL import Image

from harness.report.plot_style import Label, new_axes, place_labels
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
    cost = {"parameters": 1, "ms_per_image": 10.0 * n / k, "rfid": 60.0 + 100.0 / max(n, 1), "energy_j": n / k}
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


PLOTS = {"flops": plot_flops_against_time, "quality": plot_quality_against_time, "energy": plot_energy}


@pytest.mark.parametrize("name", PLOTS)
def test_the_same_rows_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    files = []
    for turn in ("a", "b"):
        svg, png = tmp_path / turn / "plot.svg", tmp_path / turn / "plot.png"
        PLOTS[name](rows(), svg, png)
        with Image.open(png) as picture:
            assert (picture.format, picture.width) == ("PNG", 1600)  # 800 px on a dense screen
        assert svg.read_text().startswith("<?xml")
        assert has(png, BLUE)
        files.append((svg.read_bytes(), png.read_bytes()))
    assert files[0] == files[1]


@pytest.mark.parametrize(("name", "column"), [("flops", "time_ratio"), ("quality", "rfid"), ("energy", "energy_j")])
def test_rows_without_figures_are_refused(name: str, column: str, tmp_path: Path) -> None:
    paths = tmp_path / "p.svg", tmp_path / "p.png"
    with pytest.raises(ValueError, match=column):
        PLOTS[name](rows().drop(columns=column), *paths)
    with pytest.raises(ValueError, match=column):
        PLOTS[name](rows().assign(**{column: np.nan}), *paths)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("higher", [False, True])
def test_the_pareto_front_is_what_no_point_beats(higher: bool) -> None:
    points = [(float(t), float(q)) for t, q in np.random.default_rng(0).integers(0, 12, (60, 2))]

    def beaten(time: float, quality: float) -> bool:
        better = (lambda q: q >= quality) if higher else (lambda q: q <= quality)
        return any(t <= time and better(q) and (t, q) != (time, quality) for t, q in points)

    assert pareto_front(points, higher) == sorted({point for point in points if not beaten(*point)})


def test_a_codec_without_a_network_is_not_on_the_front(tmp_path: Path) -> None:
    codec, png = rows().query("decoder == 'jpeg'"), tmp_path / "p.png"
    grey = []
    for parameters in (0, 1):
        plot_quality_against_time(codec.assign(parameters=parameters), tmp_path / "p.svg", png)
        grey.append(count(png, GREY))
    assert grey[1] > grey[0] + 100  # the front's ring


def test_of_too_many_bars_those_of_few_steps_go(tmp_path: Path) -> None:
    def height(scales: int) -> int:
        grid = [row("grid", "ms-diffusion", k, n) for k in range(1, scales + 1) for n in (4, 10, 50)]
        plot_energy(pd.DataFrame(grid), tmp_path / "e.svg", tmp_path / "e.png")
        with Image.open(tmp_path / "e.png") as picture:
            return picture.height

    assert height(5) > height(6)  # 15 bars, then the 6 with 50 steps


def test_a_line_for_each_mode_and_batch(tmp_path: Path) -> None:
    speedups = {"measured_speedup": 1.5, "counted_speedup": 1.6, "ideal_speedup": 1.6, "theory_speedup": 1.6}
    cells = [
        {"scales": k, "batch": batch, "mode": mode, **{name: value**k for name, value in speedups.items()}}
        for k, batch, mode in itertools.product((1, 2, 3), (1, 8, 32), ("eager", "compile"))
    ]
    sizes = []
    for name, chosen in (("all", cells), ("eager", [one for one in cells if one["mode"] == "eager"])):
        png = tmp_path / f"{name}.png"
        plot_speedup_vs_scales(pd.DataFrame(chosen), tmp_path / f"{name}.svg", png)
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
        (scales, batch, 0.5 + 0.5 * scales / batch, scales * 0.7, scales * 0.75) for scales in range(1, 5) for batch in (1, 8)
    ]
    return pd.DataFrame(rows, columns=["scales", "batch", "measured_speedup", "counted_speedup", "ideal_speedup"])


def test_the_plot_is_written_twice_and_is_reproducible(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        plot_speedup_vs_scales(speedups(), folder / "plot.svg", folder / "plot.png")
    with Image.open(first / "plot.png") as image:
        assert image.size == (1600, 920)
        assert len(set(image.convert("RGB").resize((400, 230)).getdata())) > 20
    for name in ("plot.svg", "plot.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    svg = (first / "plot.svg").read_text()
    assert all(colour in svg.lower() for colour in ("#0072b2", "#d55e00"))  # one measured line per batch
    assert not re.search(r"<dc:date>", svg)


def test_the_plot_depends_on_the_figures(tmp_path: Path) -> None:
    plot_speedup_vs_scales(speedups(), tmp_path / "a.svg", tmp_path / "a.png")
    changed = speedups().assign(measured_speedup=1.0)
    plot_speedup_vs_scales(changed, tmp_path / "b.svg", tmp_path / "b.png")
    assert (tmp_path / "a.svg").read_bytes() != (tmp_path / "b.svg").read_bytes()


def test_rows_that_cannot_be_plotted_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column 'counted_speedup'"):
        plot_speedup_vs_scales(speedups().drop(columns="counted_speedup"), tmp_path / "a.svg", tmp_path / "a.png")
    with pytest.raises(ValueError, match="no rows"):
        plot_speedup_vs_scales(speedups().iloc[:0], tmp_path / "a.svg", tmp_path / "a.png")
