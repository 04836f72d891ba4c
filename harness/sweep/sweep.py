"""The sweep itself: every cell of the plan, measured once and never again.

Each measured cell is one JSON file named after its recipe's hash, so that a changed recipe is measured anew and never mistaken
for the old one, and a cell that two decoders share (K = 1) is measured once.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from harness.environment import environment
from harness.files import folder_lock, safe_name, write_text
from harness.record.record import plain
from harness.run.config import check_device
from harness.stopwatch import Progress
from harness.sweep.cells import CELL_SCHEMA, cost_of, data_recipe, digest_of, measure_cell, read_cell, recipe_of
from harness.sweep.plan import SweepCell, SweepRequest, plan_cells


@dataclass(frozen=True, slots=True)
class MeasuredCell:
    """A cell of the plan with its figures."""

    cell: SweepCell
    """what was asked for"""
    figures: dict[str, Any] | None
    """content of the cell's file: recipe, spec, quality (or None), quality_reason, run, cost; None where skipped"""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A finished sweep."""

    request: SweepRequest
    """what was asked for"""
    resolution: int
    """side of every image in pixels"""
    cells: tuple[MeasuredCell, ...]
    """the grid in the order decoder, K, N; then the baselines"""
    cells_run: int
    """cells measured now; the others were read from their files"""


def run_sweep(request: SweepRequest, progress: Progress | None = None) -> Sweep:
    """Measure every cell that is not measured yet; each is written as soon as it is done.

    Raises:
        MsbenchError: bad input, found before anything is measured or written; or another process is writing there.
    """
    report = progress or (lambda stage, done, total: None)
    device = check_device(request.run.device)
    plan = plan_cells(request)
    data, resolution = data_recipe(request)
    facts = environment()
    measured: list[MeasuredCell] = []
    cells_run = 0
    with folder_lock(request.output_dir), folder_lock(request.output_dir / "cells"):
        for index, cell in enumerate(plan):
            if cell.fit is None:
                measured.append(MeasuredCell(cell, None))
                continue
            recipe = recipe_of(request, cell, cell.fit, data, facts, resolution)
            digest = digest_of(recipe)
            file = request.output_dir / "cells" / f"{safe_name(cell.fit.model)}-k{cell.scales}-n{cell.steps}-{digest[:12]}.json"
            figures = read_cell(file, recipe)
            if figures is None:
                report(f"{cell.decoder}, K = {cell.scales}, {cell.steps} steps", index, len(plan))
                figures = measure_cell(request, cell, cell.fit, recipe, resolution, device)
                figures |= {"schema_version": CELL_SCHEMA, "recipe": recipe, "recipe_sha256": digest, "environment": facts}
                figures["date"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                figures = plain(figures)
                if all(timed.status != "failed" for timed in cost_of(figures).cells):  # a failure is tried again next time
                    write_text(file, json.dumps(figures, indent=1, allow_nan=False) + "\n")
                cells_run += 1
            measured.append(MeasuredCell(cell, figures))
    report("cells", len(plan), len(plan))
    return Sweep(request, resolution, tuple(measured), cells_run)
