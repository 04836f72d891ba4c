"""Decoders of others beside those here: what they cost in one run of `msbench speed`, and quality where it is known.

    python benchmarks/peers.py SPEED QUALITY.csv --output FILE.csv

SPEED is the folder of a run of `msbench speed`. QUALITY.csv is what `msbench compare RUN --format csv` prints; its decoders are
those of SPEED that have the same label. FILE.csv has a row for each decoder and setting of SPEED. FILE.svg and FILE.png beside
it show LPIPS against time in one setting; decoders without a known quality, as architectures with random weights, are marks on
the axis of time.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks import speed_table
from benchmarks.plumbing import options, run_script, write_csv
from harness.errors import MsbenchError
from harness.report import plot_style as style

QUALITY = ("dataset", "n", "lpips", "lpips_low", "lpips_high", "rfid", "psnr")
COLUMNS = (*speed_table.COLUMNS, "noise_floor", *QUALITY, "cpu", "torch")


def read_quality(path: Path) -> dict[str, dict[str, str]]:
    """The columns `QUALITY` of a table of `msbench compare --format csv`, by label; raises `MsbenchError` where it is none."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            found = {row["decoder"]: {name: row[name] for name in QUALITY} for row in csv.DictReader(stream)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise MsbenchError(f"{path}: no table of `msbench compare --format csv` with LPIPS ({error!r})") from error
    return {label: row | {"dataset": row["dataset"].rpartition("/")[2]} for label, row in found.items()}


def joined(speed: Mapping[str, Any], quality: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """The rows of a run of `msbench speed`, decoding alone, with the quality of the decoders that have one.

    Raises:
        MsbenchError: none has.
    """
    found = [row for row in speed_table.rows(speed, None) if row["scope"] == "decode"]
    labels = {row["decoder"] for row in found}
    if labels.isdisjoint(quality):
        raise MsbenchError(f"no decoder of both: speed has {', '.join(sorted(labels))}, quality {', '.join(quality)}")
    return [{key: (row | quality.get(row["decoder"], {})).get(key) for key in COLUMNS} for row in found]


def of_setting(table: Sequence[dict[str, Any]], batch: int, dtype: str) -> list[dict[str, Any]]:
    """One row a decoder, on all cores, in its fastest mode, the fastest decoder first.

    Raises:
        MsbenchError: nothing was timed there.
    """
    there = [row for row in table if (row["batch"], row["dtype"]) == (batch, dtype) and row["cores"] in ("all", None)]
    timed = sorted((row for row in there if row["status"] == "ok"), key=lambda row: row["ms_per_image"], reverse=True)
    if not timed:
        raise MsbenchError(f"nothing was timed at batch {batch} in {dtype} on all cores: give another --batch or --dtype")
    return list({row["decoder"]: row for row in timed}.values())[::-1]


def plot(chosen: Sequence[dict[str, Any]]) -> Figure:
    """LPIPS against milliseconds an image of the rows of one setting, each decoder by name."""
    known = {row["decoder"]: (row["ms_per_image"], float(row["lpips"])) for row in chosen if row["lpips"]}
    sets = " and ".join(dict.fromkeys(f"{row['dataset']}, n = {row['n']}" for row in chosen if row["lpips"]))
    where = "{resolution} px, batch {batch}, {dtype}".format(**chosen[0])
    figure, axes = style.new_axes(f"LPIPS ({sets}) against decoding time", f"milliseconds an image ({where})", "LPIPS ↓")
    looks: dict[str, Any] = {"markersize": 9, "linestyle": ""}
    axes.plot(*zip(*known.values(), strict=True), color=style.colour(0), marker="o", **looks)
    axes.margins(x=0.2, y=0.2)
    axes.set(xscale="log", ylim=axes.get_ylim())
    floor = axes.get_ylim()[0]
    if unknown := {row["decoder"]: (row["ms_per_image"], floor) for row in chosen if row["decoder"] not in known}:
        what = "its quality is not known: cost alone"
        axes.plot(*zip(*unknown.values(), strict=True), color=style.colour(1), marker="^", clip_on=False, label=what, **looks)
        style.add_legend(figure, axes, room=1)
    style.plain_numbers(axes, axes.xaxis)
    both = list(enumerate((known, unknown)))
    labels = [style.Label(*point, name, style.ink(index)) for index, group in both for name, point in group.items()]
    style.place_labels(figure, axes, labels, [*known.values(), *unknown.values()])
    return figure


def main() -> None:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("speed", type=Path, help="folder of a run of msbench speed")
    parser.add_argument("quality", type=Path, help="CSV of msbench compare")
    parser.add_argument("--batch", type=int, default=1, help="images a call in the plot")
    parser.add_argument("--dtype", default="bf16", help="arithmetic in the plot")
    parser.add_argument("--output", type=Path, required=True, help="the CSV; the plot stands beside it")
    given = parser.parse_args()
    speed = speed_table.read_speed(given.speed)
    table = joined(speed, read_quality(given.quality))
    figure = plot(of_setting(table, given.batch, given.dtype))
    write_csv(table, given.output, COLUMNS)
    style.save(figure, given.output.with_suffix(""))
    if speed["disturbed"]:
        print(f"warning: other work disturbed times of {given.speed}; its tables say which", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_script(main))
