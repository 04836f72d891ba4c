"""The tables of `msbench speed` say what is in the document, and fit a terminal."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from harness.report.table import significant, terminal
from harness.speed.report import speed_tables


def cell(decoder: str, scope: str = "decode", mode: str = "eager", **values: Any) -> dict[str, Any]:
    names = "reason median_ms p10_ms p90_ms images_per_s gflops ratio_to_first flop_ratio_to_first peak_memory_mb compile_s"
    names += " cold_ms achieved_gflops_per_s mfu achieved_gb_per_s energy_j_per_image power images_per_call"
    place = {"batch": 8, "mode": mode, "dtype": "fp32", "scope": scope, "resolution": 256, "cores": 1}
    return {**dict.fromkeys(names.split()), "decoder": decoder, "status": "ok", "flags": [], **place, **values}


def document(**changes: Any) -> dict[str, Any]:
    cells = [
        cell("diffusion", median_ms=6000.0, p10_ms=5900.0, p90_ms=6100.0, gflops=223.0, ratio_to_first=1.0),
        cell("diffusion", "end-to-end", median_ms=6123.0),
        cell("ms-onestep", median_ms=205.0, p10_ms=200.0, p90_ms=211.0, ratio_to_first=29.3, mfu=0.512, cold_ms=8770.0),
        cell("ms-onestep", "end-to-end", median_ms=207.0),
        cell("ms-onestep", mode="cudagraph", status="unsupported", reason="needs a CUDA device"),
        cell(
            "diffusion", mode="compile", median_ms=5000.0, p10_ms=4900.0, p90_ms=5100.0, compile_s=61.0, flags=["not settled"]
        ),
    ]
    best = {"batch": 8, "decoder": "ms-onestep", "mode": "eager", "dtype": "fp32", "scope": "decode", "resolution": 256}
    best |= {"cores": 1, "ms_per_image": 25.6, "ratio_to_first": 24.4, "flop_ratio_to_first": 35.9, "share_of_flop_ratio": 0.68}
    best |= {"side_by_side": True, "disturbed": False}
    floor = {"batch": 8, "mode": "eager", "dtype": "fp32", "scope": "decode", "resolution": 256, "cores": 1, "floor": 0.034}
    whole = {"cells": cells, "fastest": [best], "noise_floor": [floor], "notes": ["a note"], "status": "complete"}
    return {**whole, "device": "cpu", "contestants": [{"label": "diffusion"}], **changes}


def shown(whole: dict[str, Any], width: int = 100) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(terminal(*speed_tables(whole), width=width))
    return console.export_text()


def test_everything_measured_is_shown() -> None:
    text = shown(document())
    for words in ("cpu, 256 px, 1 core", "6,000", "(5,900–6,100)", "6,123", "223", "29.3", "3.4 %", "51.2 %", "8.77", "61.0"):
        assert words in text
    assert "own fastest mode, timed in the same turns" in text
    assert "68.0 %" in text
    assert "unsupported: ms-onestep (batch 8, cudagraph, fp32): needs a CUDA device" in text
    assert "not settled: diffusion (batch 8, compile, fp32)" in text
    assert "as fast as diffusion" in text
    assert "a note" in text
    assert "NVML" in text
    assert "…" not in text  # nothing is cut off


def test_a_disturbed_time_is_named_below_the_fastest() -> None:
    whole = document()
    whole["fastest"][0] |= {"disturbed": True, "ratio_to_first": None}
    assert "disturbed by other work: ms-onestep (batch 8, eager, fp32)" in shown(whole)
    assert "disturbed by" not in shown(document())


def test_one_mode_needs_no_second_table_and_an_ended_budget_is_said() -> None:
    whole = document(status="incomplete")
    whole["cells"] = whole["cells"][:4]
    text = shown(whole)
    assert "fastest mode" not in text
    assert "budget ended" in text


def test_markup_in_names_is_text() -> None:
    whole = document()
    whole["cells"][0]["decoder"] = "[bold]x"
    assert "[bold]x" in shown(whole)


def test_figures_have_three_digits() -> None:
    assert [significant(value) for value in (0.1234, 1.234, 12.34, 123.4, 1234.5)] == ["0.123", "1.23", "12.3", "123", "1,234"]
