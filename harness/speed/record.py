"""The document of a run of `msbench speed`, and its two files: `speed.json`, and `samples.parquet` with every timed call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from harness.environment import Start, command_line
from harness.files import atomic_path, write_text
from harness.record.record import plain
from harness.request.requests import DecoderRequest
from harness.speed.protocol import SpeedProtocol
from harness.speed.run import SAMPLE_COLUMNS, Results, Sample

SCHEMA_VERSION = 1
RECORD, SAMPLES = "speed.json", "samples.parquet"


def document(
    contestants: Sequence[DecoderRequest], device: str, protocol: SpeedProtocol, results: Results, start: Start
) -> dict[str, Any]:
    """What `--json` prints and speed.json holds, in JSON types.

    status is "complete"; "incomplete" where the budget or SIGTERM ended something; "failed" where nothing was measured.
    disturbed where a row is. cells_run counts the cells that were tried, whatever came of it. fastest has the entries of
    `cells.Fastest`.
    """
    cells, statuses = results.cells, [row.status for row in results.cells]
    status = "incomplete" if "skipped_budget" in statuses or results.ended else "complete"
    whole: dict[str, Any] = plain(
        {
            "schema_version": SCHEMA_VERSION,
            "status": status if "ok" in statuses else "failed",
            "disturbed": any(row.disturbed for row in cells),
            "cells": [asdict(row) for row in cells],
            "cells_run": sum(one not in ("unsupported", "skipped_budget") for one in statuses),
            "fastest": [row for table in results.fastest for row in table.entries()],
            "noise_floor": [asdict(floor) for floor in results.noise_floor],
            "ceilings": results.ceilings,
            "notes": results.notes,
            "contestants": [asdict(one) for one in contestants],
            "device": device,
            "memory_format": "latents contiguous, networks each decoder's own",
            "protocol": asdict(protocol),
            "command": command_line(),
            "date": start.date,
            "seconds": start.seconds(),
            "environment": start.facts,
        }
    )
    return whole


def write_speed(folder: Path, whole: dict[str, Any], samples: Sequence[Sample]) -> None:
    """Write both files; the document last, so that a folder with one is complete."""
    with atomic_path(folder / SAMPLES) as temporary:
        pd.DataFrame(list(samples), columns=list(SAMPLE_COLUMNS)).to_parquet(temporary, index=False)
    write_text(folder / RECORD, json.dumps(whole, indent=1, allow_nan=False) + "\n")
