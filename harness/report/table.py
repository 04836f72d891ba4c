"""One table for people and programs: the terminal (rich), Markdown, CSV and LaTeX (booktabs).

The writers are the one place where text from outside (names, paths, training data) is made harmless for its format: control
characters and line ends become visible escapes everywhere, and what a format would interpret is escaped. Numbers are
the harness's own and stay as they are.
"""

from __future__ import annotations

import csv
import html
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from harness.errors import UnknownNameError

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

MISSING = "–"
"""How a cell without a value is shown."""
_LEAST = 10  # columns that a terminal leaves to text that it may break


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    header: str = ""
    """what stands above it, broken at a line end on the terminal; empty = the column is in the CSV alone"""
    key: str = ""
    """its name in the CSV; empty = it is not there"""
    numeric: bool = False
    """aligned to the right"""
    block: int | None = 0
    """the terminal prints a table a block, or more where it is narrow, with the columns of block 0 in each; None = not there"""
    wrap: bool = False
    """a terminal may break its text"""
    code: bool = False
    """names: set as code in Markdown and LaTeX"""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: text from outside, or a number with the text that shows it."""

    value: str | float | None
    """what the CSV holds, at full precision; a string is text from outside, None is missing"""
    shown: tuple[str, ...] = ()
    """what people read, in parts that the terminal puts below each other; empty = the value as it is"""
    bold: bool = False
    """the best of its column, or what needs attention"""

    def parts(self) -> tuple[str, ...]:
        """What people read."""
        return self.shown or (MISSING if self.value is None else str(self.value),)


@dataclass(frozen=True, slots=True)
class Table:
    """A table and what must be known about it."""

    columns: Sequence[Column]
    """from left to right"""
    rows: Sequence[Sequence[Cell]]
    """as many cells a row as columns"""
    title: str = ""
    """what it shows; may be empty"""
    notes: Sequence[str] = ()
    """below it, one sentence each"""
    grouped: bool = False
    """rows of one first cell belong together: a terminal shows it once"""

    def __post_init__(self) -> None:
        """Refuse rows of another width."""
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"a table of {len(self.columns)} columns with {[len(row) for row in self.rows]} cells in its rows")

    def has(self, key: str) -> bool:
        """People see a column of this key."""
        return any(column.header and column.key == key for column in self.columns)


def listing(
    headers: Sequence[str],
    rows: Iterable[Sequence[str | Cell | None]],
    title: str = "",
    notes: Sequence[str] = (),
    wrap: Sequence[str] = (),
    grouped: bool = False,
    keys: int = 1,
) -> Table:
    """A plain table: strings are text from outside, a column with numbers is aligned right, `wrap` names what may break.

    The first `keys` columns tell rows apart; a narrow terminal repeats them.
    """
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    numeric = [any(isinstance(row[place].value, (int, float)) for row in cells) for place in range(len(headers))]
    columns = [
        Column(name, name, right, int(place >= keys), name in wrap)
        for place, (name, right) in enumerate(zip(headers, numeric, strict=True))
    ]
    return Table(columns, cells, title, notes, grouped)


def select(table: Table, keys: Sequence[str]) -> Table:
    """The first column and those with these keys, in this order; what the CSV alone has, and notes, stay unless theirs go.

    Raises:
        UnknownNameError: a key is that of no column that people read.
    """
    shown = {column.key: place for place, column in enumerate(table.columns) if column.header and column.key}
    first, *known = shown
    for key in keys:
        if key not in known:
            raise UnknownNameError("column", key, known)
    chosen = dict.fromkeys([first, *keys])
    gone = tuple(f"{key}_" for key in known if key not in chosen)
    kept = [place for place, one in enumerate(table.columns) if not one.header and not one.key.startswith(gone)]
    places = [*(shown[key] for key in chosen), *kept]
    columns = [replace(table.columns[place], block=int(table.columns[place].key != first)) for place in places]
    titles = tuple(f"{' '.join(table.columns[shown[key]].header.split()).rstrip(' ↑↓')}:" for key in known if key not in chosen)
    notes = [note for note in table.notes if not note.startswith(titles)]
    return replace(table, columns=columns, rows=[[row[place] for place in places] for row in table.rows], notes=notes)


def significant(value: float) -> str:
    """Three figures from 1 to 99.9, whole numbers from 100, three decimals below 1."""
    if 0 < abs(value) < 0.0005:
        return "<0.001"
    decimals = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2 if abs(value) >= 0.9995 else 3
    return f"{value:,.{decimals}f}"


def number(value: float | None, form: Callable[[float], str] = significant) -> Cell:
    """A number as `form` writes it; missing where it is None or NaN."""
    return Cell(None) if value is None or math.isnan(value) else Cell(value, (form(value),))


def visible(text: str) -> str:
    """`text` on one line: control characters, line ends, marks of direction and half characters as escapes such as \\x1b."""

    def escaped(character: str) -> str:
        if "\udc80" <= character <= "\udcff":  # a byte of a file name that is no UTF-8
            return f"\\x{ord(character) - 0xDC00:02x}"
        return character.encode("unicode_escape").decode()

    return "".join(character if character.isprintable() else escaped(character) for character in text)


# The terminal


def terminal(*tables: Table, width: int) -> Group:
    """For `console.print` on `width` columns: titles, blocks and notes of tables below each other."""
    from rich.console import Group
    from rich.text import Text

    found: list[RenderableType] = []
    for table in tables:
        found += [Text()] * bool(found and table.title)
        found += [Text(visible(table.title), style="italic")] * bool(table.title)
        for place, columns in enumerate(_blocks(table, width)):
            found.append(_grid(table, columns, everybody=place == 0))
        found += [Text(visible(note), style="dim") for note in table.notes]
    return Group(*found)


def _blocks(table: Table, width: int) -> list[list[int]]:
    """Which columns stand in one table: those of a block, or as many of them as `width` holds beside those of block 0."""
    shown = [place for place, column in enumerate(table.columns) if column.header and column.block is not None]
    widths = {}
    for place in shown:
        column = table.columns[place]
        lines = [*column.header.split("\n"), *(visible(part) for row in table.rows for part in row[place].parts())]
        needed = max(map(len, lines))
        widths[place] = 2 + (min(needed, _LEAST) if column.wrap else needed)
    keys = [place for place in shown if table.columns[place].block == 0]
    found: list[list[int]] = []
    for place in (place for place in shown if place not in keys):
        new = not found or table.columns[found[-1][-1]].block != table.columns[place].block
        if new or sum(widths[one] for one in (*found[-1], place)) > width:
            found.append([*keys])
        found[-1].append(place)
    return found or [keys] * bool(keys)


def _grid(table: Table, places: Sequence[int], everybody: bool) -> RenderableType:
    """The rich table of some columns; rows that have nothing in them are left out unless `everybody` is to be shown."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    for column in (table.columns[place] for place in places):
        header = Text("\n".join(map(visible, column.header.split("\n"))))
        side: Literal["left", "right"] = "right" if column.numeric else "left"
        least = _LEAST if column.wrap else None
        grid.add_column(header, justify=side, no_wrap=not column.wrap, overflow="fold", min_width=least)
    before: tuple[str, ...] | None = None
    for row in table.rows:
        if not everybody and all(row[place].value is None for place in places if table.columns[place].block):
            continue
        cells = [Text("\n".join(map(visible, row[place].parts())), "bold" if row[place].bold else "") for place in places]
        if table.grouped and row[0].parts() == before:
            cells[0] = Text()
        elif table.grouped and before:
            grid.add_section()
        before = row[0].parts()
        grid.add_row(*cells)
    return grid


