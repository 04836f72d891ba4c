"""The writers of a table: text from outside is inert in each, numbers are as they are."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from harness.errors import UnknownNameError
from harness.report.results import check_columns, results_table
from harness.report.table import Cell, Column, Table, csv_text, latex, listing, markdown, select, terminal, visible
from tests.harness.report.rows import result

HOSTILE = (
    '=HYPERLINK("http://evil","x") <script>alert(1)</script> \\input{/etc/passwd} \x1b[31mRED\x1b[2J\x1b]0;t\x07 '
    "| [red]x[/red] [/nope] ![i](j) :smile: `code`\nsecond line \u202eback\u2066 caf\udce9\r"
)
SHOWN = (
    '=HYPERLINK("http://evil","x") <script>alert(1)</script> \\input{/etc/passwd} \\x1b[31mRED\\x1b[2J\\x1b]0;t\\x07 '
    "| [red]x[/red] [/nope] ![i](j) :smile: `code`\\nsecond line \\u202eback\\u2066 caf\\xe9\\r"
)
FORMULAS = ["=1+1", "@SUM(A1)", "+1", "-cmd|' /C calc'!A0", " =1+1", "=cmd|' /C calc'!A0 <b>\x1b[31m"]


def printed(table: Table, width: int = 110) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False).print(terminal(table, width=width))
    return stream.getvalue()


def everywhere(text: str) -> Table:
    """A table with one text in every place that takes text."""
    columns = [Column("name", "name", code=True), Column("text", "text", wrap=True), Column("x", "x", numeric=True)]
    return Table(columns, [[Cell(text), Cell(text, bold=True), Cell(-1.5, ("-1.50", "[-2, -1]"))]], text, [text])


@pytest.mark.parametrize("write", [lambda table: printed(table, 1000), markdown, csv_text, latex])
def test_no_format_lets_control_characters_through(write: object) -> None:
    text = write(everywhere(HOSTILE))  # type: ignore[operator]
    assert not {character for character in text if not character.isprintable()} - {"\n"}
    text.encode("utf-8")


def test_what_is_made_visible_is_nothing_but_that() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible("plain ↑ 名前 ü") == "plain ↑ 名前 ü"


def test_the_terminal_interprets_nothing() -> None:
    text = printed(everywhere(HOSTILE), 1000)
    assert text.count(SHOWN) == 4
    assert "x[bold]" in printed(listing(["name"], [["x[bold]"]]))
    assert "shot[/x].png" in printed(listing(["name"], [["shot[/x].png"]]))


def test_markdown_interprets_nothing() -> None:
    text = markdown(everywhere(HOSTILE))
    assert "<script" not in text
    lines = text.splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == 3
    row = next(line for line in lines if "-1.50" in line)
    assert row.replace("\\|", "").count("|") == 4
    assert "-1.50 [-2, -1]" in row
    assert r"\[red\]x\[/red\]" in row
    assert r"!\[i\](j)" in row
    assert r"\`code\`" in row
    assert "`plain-name`" in markdown(everywhere("plain-name"))
    assert "``" not in markdown(everywhere("a`b"))


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_spreadsheet_finds_no_formula(formula: str) -> None:
    header, row = csv.reader(io.StringIO(csv_text(everywhere(formula))))
    assert header == ["name", "text", "x"]
    assert row == ["'" + visible(formula), "'" + visible(formula), "-1.5"]


def test_latex_runs_nothing() -> None:
    text = latex(everywhere(HOSTILE))
    assert r"\input" not in text
    assert r"\textbackslash{}input\{/etc/passwd\}" in text
    assert "$-$1.50" in text


def test_a_csv_keeps_every_digit_and_leaves_missing_cells_empty() -> None:
    rows = [[Cell(0.1 + 0.2, ("0.3",)), Cell(None), Cell(4_000_000, ("4M",)), Cell(float("inf"), ("∞",))]]
    assert csv_text(listing(["a", "b", "c", "d"], rows)) == "a,b,c,d\n0.30000000000000004,,4000000,inf\n"


def test_a_terminal_prints_a_block_below_the_other_and_leaves_out_rows_without_anything_in_it() -> None:
    columns = [Column("name"), Column("a", block=1), Column("b", block=2), Column("c", block=None), Column(key="d")]
    rows = [[Cell(name), Cell(1.0), Cell(b), Cell("hidden"), Cell("hidden")] for name, b in (("one", 2.0), ("two", None))]
    text = printed(Table(columns, rows))
    assert [line.split() for line in text.splitlines() if line.strip() and "─" not in line] == [
        ["name", "a"],
        ["one", "1.0"],
        ["two", "1.0"],
        ["name", "b"],
        ["one", "2.0"],
    ]


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="2 columns"):
        Table([Column("a"), Column("b")], [[Cell("x")]])


def test_marks_stand_at_the_label_and_below_and_travel_with_the_figures() -> None:
    table = results_table([result("a", marks=["draws its own random numbers"]), result("b", marks=[])])
    assert "a †" in printed(table)
    assert "b †" not in printed(table)
    assert "| `a` † |" in markdown(table)
    for text in (printed(table), markdown(table)):
        assert "† a: draws its own random numbers." in text
    first, second = list(csv.DictReader(io.StringIO(csv_text(table))))
    assert first["decoder"] == "a"
    assert first["caveat"].endswith("; draws its own random numbers")
    assert "random" not in second["caveat"]


def test_chosen_columns_come_in_their_order_with_what_the_csv_has_beside_them() -> None:
    rows = [result("vae", intervals={"rfid": [50.0, 70.0], "psnr": [24.0, 26.0]}, octaves_db={"0": -3.0})]
    table = results_table(rows)
    chosen = select(table, ["gflops", "rfid", "n"])
    assert csv_text(chosen).splitlines()[0] == "decoder,gflops,rfid,n,rfid_low,rfid_high,caveat"
    assert markdown(chosen).splitlines()[0] == "| decoder | GFLOPs ↓ | rFID ↓ | n |"
    words = printed(chosen).split()
    assert words[:6] == ["decoder", "GFLOPs", "↓", "rFID", "↓", "n"]  # one block, and n too
    notes = " ".join(chosen.notes)
    assert "50k figures" in notes
    assert "Top octave" in " ".join(table.notes)
    assert "Top octave" not in notes
    assert "Peak MiB" not in notes
    assert select(table, ["rfid", "rfid"]) == select(table, ["rfid"])


@pytest.mark.parametrize(
    ("key", "near"), [("rfd", "'rfid'"), ("rfid_low", "'rfid'"), ("ms_per_image_b2", "ms_per_image_b1"), ("", "")]
)
def test_a_column_that_is_not_there_is_refused_with_the_nearest(key: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown column {key!r}.*{near}"):
        select(results_table([result("vae", intervals={"rfid": [50.0, 70.0]})]), [key])


def test_columns_are_checked_before_anything_is_measured() -> None:
    check_columns(["rfid", "rfid_infinity", "top_octave_db", "ms_per_image_b4", "peak_memory_mb", "n"], (), (4,))
    check_columns(["dists"], ("dists",), ())
    for key in ("dists", "ms_per_image_b1", "nonsense"):
        with pytest.raises(UnknownNameError, match=key):
            check_columns([key], (), (4,))
