"""Draw a table of `benchmarks/ablation.py`: `python benchmarks/ablation_plot.py TABLE.csv --output STEM`.

One line per training seed and number of steps, one panel per metric, 95 % intervals; flows, distillations and controls have
colours of their own. Better is always to the left.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.plumbing import options
from harness.metrics.registry import METRICS
from harness.report.plot_style import COLOURS, LIGHT, MARKERS, NOTE, TICK, TITLE, save

PANELS = {"rfid": "rFID", "lpips": "LPIPS (AlexNet)", "dists": "DISTS", "psnr": "PSNR, dB"}


FAMILIES = {
    "multi-step flow": ("diffusion", "ms-diffusion", "ms-diffusion-cascade"),
    "one step a scale, distilled": ("onestep", "ms-onestep"),
    "regression on L1 + LPIPS, no noise": ("direct", "ms-direct", "vae-ft"),
    "the autoencoder, and MSE alone": ("vae", "rate-bound"),
}
"""Name in the legend -> the decoders that share a colour"""


def family_of(decoder: str) -> int:
    """Number of the family a decoder belongs to; raises `ValueError` for one that has none."""
    for index, decoders in enumerate(FAMILIES.values()):
        if decoder in decoders:
            return index
    raise ValueError(f"no family of rows for {decoder!r}")


def label(row: pd.Series) -> str:
    """What stands beside a row's dots."""
    calls = f", {row['nfe']:.0f} calls" if row["nfe"] > row["scales"] else ""
    seed = f", seed {row['seed']:.0f}" if row["seed"] else ""
    return f"{row['cell']}{calls}{seed}"


def ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """By family, best rFID first in each."""
    families = rows["decoder"].map(family_of).rename("family")
    return rows.assign(family=families).sort_values(["family", "rfid"], ignore_index=True)


def panel(axes: Axes, rows: pd.DataFrame, metric: str) -> None:
    """One metric of every row."""
    better = METRICS[metric].direction
    for index, name in enumerate(FAMILIES):
        chosen = rows[(rows["family"] == index) & rows[metric].notna()]
        if chosen.empty:
            continue  # no entry in the legend
        below = (chosen[metric] - chosen[f"{metric}_low"]).clip(lower=0)
        above = (chosen[f"{metric}_high"] - chosen[metric]).clip(lower=0)
        look = {"fmt": MARKERS[index], "color": COLOURS[index], "markersize": 6, "elinewidth": 1.6, "label": name}
        axes.errorbar(chosen[metric], chosen.index, xerr=[below.fillna(0), above.fillna(0)], **look)
    arrow = "↑" if better == "higher" else "↓"
    axes.set_title(f"{PANELS[metric]} {arrow}", fontsize=TITLE)
    if better == "higher":
        axes.invert_xaxis()
    axes.grid(color=LIGHT, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=NOTE)
    axes.locator_params(axis="x", nbins=4)


def draw(rows: pd.DataFrame, stem: Path) -> None:
    """Write STEM.svg and STEM.png; the same rows give the same bytes.

    Raises `ValueError` without rows or for a decoder of no family.
    """
    if rows.empty:
        raise ValueError("no rows to draw")
    rows = ordered(rows)
    metrics = [metric for metric in PANELS if rows[metric].notna().any()]
    figure = Figure(figsize=(12.0, 1.4 + 0.3 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        panel(axes, rows, metric)
    panels[0].set_yticks(range(len(rows)), [label(row) for _, row in rows.iterrows()], fontsize=TICK)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=TICK, frameon=False, loc="outside lower center", ncols=2)
    save(figure, stem)


def main() -> None:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="stem of the .svg and .png")
    arguments = parser.parse_args()
    draw(pd.read_csv(arguments.table), arguments.output)


if __name__ == "__main__":
    main()
