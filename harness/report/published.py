"""Figures from papers and model cards, with their source: a block of their own, never merged or ranked with measured rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import MsbenchError
from harness.report.latex import latex_table, tex
from harness.report.table import MISSING

if TYPE_CHECKING:
    from rich.table import Table

TITLE = "Published figures (each from its own harness, 50,000 images; not comparable with the rows above, never ranked)"
COLUMNS = ("decoder", "latent", "steps", "dataset", "n", "rfid", "psnr", "ssim", "lpips", "source", "note")
"""the header of published.csv, in this order"""

_HEADERS = ("decoder", "latent", "steps", "dataset", "n", "rFID ↓", "PSNR ↑", "SSIM ↑", "LPIPS ↓", "source", "note")
_ALIGNS = ("l", "l", "r", "l", "r", "r", "r", "r", "r", "l", "l")
_FIGURES = ("rfid", "psnr", "ssim", "lpips")
_HERE = Path(__file__).resolve()


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One decoder as its source reports it. Figures stay the text of the source, so that its digits are kept."""

    decoder: str
    """name in the source"""
    latent: str
    """down-factor and channels (f8c4), or the kind of latent"""
    steps: str
    """network calls per image; "≤3" where the source gives a bound"""
    dataset: str
    """what was reconstructed, with the resolution in pixels"""
    n: str
    """number of images behind rFID"""
    rfid: str
    """rFID; empty where the source was not read for it, as in the three below"""
    psnr: str
    """dB"""
    ssim: str
    """in the source's own variant"""
    lpips: str
    """in the source's own variant"""
    source: str
    """arXiv number and table, or whose README"""
    note: str
    """what else to know; may be empty"""

    def cells(self) -> list[str]:
        """The row as text for people, in the order of `COLUMNS`."""
        texts = {column: str(getattr(self, column)) for column in COLUMNS} | {"n": f"{int(self.n):,}"}
        # The dash stands for a missing figure; a missing note is no gap.
        return [text or ("" if column == "note" else MISSING) for column, text in texts.items()]


def published_path() -> Path:
    """Where published.csv lies: in results/ of a checkout, beside this module in an installed wheel."""
    root = _HERE.parents[2]
    if (root / "pyproject.toml").is_file():
        return root / "results" / "published.csv"
    return _HERE.with_name("published.csv")


def published_rows(path: Path | None = None) -> list[PublishedRow]:
    """The literature rows.

    Args:
        path: another file of the same layout; None = the one msbench carries.

    Raises:
        MsbenchError: no such file, another header, a row without a source, a figure that is no positive number, or a row
            without any figure.
    """
    file = path or published_path()
    if not file.is_file():
        raise MsbenchError(f"no published figures at {file}: install msbench again, or run it from a complete checkout")
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise MsbenchError(f"{file}: the header must be {','.join(COLUMNS)}")
        return [_checked(cells, f"{file} line {reader.line_num}") for cells in reader]


def published_table(rows: Sequence[PublishedRow]) -> Table:
    """For the terminal; 110 columns hold it. Data set, n and notes are lines below it."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    headers, aligns, cells, notes = _compact(rows)
    table = Table(
        title=escape(TITLE),
        title_justify="left",
        caption=escape("\n".join(notes)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    for header, align in zip(headers, aligns, strict=True):
        table.add_column(header, justify="right" if align == "r" else "left", overflow="fold")
    for line in cells:
        table.add_row(*(escape(cell) for cell in line))
    return table


def published_markdown(rows: Sequence[PublishedRow]) -> str:
    """The title as a paragraph and a GitHub table below it; ends with a newline."""
    rules = ["--:" if align == "r" else ":--" for align in _ALIGNS]
    lines = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        for cells in (_HEADERS, rules, *(row.cells() for row in rows))
    ]
    return f"{TITLE}\n\n" + "\n".join(lines) + "\n"


def published_csv(rows: Sequence[PublishedRow]) -> str:
    """The title as a comment line (#), then the rows in the layout of published.csv, the source's digits kept."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(row, column) for column in COLUMNS] for row in rows)
    return f"# {TITLE}\n{text.getvalue()}"


def published_latex(rows: Sequence[PublishedRow]) -> str:
    """A booktabs table; the title, data set, n and notes are lines below it."""
    headers, aligns, cells, notes = _compact(rows)
    return latex_table(
        [tex(header) for header in headers],
        aligns,
        [[tex(cell) for cell in line] for line in cells],
        [tex(note) for note in (f"{TITLE}.", *notes)],
    )


def _compact(rows: Sequence[PublishedRow]) -> tuple[list[str], list[str], list[list[str]], list[str]]:
    """Headers, alignments, cells and footnotes without the columns dataset, n and note, whose content the footnotes carry."""
    shown = [place for place, column in enumerate(COLUMNS) if column not in ("dataset", "n", "note")]
    remarks = list(dict.fromkeys(row.note for row in rows if row.note))
    cells = [[row.cells()[place] for place in shown] for row in rows]
    for row, line in zip(rows, cells, strict=True):
        line[-1] += f" ({remarks.index(row.note) + 1})" if row.note else ""
    sets = dict.fromkeys(f"{row.dataset} px, n = {int(row.n):,}" for row in rows)
    notes = ["; ".join(sets), *(f"({number}) {remark}" for number, remark in enumerate(remarks, 1))]
    return [_HEADERS[place] for place in shown], [_ALIGNS[place] for place in shown], cells, notes


def _checked(cells: dict[str, str], place: str) -> PublishedRow:
    """The row of one line, refused with its place where it says nothing that can be traced."""
    if None in cells or None in cells.values():
        raise MsbenchError(f"{place}: {len(COLUMNS)} cells are needed")
    row = PublishedRow(**{column: cells[column].strip() for column in COLUMNS})
    if not row.source:
        raise MsbenchError(f"{place}: {row.decoder or 'a row'} has no source; only figures read in a source belong here")
    figures = {column: cells[column].strip() for column in _FIGURES if cells[column].strip()}
    if not figures:
        raise MsbenchError(f"{place}: {row.decoder} has no figure")
    for column, text in {"n": row.n, **figures}.items():
        try:
            good = (int(text) if column == "n" else float(text)) > 0
        except ValueError:
            good = False
        if not good:
            raise MsbenchError(f"{place}: {column} of {row.decoder} is {text!r}, not a positive number")
    return row
