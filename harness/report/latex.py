"""Tables for a paper: a booktabs `tabular`, and below it what must be known about the figures.

The paper needs `\\usepackage{booktabs}`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.report.table import MISSING, Result, best_rows, caveats, columns, shown_name

_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "−": "$-$",
    "∞": r"$\infty$",
    "ε": r"$\varepsilon$",
    "Δ": r"$\Delta$",
    "α": r"$\alpha$",
    "²": "$^2$",
    "‖": r"$\|$",
    "√": r"$\surd$",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
}
# A minus sign before a number, and the first of two hyphens, which TeX would join to a dash.
_TOKEN = re.compile(r"(?P<minus>(?<![\w-])-(?=[\d.∞]))|(?P<hyphen>-(?=-))|[" + re.escape("".join(_CHARACTERS)) + "]")


def tex(text: str) -> str:
    """`text` as LaTeX that prints it: special characters escaped, arrows and signs as mathematics, option dashes kept apart."""

    def replaced(match: re.Match[str]) -> str:
        if match["minus"]:
            return "$-$"
        return "-{}" if match["hyphen"] else _CHARACTERS[match[0]]

    return _TOKEN.sub(replaced, text)


def latex_table(headers: Sequence[str], aligns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """A booktabs `tabular` with notes below it; ends with a newline.

    Args:
        headers, rows, notes: LaTeX throughout, so that a caller can mark cells; plain text goes through `tex` first.
        aligns: one of l, c, r a column.

    Raises `ValueError` where a row or `aligns` has not as many entries as `headers`, or an alignment is another letter.
    """
    wrong = [len(cells) for cells in (aligns, *rows) if len(cells) != len(headers)]
    if wrong:
        raise ValueError(f"a table of {len(headers)} columns with {wrong[0]} cells in a row")
    if not set(aligns) <= {"l", "c", "r"}:
        raise ValueError(f"alignments {''.join(aligns)!r}: only l, c and r are known")
    lines = [
        f"\\begin{{tabular}}{{{''.join(aligns)}}}",
        r"\toprule",
        _row(headers),
        r"\midrule",
        *(_row(cells) for cells in rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\noindent{{\footnotesize {note}}}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def to_latex(results: Sequence[Result], demo_datasets: Sequence[str] = ("photos",)) -> str:
    """The table of results for a paper: best values bold, the caveats below."""
    shown = columns(results)
    best = {column.key: best_rows(column, results) for column in shown}
    rows = []
    for index, result in enumerate(results):
        texts = [tex(column.text(result)) for column in shown]
        figures = [
            rf"\textbf{{{text}}}" if index in best[column.key] else text for column, text in zip(shown, texts, strict=True)
        ]
        count = f"{result['n']:,}" if result.get("n") else tex(MISSING)
        names = [rf"\texttt{{{tex(shown_name(result))}}}", tex(str(result.get("dataset") or MISSING)), count]
        rows.append([*names, *figures, tex(str(result.get("trained_on") or MISSING))])
    headers = [tex(header) for header in ("decoder", "dataset", "n", *(column.header for column in shown), "trained on")]
    aligns = ["l", "l", "r", *("r" for _ in shown), "l"]
    return latex_table(headers, aligns, rows, [tex(note) for note in caveats(results, demo_datasets)])


def _row(cells: Sequence[str]) -> str:
    line = " & ".join(cells)
    # A bracket or star after the previous row's \\ would be read as its option.
    return ("{}" if line.startswith(("[", "*")) else "") + line + r" \\"
