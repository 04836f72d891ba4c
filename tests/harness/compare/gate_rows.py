"""Made-up runs and references for the tests of the gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.compare.gate import make_reference
from harness.compare.reference import GateReference
from harness.metrics.metric import Tolerance
from harness.metrics.registry import METRICS
from harness.record.protocol import Protocol
from harness.record.record import Record
from harness.record.schema import Result
from tests.harness.records import PROTOCOL, details, result, run_data

SIMPLE = {name: Tolerance(0.5, 0.0, "half a unit") for name in METRICS}
# Made up, in units in which half a unit is exact.
FIGURES = {"rfid": 200.0, "kid": 3.0, "psnr": 20.0, "ssim": 6.0, "lpips": 4.0, "spectral": 2.0, "latent_error": 1.0}
GOOD = {"rfid": -1, "kid": -1, "psnr": 1, "ssim": 1, "lpips": -1, "spectral": -1, "latent_error": -1}


def row(decoder: str = "vae", **changes: Any) -> Result:
    return result(decoder, **{**FIGURES, "ms_per_image": {"1": 5.0}, "parameters": 1000, **changes})


def record(*rows: Result, protocol: Protocol = PROTOCOL, folder: str = "run", **changes: Any) -> Record:
    """A run that was never made; `changes`: source, pixels, weights, exact, command."""
    rest = details(changes.get("exact", 0), weights_sha256=changes.get("weights", "w"))
    data = run_data(
        [(one, rest) for one in rows or (row(),)],
        protocol,
        changes.get("source", "s"),
        changes.get("pixels", "p"),
        command=changes.get("command", 'msbench run --decoder "a, b"'),
    )
    return Record(Path(folder), data)


def reference(*rows: Result, **changes: Any) -> GateReference:
    return within(make_reference([record(*rows, **changes)], name="simple"), SIMPLE)


def within(made: GateReference, tolerances: Mapping[str, Tolerance]) -> GateReference:
    """The reference with these tolerances, by metric, in place of the metrics' own."""
    figures = [
        replace(one, tolerance=told.amount(one.value), tolerance_from=told.source)
        if (told := tolerances.get(one.metric))
        else one
        for one in made.figures
    ]
    return replace(made, figures=tuple(figures))
