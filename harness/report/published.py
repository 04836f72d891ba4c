"""Figures from papers and model cards, with their source: a block of their own, never merged or ranked with measured rows."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import MsbenchError
from harness.report.results import metric_title
from harness.report.table import Cell, Column, Table

TITLE = "Published figures (each from its own harness, 50,000 images; not comparable with the rows above, never ranked)"
COLUMNS = ("decoder", "latent", "steps", "dataset", "n", "rfid", "psnr", "ssim", "lpips", "source", "note")
"""the header of published.csv, in this order: name in the source, down-factor and channels, network calls an image, what was
reconstructed, images behind rFID, the figures (SSIM and LPIPS in the source's own variant), where they were read, a remark"""

_FIGURES = ("rfid", "psnr", "ssim", "lpips")
_HEADERS = {key: key for key in ("decoder", "latent", "steps", "source")} | {key: metric_title(key) for key in _FIGURES}
_HERE = Path(__file__).resolve()


def published_path() -> Path:
    """Where published.csv lies: in results/ of a checkout, beside this module in an installed wheel."""
    root = _HERE.parents[2]
    checkout = (root / "pyproject.toml").is_file()
    return root / "results" / "published.csv" if checkout else _HERE.with_name("published.csv")


def published_rows() -> list[dict[str, str]]:
    """The literature rows: column -> text of the source, so that its digits are kept; empty where it was not read.

    Raises:
        MsbenchError: the file is not there.
    """
    file = published_path()
    if not file.is_file():
        raise MsbenchError(f"no published figures at {file}: install msbench again, or run it from a complete checkout")
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def published_table(rows: Sequence[Mapping[str, str]]) -> Table:
    """A table whose CSV is the file's own layout; people read data set, n and notes below it."""
    remarks = list(dict.fromkeys(row["note"] for row in rows if row["note"]))
    columns = [
        Column(_HEADERS.get(key, ""), key, key in ("steps", *_FIGURES), int(key in (*_FIGURES, "source")), key == "source")
        for key in COLUMNS
    ]
    cells = [[Cell(row[key] or None) for key in COLUMNS] for row in rows]
    for row, line in zip(rows, cells, strict=True):
        if row["note"]:
            line[COLUMNS.index("source")] = Cell(row["source"], (f"{row['source']} ({remarks.index(row['note']) + 1})",))
    sets = dict.fromkeys(f"{row['dataset']} px, n = {int(row['n']):,}" for row in rows)
    notes = ["; ".join(sets), *(f"({place}) {remark}" for place, remark in enumerate(remarks, 1))]
    return Table(columns, cells, TITLE, [note for note in notes if note])
