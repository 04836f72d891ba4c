"""LaTeX: escaped, balanced, as many cells a row as columns, best values bold, caveats below."""

from __future__ import annotations

import re
from typing import Any

import pytest
from harness.report.latex import latex_table, tex, to_latex

from harness.report.table import caveats, columns
from tests.harness.report.rows import result

AWKWARD: dict[str, Any] = {"n": 15, "kid": -0.0012, "peak_memory_mb": None, "trained_on": "imagenette_train & 50% #1 {x}"}


def awkward(decoder: str, **changes: Any) -> dict[str, Any]:
    """A row with all that LaTeX has to escape."""
    return result(decoder, **(AWKWARD | changes))


RESULTS = [
    awkward("identity", psnr=float("inf"), gflops=None, parameters=0),
    awkward("my_own-decoder", rfid=1234.5),
    awkward("vae", psnr=24.0, intervals={"rfid": [50.0, 70.0]}),
]


def body(latex: str) -> list[list[str]]:
    """Cells of the header and of every row; an escaped & separates nothing."""
    inside = latex[latex.index(r"\toprule") : latex.index(r"\end{tabular}")]
    lines = [line.removesuffix(r" \\") for line in inside.splitlines() if line.endswith(r"\\")]
    return [re.split(r" (?<!\\)& ", line) for line in lines]


def check_balanced(latex: str) -> None:
    """Braces close, mathematics ends, environments end, nothing but ASCII is left."""
    plain = re.sub(r"\\[\\{}$]", "", latex)
    depth = 0
    for character in plain:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert plain.count("$") % 2 == 0
    assert re.findall(r"\\begin\{(\w+)\}", latex) == re.findall(r"\\end\{(\w+)\}", latex) == ["tabular"]
    assert latex.isascii()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 50% #1 {x} $", r"a\_b \& 50\% \#1 \{x\} \$"),
        ("C:\\x~^`", r"C:\textbackslash{}x\textasciitilde{}\textasciicircum{}\textasciigrave{}"),
        ("rFID ↓, PSNR ↑", r"rFID $\downarrow$, PSNR $\uparrow$"),
        ("60.0 ± 1.2", r"60.0 $\pm$ 1.2"),
        ("<0.001", "$<$0.001"),
        ("-0.001 [-0.002, -0.001]", "$-$0.001 [$-$0.002, $-$0.001]"),
        ("-∞", r"$-$$\infty$"),
        ("ms-onestep, 2026-11-25, f8-4", "ms-onestep, 2026-11-25, f8-4"),
        ("msbench run --decoder vae --n -1", "msbench run -{}-decoder vae -{}-n $-$1"),
        ("–", "--"),
    ],
)
def test_text_is_escaped(text: str, expected: str) -> None:
    assert tex(text) == expected


def test_every_ascii_character_is_printed_or_escaped() -> None:
    everything = "".join(chr(code) for code in range(32, 127))
    check_balanced(latex_table(["a"], ["l"], [[tex(everything)]]))
    assert not re.search(r"(?<!\\)[%&#_]", tex(everything))


def test_the_table_has_every_column_in_every_row() -> None:
    latex = to_latex(RESULTS)
    check_balanced(latex)
    rows = body(latex)
    width = len(columns(RESULTS)) + 4  # decoder, dataset, n and trained on
    assert [len(row) for row in rows] == [width] * 4
    (aligns,) = re.findall(r"\\begin\{tabular\}\{([lcr]+)\}", latex)
    assert len(aligns) == width
    assert rows[0][:5] == ["decoder", "dataset", "n", r"rFID $\downarrow$", r"KID $\downarrow$"]
    assert rows[2][0] == r"\texttt{my\_own-decoder}"
    assert rows[2][-1] == r"imagenette\_train \& 50\% \#1 \{x\}"


def test_the_best_is_bold_and_identity_is_not_ranked() -> None:
    table = {row[0]: dict(zip(body(to_latex(RESULTS))[0], row, strict=True)) for row in body(to_latex(RESULTS))}
    identity, own, vae = (table[rf"\texttt{{{name}}}"] for name in ("identity", r"my\_own-decoder", "vae"))
    assert identity[r"PSNR $\uparrow$"] == r"$\infty$"
    assert identity[r"GFLOPs $\downarrow$"] == "--"
    assert own[r"PSNR $\uparrow$"] == r"\textbf{25.00}"
    assert vae[r"PSNR $\uparrow$"] == "24.00"
    assert vae[r"rFID $\downarrow$"] == r"\textbf{60.0 [50.0, 70.0]}"
    assert own[r"rFID $\downarrow$"] == "1,234"
    assert vae[r"KID $\downarrow$"] == r"\textbf{$-$0.0012}"


def test_the_caveats_are_footnotes_below() -> None:
    below = to_latex(RESULTS).split(r"\end{tabular}")[1]
    assert "rFID and KID are not comparable with 50k figures" in below
    assert below.count(r"\footnotesize") == len(caveats(RESULTS)) == 4
    large = to_latex([awkward("vae", dataset="imagenet-val", n=50_000, rfid=1.0)], demo_datasets=())
    assert "comparable" not in large


def test_no_results_is_a_table_without_rows() -> None:
    latex = to_latex([])
    check_balanced(latex)
    assert len(body(latex)) == 1


def test_a_row_that_starts_with_a_bracket_is_no_option_of_the_line_break() -> None:
    latex = latex_table(["a", "b"], ["l", "r"], [["x", "1"], ["[y]", "2"], ["*", "3"]])
    assert "\n{}[y] & 2" in latex
    assert "\n{}* & 3" in latex


def test_tables_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 columns with 1 cells"):
        latex_table(["a", "b"], ["l", "r"], [["x"]])
    with pytest.raises(ValueError, match="2 columns with 3 cells"):
        latex_table(["a", "b"], ["l", "r", "r"], [])
    with pytest.raises(ValueError, match="only l, c and r"):
        latex_table(["a"], ["p"], [])
