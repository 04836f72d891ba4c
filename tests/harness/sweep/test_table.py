"""The table of a sweep: ratios between cells, rows without figures, and plots that have nothing to show."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.cost.cost import CostCell
from harness.decoder import DecoderOptions
from harness.registry import build_decoder
from harness.sweep.plan import SweepCell
from harness.sweep.plots import write_plots
from harness.sweep.sweep import MeasuredCell, Sweep
from harness.sweep.table import sweep_frame
from harness.sweep.weights import Fit
from tests.harness.sweep.sweep_requests import cost, request, timed


def cell(
    decoder: str, k: int, n: int, gflops: float, times: list[CostCell], weights: Any = "random", **changes: Any
) -> MeasuredCell:
    spec = build_decoder("ms-diffusion", DecoderOptions(weights="random", scales=k, steps=max(n, k))).spec
    fit = Fit(decoder, weights, None, spec, "untrained")
    figures = {
        "spec": {**asdict(spec), **changes},
        "quality": None,
        "quality_reason": "untrained",
        "cost": cost(gflops, *times),
    }
    return MeasuredCell(SweepCell(decoder, k, n, changes.pop("baseline", False), fit, None), figures)


def frame(*cells: MeasuredCell) -> pd.DataFrame:
    return sweep_frame(Sweep(request(Path()), 64, cells, 0)).set_index(["decoder", "scales", "steps", "batch"])


def test_ratios_are_those_of_the_cells() -> None:
    rows = frame(
        cell("ms-diffusion", 1, 6, 60.0, [timed(120.0), timed(400.0, 8)]),
        cell("ms-diffusion", 1, 12, 120.0, [timed(240.0), timed(800.0, 8)]),
        cell("ms-diffusion", 3, 12, 40.0, [timed(100.0), timed(300.0, 8)]),
    )
    three = rows.loc[("ms-diffusion", 3, 12)]
    assert three["ms_per_image"].tolist() == [100.0, 37.5]
    assert three["measured_speedup"].tolist() == [2.4, pytest.approx(800 / 300)]
    assert three["counted_speedup"].tolist() == [3.0, 3.0]
    assert three["theory_speedup"].tolist() == pytest.approx([3 / (1 + 1 / 4 + 1 / 16)] * 2)
    assert three["ideal_speedup"].tolist() == pytest.approx([12 / (4 + 4 / 4 + 4 / 16)] * 2)
    few = rows.loc[("ms-diffusion", 1, 6, 1)]
    assert (few["measured_speedup"], few["flop_ratio"], few["time_ratio"]) == (1.0, 2.0, 2.0)
    assert three["time_ratio"].tolist() == three["measured_speedup"].tolist()
    assert rows["quality"].isna().all()
    assert set(rows["quality_reason"]) == {"untrained"}


def test_networks_of_different_sizes_make_no_speedup() -> None:
    rows = frame(
        cell("ms-diffusion", 1, 12, 120.0, [timed(240.0)], parameters=1_000_000),
        cell("ms-diffusion", 2, 12, 60.0, [timed(120.0)], parameters=1_900_000),
        cell("ms-diffusion", 3, 12, 40.0, [timed(100.0)], "trained", parameters=2_100_000),
        cell("ms-diffusion", 6, 12, 20.0, [timed(50.0)], parameters=9_900_000),
    )
    assert rows["measured_speedup"].isna().tolist() == [False, False, True, False]  # random ones are of one preset
    assert rows["flop_ratio"].isna().tolist() == [False, False, True, False]


def test_cells_that_are_counted_alone_have_their_ratio() -> None:
    rows = frame(cell("ms-diffusion", 1, 12, 120.0, []), cell("ms-diffusion", 3, 12, 40.0, []))
    assert rows["counted_speedup"].tolist() == [1.0, 3.0]
    assert (set(rows["status"]), rows["measured_speedup"].isna().all()) == ({"ok"}, True)


def test_a_batch_without_memory_has_a_row_without_a_time(tmp_path: Path) -> None:
    lacking = CostCell(8, "out of memory", None, reason="no room")
    rows = frame(cell("ms-diffusion", 1, 4, 10.0, [timed(1.0), lacking]))
    assert rows["status"].tolist() == ["ok", "out of memory"]
    assert rows["ms_per_image"].isna().tolist() == [False, True]
    assert rows["reason"].iloc[1] == "no room"


def test_a_disturbed_time_is_marked() -> None:
    busy = replace(timed(1.0), disturbed=True, reason="disturbed: its threads waited for a CPU 31 % of the time")
    rows = frame(cell("ms-diffusion", 1, 4, 10.0, [busy, timed(1.0, 8)]))
    assert rows["disturbed"].tolist() == [True, False]
    assert "31 %" in rows["reason"].iloc[0]


@pytest.mark.parametrize("disturbed", [0, 1])
def test_no_ratio_of_times_has_a_disturbed_side(disturbed: int) -> None:
    """K = 1 and K = 3, either of them disturbed: FLOPs keep their ratio."""
    times = [replace(timed(ms), disturbed=place == disturbed) for place, ms in enumerate((30.0, 10.0))]
    rows = frame(cell("ms-diffusion", 1, 12, 120.0, [times[0]]), cell("ms-diffusion", 3, 12, 40.0, [times[1]]))
    assert rows["counted_speedup"].tolist() == rows["flop_ratio"].tolist() == [1.0, 3.0]
    for name in ("measured_speedup", "time_ratio"):
        assert rows[name].isna().tolist() == [disturbed == 0, True]


def test_plots_that_cannot_be_drawn_are_named(tmp_path: Path) -> None:
    rows = sweep_frame(Sweep(request(tmp_path), 64, (cell("ms-diffusion", 2, 4, 10.0, [timed(1.0)]),), 0))
    written, omitted = write_plots(rows, tmp_path)
    assert written == []
    assert [line.split(":")[0] for line in omitted] == [
        "no speed-up plot of ms-diffusion",
        "no plot of FLOPs against time",
        "no plot of rFID against time",
        "no plot of LPIPS against time",
        "no plot of energy",
    ]
