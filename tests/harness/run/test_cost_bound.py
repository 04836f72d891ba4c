"""Figures of quality come before cost; times from fewer steps are for demo sets alone, and marked wherever they go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.compare.compare import compare
from harness.cost.cost import Cost, CostCell, CostProtocol
from harness.cost.latency import latency_of
from harness.decoder import Decoder
from harness.record.record import Record, read_record
from harness.run.config import RunConfig
from harness.run.runner import evaluate

BOUND = CostProtocol(batch_sizes=(1,), decoder_seconds=1.0)
HOW = "from 3, 6 and 9 of 50 steps, on a line within 1.0 %"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[int], Decoder] | None]:
    """What each decoder's cost could be estimated with; every time is an estimate."""
    found: list[Callable[[int], Decoder] | None] = []

    def measure(*arguments: Any, fewer: Callable[[int], Decoder] | None) -> Cost:
        found.append(fewer)
        latency = latency_of([0.5, 0.5], 1, True)
        return Cost((CostCell(1, "ok", latency, estimated=HOW), CostCell(8, "ok", latency)), 1.0, None, 0)

    monkeypatch.setattr("harness.run.runner.measure_cost", measure)
    return found


def test_quality_is_told_first_then_each_cost_and_estimates_are_marked(
    given: list[Callable[[int], Decoder] | None], tmp_path: Path
) -> None:
    told: list[tuple[str, list[str]]] = []

    def tell(record: Record) -> None:
        timed = [label for label, details in record.data.decoders.items() if details.cost]
        told.append((record.data.status, timed))

    config = RunConfig(
        ("ms-diffusion@steps=3", "bicubic"), resolution=64, max_samples=2, cost=BOUND, output_dir=tmp_path / "run"
    )
    record = evaluate(config, on_figures=tell)
    first, second = (row["label"] for row in record.results)
    assert told == [("quality", []), ("quality", [first]), ("quality", [first, second])]
    assert given[0] is not None
    shorter = given[0](6)
    assert (shorter.spec.name, shorter.spec.steps) == ("ms-diffusion", 6)

    for row in read_record(tmp_path / "run").results:
        assert row["time_estimated"]
        assert f"its time at batch 1 is estimated {HOW}" in row["marks"]
    ratios = {one.quantity for one in compare([(record, None)]).costs}
    assert "time, batch 8" in ratios
    assert "time, batch 1" not in ratios  # an estimate is no measured call


def test_other_sets_are_never_timed_by_fewer_steps(given: list[Callable[[int], Decoder] | None], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for index in range(2):
        pixels = np.random.default_rng(index).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    evaluate(RunConfig(("bicubic",), f"folder:{tmp_path / 'images'}", resolution=64, cost=BOUND, output_dir=tmp_path / "run"))
    assert given == [None]