def _people(table: Table) -> tuple[list[Column], list[list[Cell]]]:
    """The columns that people read, and their cells."""
    shown = [place for place, column in enumerate(table.columns) if column.header]
    return [table.columns[place] for place in shown], [[row[place] for place in shown] for row in table.rows]


# Markdown


def markdown(table: Table) -> str:
    """A GitHub table under its bold title, notes as a list below; ends with a newline."""
    columns, rows = _people(table)
    lines = [[markdown_text(column.header.replace("\n", " ")) for column in columns]]
    lines.append(["--:" if column.numeric else ":--" for column in columns])
    lines += [[_markdown_cell(*pair) for pair in zip(columns, row, strict=True)] for row in rows]
    head = f"**{markdown_text(table.title)}**\n\n" if table.title else ""
    body = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    return head + body + "\n" * bool(table.notes) + "".join(f"- {markdown_text(note)}\n" for note in table.notes)


def markdown_text(text: str) -> str:
    """Text from outside, of which Markdown and HTML interpret nothing."""
    return re.sub(r"[\\`*\[\]|~]", r"\\\g<0>", html.escape(visible(text), quote=False))


def _markdown_cell(column: Column, cell: Cell) -> str:
    text = " ".join(cell.parts())
    if isinstance(cell.value, str):
        name = cell.value if column.code else ""
        escaped, rest = markdown_text(name), markdown_text(text.removeprefix(name))
        text = (f"`{name}`" if name and escaped == name else escaped) + rest  # a mark stands beside the code
    return f"**{text}**" if cell.bold else text


