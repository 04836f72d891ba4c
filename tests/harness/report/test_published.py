"""Published figures: only what was read in a source, in a block of its own, never ranked, found in checkout and wheel alike."""

from __future__ import annotations

import io
import math
import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from harness.errors import MsbenchError
from harness.report import published
from harness.report.published import (
    COLUMNS,
    TITLE,
    published_path,
    published_rows,
    published_table,
)
from harness.report.table import csv_text, latex, markdown, terminal

ROOT = Path(__file__).resolve().parents[3]
ANCHORS = ROOT.parent / "shared" / "docs" / "anchors.md"
ROWS = published_rows()
FIGURES = ("rfid", "psnr", "ssim", "lpips")


def row_of(**changes: str) -> dict[str, str]:
    row = dict.fromkeys(COLUMNS, "")
    own = {"decoder": "a|b", "latent": "f8", "steps": "1", "dataset": "imagenet-val 256", "n": "50000", "rfid": "0.50"}
    return row | own | {"source": "arXiv 1"} | changes


def test_every_row_has_a_source_that_can_be_looked_up_and_the_set_of_the_title() -> None:
    assert ROWS
    for row in ROWS:
        assert tuple(row) == COLUMNS, row
        assert any(row[name] for name in FIGURES), row
        assert all(not row[name] or 0 < float(row[name]) < math.inf for name in FIGURES), row
        assert re.match(r"arXiv \d{4}\.\d{5} (tables? |abstract)|README of [\w-]+/[\w-]+$", row["source"]), row
        assert row["n"] == "50000", row
        assert row["dataset"] == "imagenet-val 256", row
    assert len({(row["decoder"], row["latent"], row["steps"], row["source"]) for row in ROWS}) == len(ROWS)


@pytest.mark.skipif(not ANCHORS.is_file(), reason="the reading notes are not here")
def test_every_figure_stands_in_a_line_of_the_notes_that_was_read() -> None:
    lines = [line for line in ANCHORS.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    for row in ROWS:
        name = re.split(r"[ -]", row["decoder"])[0]
        read = [line for line in lines if name in line and re.search(r"\| (rFID )?R\b", line)]
        held = {float(number) for line in read for number in re.findall(r"\d*\.\d+", line)}
        for text in (row["rfid"], row["psnr"], row["ssim"], row["lpips"]):
            # The notes round to three decimals.
            assert not text or round(float(text), 3) in held, (row["decoder"], text)
        assert not any("rest S" in line for line in read) or not (row["psnr"] or row["ssim"] or row["lpips"]), row


def test_it_is_read_from_the_checkout_and_the_wheel_carries_it_beside_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert published_path() == ROOT / "results" / "published.csv"
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    place = wheel["force-include"]["results/published.csv"]
    monkeypatch.setattr(published, "_HERE", tmp_path / "harness" / "report" / "published.py")
    assert published_path() == tmp_path / place


def test_the_terminal_shows_every_row_and_note_under_the_title() -> None:
    console = Console(width=110, file=io.StringIO(), highlight=False)
    console.print(terminal(published_table(ROWS), width=110))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert text.startswith(TITLE)
    assert "…" not in text
    for row in ROWS:
        assert re.search(
            re.escape(row["decoder"]) + rf" +{re.escape(row['latent'])} +{re.escape(row['steps'])} +{row['rfid']}\b", text
        ), row
        assert row["note"] in text
    assert "imagenet-val 256 px, n = 50,000" in text


def test_markdown_keeps_the_digits_of_the_source_and_marks_nothing() -> None:
    title, table, notes = markdown(published_table(ROWS)).split("\n\n")
    assert title == f"**{TITLE}**"
    lines = table.strip().splitlines()
    assert len(lines) == len(ROWS) + 2
    assert {line.count(" | ") for line in lines} == {7}
    assert all(row["rfid"] in line for row, line in zip(ROWS, lines[2:], strict=True))
    assert "| – |" in table
    assert "**" not in table + notes


def test_csv_is_the_file() -> None:
    text = csv_text(published_table(ROWS))
    assert text == published_path().read_text(encoding="utf-8")
    assert tuple(pd.read_csv(io.StringIO(text)).columns) == COLUMNS


def test_latex_marks_nothing_and_says_that_nothing_is_comparable() -> None:
    text = latex(published_table(ROWS))
    assert text.count(r"\\" + "\n") == len(ROWS) + 1
    assert r"\textbf" not in text
    assert text.isascii()
    caption, table, _ = re.split(r"\\(?:begin|end)\{tabular\}", text)
    assert TITLE in caption
    assert r"$\varepsilon$-VAE M & f8c4 & $\leq$3 & 0.47" in table


def test_no_rows_is_no_error() -> None:
    empty = published_table([])
    assert csv_text(empty) == ",".join(COLUMNS) + "\n"
    assert TITLE in markdown(empty)
    assert latex(empty)


def test_a_row_from_elsewhere_is_escaped() -> None:
    rows = [row_of(note="50% [x]")]
    assert "| a\\|b | f8 | 1 | 0.50 |" in markdown(published_table(rows))
    assert r"50\% [x]" in latex(published_table(rows))


def test_a_missing_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "_HERE", tmp_path / "harness" / "report" / "published.py")
    with pytest.raises(MsbenchError, match="no published figures at"):
        published_rows()
