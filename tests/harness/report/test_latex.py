"""LaTeX: escaped, balanced, as many cells a row as columns, best values bold, caveats below."""

from __future__ import annotations

import re
from typing import Any

import pytest

from harness.report.results import caveats, paper_columns, results_table
from harness.report.table import Table, latex, listing, select, tex
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


def to_latex(results: list[dict[str, Any]], demo_datasets: tuple[str, ...] = ("photos",)) -> str:
    return latex(results_table(results, demo_datasets=demo_datasets))


def body(text: str) -> list[list[str]]:
    """Cells of the header and of every row; an escaped & separates nothing."""
    inside = text[text.index(r"\toprule") : text.index(r"\end{tabular}")]
    lines = [line.removesuffix(r" \\") for line in inside.splitlines() if line.endswith(r"\\")]
    return [re.split(r" (?<!\\)& ", line) for line in lines]


def check_balanced(text: str) -> None:
    """Braces close, mathematics ends, environments end, nothing but ASCII is left."""
    plain = re.sub(r"\\[\\{}$]", "", text)
    depth = 0
    for character in plain:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert plain.count("$") % 2 == 0
    assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1] == ["table", "tabular"]
    assert text.isascii()


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
    check_balanced(latex(listing(["a"], [[everything]])))
    assert not re.search(r"(?<!\\)[%&#_]", tex(everything))


def test_the_table_has_every_column_in_every_row() -> None:
    text = to_latex(RESULTS)
    check_balanced(text)
    rows = body(text)
    width = sum(bool(column.header) for column in results_table(RESULTS).columns)
    assert [len(row) for row in rows] == [width] * 4
    (aligns,) = re.findall(r"\\begin\{tabular\}\{([lcr]+)\}", text)
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
    text = to_latex([])
    check_balanced(text)
    assert len(body(text)) == 1


def test_a_row_that_starts_with_a_bracket_is_no_option_of_the_line_break() -> None:
    text = latex(listing(["a", "b"], [["x", "1"], ["[y]", "2"], ["*", "3"]]))
    assert "\n{}[y] & 2" in text
    assert "\n{}* & 3" in text


def test_the_title_is_the_caption() -> None:
    text = latex(Table((), (), "50% of it, n = 3"))
    assert "\\caption{50\\% of it, n = 3.}\n\\label{tab:50-of-it-n-3}\n" in text
    assert text.index(r"\caption") < text.index(r"\begin{tabular}")
    assert r"\caption{Results.}" in latex(Table((), ()))


def test_a_paper_gets_eight_columns_at_most() -> None:
    every = {"spectral": 1.3, "latent_error": 0.1, "dists": 0.2, "rfid_infinity": 50.0, "octaves_db": {"0": -3.0}}
    table = results_table([awkward("vae", **every), awkward("jpeg", gflops=None)])
    assert len(table.columns) > 12
    narrow = select(table, paper_columns(table))
    (aligns,) = re.findall(r"\\begin\{tabular\}\{([lcr]+)\}", latex(narrow))
    assert len(aligns) == 8
    assert body(latex(narrow))[0][:3] == ["decoder", r"rFID $\downarrow$", r"PSNR $\uparrow$"]
    assert [column.key for column in narrow.columns if column.header] == [
        *("decoder", "rfid", "psnr", "ssim", "lpips", "ms_per_image_b1", "gflops", "parameters")
    ]


def test_a_paper_s_columns_hold_something_and_name_the_set_where_there_are_several() -> None:
    bare = [result("a", gflops=None, ms_per_image={}), result("b", dataset="folder", gflops=None, ms_per_image={})]
    keys = paper_columns(results_table(bare))
    assert keys[0] == "dataset"
    assert not {"gflops", "ms_per_image_b1"} & {*keys}
