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


_COMMANDS = r"""begin end centering small caption label toprule midrule bottomrule par noindent footnotesize texttt textbf dots
    textbackslash textasciitilde textasciicircum textasciigrave"""
_MATHEMATICS = "uparrow downarrow rightarrow pm times cdot leq geq approx infty varepsilon Delta alpha surd dagger |"
_LEXEME = re.compile(r"\\([A-Za-z]+|.)|([{}$&#%_^~])|[^\\{}$&#%_^~]+", re.DOTALL)


def check_balanced(text: str, columns: int | None = None) -> None:
    """What TeX asks of a table: environments, groups and mathematics nest, rows have one width, no special character is bare.

    Commands are those that the writer means; a text that made it write another, or end its own cell, is noticed.
    """
    opened, mathematics, row, widths = list[str](), False, 0, list[int]()
    inside = False  # between the first rule and the last
    assert "".join(match[0] for match in _LEXEME.finditer(text)) == text
    for match in _LEXEME.finditer(text):
        command, special = match[1], match[2]
        if command == "\\":
            assert (inside, mathematics, opened[-1]) == (True, False, "tabular"), "a row ends within a cell"
            widths.append(row + 1)
            row = 0
        elif command is not None and command.isalpha():
            assert command in (_MATHEMATICS if mathematics else _COMMANDS).split(), match[0]
            name = re.match(r"\{(\w+)\}", text[match.end() :])
            if command in ("begin", "end"):
                assert name is not None
                assert command == "begin" or opened.pop() == name[1]
                opened += [name[1]] * (command == "begin")
            inside = {"toprule": True, "bottomrule": False}.get(command, inside)
        elif command is not None:
            assert command in ("|" if mathematics else "{}_%&#$"), match[0]
        elif special == "$":
            mathematics = not mathematics
        elif special == "{":
            opened.append("{")
        elif special == "}":
            assert opened.pop() == "{"
        elif special == "&":
            assert (inside, mathematics, opened[-1]) == (True, False, "tabular"), "a bare & outside a row"
            row += 1
        else:
            assert special is None or (special == "^" and mathematics), f"a bare {special}"
        assert not (mathematics and opened[-1:] == ["table"])
    assert (opened, mathematics, row) == ([], False, 0)
    (aligns,) = re.findall(r"\\begin\{tabular\}\{([lcr]*)\}", text)
    assert set(widths) == {len(aligns) or 1}
    assert columns is None or len(aligns) == columns
    assert re.findall(r"\\begin\{(\w+)\}", text) == ["table", "tabular"]


HOSTILE = [
    r"\end{tabular}\end{table}\input{/etc/passwd}",
    r"a & b \\ c",
    "% gone }{ $x^2",
    "^^5cinput ~ #1 _",
    "<script>alert(1)</script>",
    "\u202egnp.exe\u2066 \x1b[31m\n\\begin{document}",
    "-- --- `id` '\"",
    "日本語 é ∞ ‖",
    "[0.5ex]",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_outside_is_text_wherever_it_stands(text: str) -> None:
    row = awkward(text, label=text, dataset=text, trained_on=text, marks=[text], rfid_warning=text)
    table = results_table([row, awkward("vae")], text, demo_datasets=(text,))
    written = latex(table)
    check_balanced(written, sum(bool(column.header) for column in table.columns))
    check_balanced(latex(listing([text, "b"], [[text, None], ["x", text]], text, [text])), 2)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x09\x0b-\x1f]", written)


@pytest.mark.parametrize(
    "broken",
    [r"\texttt{a & b}", "a_b", "50%", r"a & b & c \\", r"\input{x}", "{", "}", "$", r"\end{tabular}", r"\\", "#1", "~", "^2"],
)
def test_the_check_notices(broken: str) -> None:
    good = latex(listing(["a", "b"], [["x", "y"]]))
    check_balanced(good)
    with pytest.raises((AssertionError, IndexError)):
        check_balanced(good.replace("x &", f"{broken} &"))


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
