"""The document of a run of `msbench speed`, and its two files: `speed.json`, and `samples.parquet` with every timed call."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from harness.environment import Start
from harness.files import atomic_path, write_text
from harness.record.record import plain
from harness.speed.cells import Cell
from harness.speed.protocol import Contestant, SpeedProtocol
from harness.speed.run import Results

SCHEMA_VERSION = 1
RECORD, SAMPLES = "speed.json", "samples.parquet"
_NOT_RUN = ("unsupported", "skipped_budget")


def document(
    contestants: Sequence[Contestant], device: str, protocol: SpeedProtocol, results: Results, start: Start
) -> dict[str, Any]:
    """What `--json` prints and speed.json holds, in JSON types.

    status is "complete"; "incomplete" where the budget ended something; "failed" where every cell failed. cells_run counts the
    cells that were tried, whatever came of it. fastest has the rows of `fastest.Fastest`.
    """
    cells = results.cells
    whole: dict[str, Any] = plain(
        {
            "schema_version": SCHEMA_VERSION,
            "status": _status(cells),
            "cells": [cell.as_record() for cell in cells],
            "cells_run": sum(cell.status not in _NOT_RUN for cell in cells),
            "fastest": [row for table in results.fastest for row in table.rows()],
            "noise_floor": [floor.as_record() for floor in results.floors],
            "ceilings": results.ceilings,
            "notes": results.notes,
            "contestants": [asdict(one) for one in contestants],
            "device": device,
            "memory_format": "latents contiguous, networks each decoder's own",
            "protocol": protocol.as_record(),
            "command": " ".join(["msbench", *sys.argv[1:]]),
            "date": start.date,
            "seconds": start.seconds(),
            "environment": start.facts,
        }
    )
    return whole


def _status(cells: Sequence[Cell]) -> str:
    if cells and all(cell.status == "failed" for cell in cells):
        return "failed"
    return "incomplete" if any(cell.status == "skipped_budget" for cell in cells) else "complete"


def write_speed(folder: Path, whole: dict[str, Any], samples: Sequence[dict[str, Any]]) -> None:
    """Write both files; the document last, so that a folder with one is complete."""
    columns = ["decoder", "batch", "mode", "dtype", "scope", "resolution", "cores", "turn", "final", "ms"]
    with atomic_path(folder / SAMPLES) as temporary:
        pd.DataFrame(list(samples), columns=columns).to_parquet(temporary, index=False)
    write_text(folder / RECORD, json.dumps(whole, indent=1, allow_nan=False) + "\n")
