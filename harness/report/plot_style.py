"""What all plots share: colours that colour-blind readers tell apart (Okabe and Ito), size, labels that keep apart, saving."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path as FilePath

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from harness.files import atomic_path

BLACK, GREY, LIGHT = "#000000", "#767676", "#DDDDDD"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
INCHES = (8.0, 4.6)
TITLE, AXIS, TICK, NOTE = 14, 13, 12, 11
"""Font sizes in points; at README width (800 px) a point is 1.4 px."""

_DPI = 200  # 1,600 px, for 800 px shown on a dense screen
_MARKER_POINTS = 6.0  # half the side of a point that labels keep clear of
_LEGEND_COLUMNS = 3
_NEAR, _FAR = 10.0, 24.0
_DIRECTIONS = (
    (1.0, 0.0, "left", "center"),
    (-1.0, 0.0, "right", "center"),
    (0.0, 1.0, "center", "bottom"),
    (0.0, -1.0, "center", "top"),
    (0.8, 0.8, "left", "bottom"),
    (0.8, -0.8, "left", "top"),
    (-0.8, 0.8, "right", "bottom"),
    (-0.8, -0.8, "right", "top"),
)


Point = tuple[float, float]
"""x and y in data units"""


@dataclass(frozen=True, slots=True)
class Label:
    """A note beside a point."""

    x: float
    """the point, in data units"""
    y: float
    """likewise"""
    text: str
    """what is written"""
    colour: str = BLACK
    """of the text"""


def new_axes(title: str = "", x: str = "", y: str = "", height: float = INCHES[1]) -> tuple[Figure, Axes]:
    """A figure of README width with one bare pair of axes, its title and what stands beside the axes."""
    figure = Figure(figsize=(INCHES[0], height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=TICK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=TITLE, loc="left")
    axes.set_xlabel(x, fontsize=AXIS)
    axes.set_ylabel(y, fontsize=AXIS)
    return figure, axes


def colour(index: int) -> str:
    """The colour of series number `index`."""
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    """The marker of series number `index`."""
    return MARKERS[index % len(MARKERS)]


def ink(index: int) -> str:
    """The colour of series number `index`, dark enough for text."""
    red, green, blue = to_rgb(colour(index))
    return to_hex((0.75 * red, 0.75 * green, 0.75 * blue))


def plain_numbers(axes: Axes, *logarithmic: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of each decade of logarithmic axes, over a grid."""
    for axis in logarithmic:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(color=LIGHT, linewidth=0.8)


def add_legend(figure: Figure, axes: Axes, room: int, size: float = NOTE) -> None:
    """The legend in the upper left corner where it has at most `room` entries, else in rows below the axes."""
    entries = len(axes.get_legend_handles_labels()[1])
    if entries <= room:
        axes.legend(fontsize=size, frameon=False, loc="upper left")
        return
    figure.set_figheight(INCHES[1] + 0.25 * math.ceil(entries / _LEGEND_COLUMNS))
    figure.legend(fontsize=NOTE, frameon=False, loc="outside lower center", ncols=_LEGEND_COLUMNS)


def place_labels(
    figure: Figure,
    axes: Axes,
    labels: Sequence[Label],
    points: Sequence[Point],
    lines: Sequence[tuple[Point, Point]] = (),
    far: bool = True,
) -> int:
    """Write each label beside its point, clear of `points`, legend and the labels before it; one without room is left out.

    To be called last: limits, scales and legend must stand.

    Args:
        figure, axes: where.
        labels: the most important first.
        points: x and y of everything that must stay visible.
        lines: both ends of straight lines that are crossed only where there is no other room.
        far: where there is no room beside its point, write it farther away, with a thin line.

    Returns:
        How many labels were written.
    """
    figure.draw_without_rendering()
    renderer: RendererBase = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    half = _MARKER_POINTS * figure.dpi / 72.0
    centres = [axes.transData.transform(point) for point in points]
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in centres]
    crossed = [
        Path([axes.transData.transform(one), axes.transData.transform(other)])  # in pixels, straight on any scale
        for one, other in lines
    ]
    if (legend := axes.get_legend()) is not None:
        taken.append(legend.get_window_extent(renderer))
    room, written = axes.get_window_extent(renderer), 0
    distances = (_NEAR, _FAR, 1.7 * _FAR) if far else (_NEAR,)
    for label in labels:
        for distance, may_cross, (right, up, horizontal, vertical) in product(distances, (False, True), _DIRECTIONS):
            note = axes.annotate(
                label.text,
                (label.x, label.y),
                xytext=(distance * right, distance * up),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=NOTE,
                color=label.colour,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
                arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6} if distance > _NEAR else None,
            )
            note.set_in_layout(False)
            box = _text_box(note, renderer)
            inside = room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1
            free = inside and not any(box.overlaps(other) for other in taken)
            if free and (may_cross or not any(path.intersects_bbox(box, filled=False) for path in crossed)):
                taken.append(box)
                written += 1
                break
            note.remove()
    return written


def _text_box(note: Annotation, renderer: RendererBase) -> Bbox:
    """Extent of an annotation's text without its line."""
    note.update_positions(renderer)
    return Text.get_window_extent(note, renderer)


def save(figure: Figure, stem: FilePath) -> list[FilePath]:
    """Write STEM.svg and STEM.png without dates or random ids, so that unchanged results leave unchanged files."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png")]
    with mpl.rc_context({"svg.hashsalt": "msbench"}), atomic_path(paths[0]) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": "msbench"})
    with atomic_path(paths[1]) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": "msbench"})
    return paths