# CSV


def csv_text(table: Table) -> str:
    """The columns with a key at full precision: empty where a value is missing, "inf" where it is infinite."""
    shown = [place for place, column in enumerate(table.columns) if column.key]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns[place].key for place in shown)
    writer.writerows([_inert(row[place].value) for place in shown] for row in table.rows)
    return stream.getvalue()


def _inert(value: str | float | None) -> str | float | None:
    """A text that a spreadsheet does not take for a formula."""
    if not isinstance(value, str):
        return value
    return "'" * value.lstrip().startswith(("=", "+", "-", "@")) + visible(value)


# LaTeX

_MATHEMATICS = r"""↑ \uparrow ↓ \downarrow → \rightarrow ± \pm × \times · \cdot ≤ \leq ≥ \geq ≈ \approx − - ∞ \infty
    ε \varepsilon Δ \Delta α \alpha ² ^2 ‖ \| √ \surd † \dagger < < > > | |"""
_TEXT = r"""\ \textbackslash{} ~ \textasciitilde{} ^ \textasciicircum{} ` \textasciigrave{} – -- — --- … \dots{}
    { \{ } \} _ \_ % \% & \& # \# $ \$"""


def _pairs(words: Sequence[str]) -> dict[str, str]:
    return dict(zip(words[::2], words[1::2], strict=True))


_CHARACTERS = _pairs(_TEXT.split()) | {sign: f"${text}$" for sign, text in _pairs(_MATHEMATICS.split()).items()}
# A minus sign before a number, and the first of two hyphens, which TeX would join to a dash.
_TOKEN = re.compile(r"(?P<minus>(?<![\w-])-(?=[\d.∞]))|(?P<hyphen>-(?=-))|[" + re.escape("".join(_CHARACTERS)) + "]")


def tex(text: str) -> str:
    """`text` as LaTeX that prints it: special characters escaped, arrows and signs as mathematics, option dashes kept apart."""

    def replaced(match: re.Match[str]) -> str:
        if match["minus"]:
            return "$-$"
        return "-{}" if match["hyphen"] else _CHARACTERS[match[0]]

    return _TOKEN.sub(replaced, visible(text))


def latex(table: Table) -> str:
    """A captioned booktabs table (`\\usepackage{booktabs}`), its notes as small print below; ends with a newline."""
    columns, rows = _people(table)
    headers = [tex(column.header.replace("\n", " ")) for column in columns]
    body = [[_latex_cell(*pair) for pair in zip(columns, row, strict=True)] for row in rows]
    aligns = "".join("r" if column.numeric else "l" for column in columns)
    title = table.title or "Results"
    label = "-".join(re.findall(r"[a-z0-9]+", title.lower()))
    lines = [r"\begin{table}", r"\centering\small", rf"\caption{{{tex(title)}.}}", rf"\label{{tab:{label}}}"]
    lines += [rf"\begin{{tabular}}{{{aligns}}}", r"\toprule", _line(headers), r"\midrule", *map(_line, body)]
    lines += [r"\bottomrule", r"\end{tabular}", *(rf"\par\noindent{{\footnotesize {tex(note)}}}" for note in table.notes)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_cell(column: Column, cell: Cell) -> str:
    text = tex(" ".join(cell.parts()))
    text = rf"\texttt{{{text}}}" if column.code else text
    return rf"\textbf{{{text}}}" if cell.bold else text


def _line(cells: Sequence[str]) -> str:
    line = " & ".join(cells)
    # A bracket or star after the previous row's \\ would be read as its option.
    return ("{}" if line.startswith(("[", "*")) else "") + line + r" \\"
