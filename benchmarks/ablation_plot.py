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


FAMILY_OF = {decoder: index for index, decoders in enumerate(FAMILIES.values()) for decoder in decoders}


def label(row: pd.Series) -> str:
    """What stands beside a row's dots."""
    calls = f", {row['nfe']:.0f} calls" if row["nfe"] > row["scales"] else ""
    seed = f", seed {row['seed']:.0f}" if row["seed"] else ""
    return f"{row['cell']}{calls}{seed}"


def ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """By family, best rFID first in each; raises `KeyError` for a decoder of none."""
    return rows.assign(family=[FAMILY_OF[decoder] for decoder in rows["decoder"]]).sort_values(
        ["family", "rfid"], ignore_index=True
    )


def panel(axes: Axes, rows: pd.DataFrame, metric: str) -> None:
    """One metric of every row."""
    for index, chosen in rows[rows[metric].notna()].groupby("family"):
        below, above = chosen[metric] - chosen[f"{metric}_low"], chosen[f"{metric}_high"] - chosen[metric]
        look = {"fmt": MARKERS[index], "color": COLOURS[index], "label": [*FAMILIES][index], "markersize": 6, "elinewidth": 1.6}
        axes.errorbar(chosen[metric], chosen.index, xerr=[side.clip(lower=0).fillna(0) for side in (below, above)], **look)
    higher = METRICS[metric].direction == "higher"
    axes.set_title(f"{PANELS[metric]} {'↑' if higher else '↓'}", fontsize=TITLE)
    axes.xaxis.set_inverted(higher)
    axes.grid(color=LIGHT, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=NOTE)
    axes.locator_params(axis="x", nbins=4)


def draw(rows: pd.DataFrame, stem: Path) -> None:
    """Write STEM.svg and STEM.png; the same rows give the same bytes. Raises `KeyError` for a decoder of no family."""
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
