"""Comparisons as text: digits, signs, notes, and the same content in every format."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from harness.compare.compare import compare
from harness.compare.comparison import Comparison
from harness.report.comparison import (
    comparison_documents,
    comparison_tables,
    digits,
    signed,
    with_differences,
)
from harness.report.results import results_table
from harness.report.table import csv_text, latex, markdown, terminal
from tests.harness.conftest import MakeRun


@pytest.fixture
def comparison(tmp_path: Path, make_run: MakeRun) -> Comparison:
    calls = {"vae": [30.0] * 12, "fast_one": [10.0] * 12}
    return compare([(make_run(tmp_path / "a", {"vae": 0.0, "fast_one": 0.1}, calls=calls, photographs=20), None)])


@pytest.mark.parametrize(
    ("value", "like", "text"),
    [
        (0.08217, 0.039, "0.082"),
        (-13.2, 32.0, "-13"),
        (1234.5, 0.4, "1,234.50"),
        (0.5, 0.0, "0.5"),
        (math.inf, 0.1, "∞"),
        (math.nan, 0.1, "–"),
        (1e-9, 1e-9, "0.000000"),
    ],
)
def test_digits_follow_the_interval(value: float, like: float, text: str) -> None:
    assert digits(value, like) == text


def test_differences_show_their_sign() -> None:
    assert signed(0.08217, 0.039) == "+0.082"
    assert signed(-0.08217, 0.039) == "-0.082"


def test_the_terminal_shows_metric_verdict_and_notes(comparison: Comparison) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=110)
    console.print(terminal(*comparison_tables(comparison), width=110))
    text = stream.getvalue()
    for word in (
        "Differences to vae",
        "LPIPS ↓",
        "worse",
        "Holm",
        "stated in the protocol",
        "60 images of 20 photographs",
        "3×",
    ):
        assert word in text


def test_markdown_rows_have_one_width(comparison: Comparison) -> None:
    lines = [line for line in "".join(map(markdown, comparison_tables(comparison))).splitlines() if line.startswith("|")]
    differences = lines[: 2 + len(comparison.comparisons)]
    assert {line.count("|") for line in differences} == {7}
    assert sum("worse" in line for line in differences) >= 3


def test_latex_is_balanced_and_escaped(comparison: Comparison) -> None:
    text = "".join(map(latex, comparison_tables(comparison)))
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    assert r"fast\_one" in text
    assert "fast_one" not in text


def test_csv_carries_differences_beside_the_figures(comparison: Comparison) -> None:
    frame = pd.read_csv(io.StringIO(csv_text(with_differences(results_table(comparison.table_rows()), comparison))))
    assert list(frame["decoder"]) == ["vae", "fast_one"]
    assert pd.isna(frame["lpips_diff"][0])
    assert frame["baseline"][1] == "vae"
    assert frame["lpips_diff"][1] == pytest.approx(frame["lpips"][1] - frame["lpips"][0])
    assert frame["lpips_diff_low"][1] < frame["lpips_diff"][1] < frame["lpips_diff_high"][1]
    assert frame["lpips_verdict"][1] == "worse"
    assert "50k" in frame["caveat"][1]
    assert list(frame["protocol_hash"]) == [record.protocol_hash for record in comparison.records] * len(frame)
    assert (list(frame["device"]), list(frame["dtype"])) == (["cpu"] * 2, ["fp32"] * 2)


def test_json_has_the_promised_keys(comparison: Comparison) -> None:
    document = comparison_documents(comparison)
    assert {"metric", "decoder", "baseline", "diff", "ci", "verdict"} <= set(document["comparisons"][0])
    assert document["margins_after"] is False
