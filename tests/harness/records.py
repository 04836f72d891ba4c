"""Records of runs that were never made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from harness.cost.cost import Cost, CostCell
from harness.cost.latency import latency_of
from harness.data.types import DatasetInfo
from harness.decoder import DecoderSpec
from harness.metrics.registry import METRICS
from harness.record.protocol import Protocol
from harness.record.schema import (
    SCHEMA_VERSION,
    DatasetFacts,
    Details,
    MetricFacts,
    NoiseFacts,
    Result,
    RunData,
    SampleCounts,
    Setting,
)

PROTOCOL = Protocol("photos", None, 256, "native-grid-crop-v1", None, 0, 0)
SPEC = DecoderSpec("made-up", 8, 4, 1, 1, 1, None, "e", "nothing")
_RESULT = {field.name for field in fields(Result)}


def result(label: str = "vae", **changes: Any) -> Result:
    """One row; metrics may stand beside the other keys, as in JSON."""
    usual: dict[str, Any] = {
        "label": label,
        "decoder": label,
        "options": {},
        "dataset": "photos",
        "n": 2,
        "intervals": {},
        "noise_spread": None,
        "octaves_db": {},
        "rfid_infinity": None,
        "ms_per_image": {},
        "gflops": None,
        "parameters": 1,
        "peak_memory_mb": None,
        "trained_on": "nothing",
    }
    metrics = {key: value for key, value in changes.items() if key not in _RESULT}
    rest = {key: value for key, value in changes.items() if key in _RESULT}
    return Result(**{**usual, "metrics": metrics, **rest})


def details(exact: int = 0, times: list[float] | None = None, seeds: tuple[int, ...] = (0,), **spec: Any) -> Details:
    """What a row rests on; `times` are the milliseconds of calls at batch 1, `spec` changes fields of `SPEC`."""
    cost = None
    if times:
        cost = Cost((CostCell(1, "ok", latency_of([time / 1000 for time in times], 2, True)),), None, None, 1)
    noise = NoiseFacts(False, seeds, {}, None)
    return Details(replace(SPEC, **spec), None, 0.95, {}, exact, 0.0, noise, None, None, cost)


def run_data(
    rows: Iterable[tuple[Result, Details]],
    protocol: Protocol = PROTOCOL,
    source: str = "s",
    pixels: str = "p",
    **changes: Any,
) -> RunData:
    """The content of a record; `changes` are fields of `RunData`."""
    pairs = list(rows)
    names = dict.fromkeys(name for row, _ in pairs for name in row.metrics)
    known = [METRICS[name] for name in names if name in METRICS]
    info = DatasetInfo("photos", None, 256, 15, 15, 0, False, "", True, "", "native-grid-crop-v1")
    environment: Mapping[str, Any] = {
        "cpu_model": "cpu",
        "gpus": [],
        "torch_threads": 2,
        "torch": "2",
        "msbench": "1",
        "git": {"commit": "c" * 40, "dirty": False},
    }
    data = RunData(
        schema_version=SCHEMA_VERSION,
        status="complete",
        failure=None,
        protocol=protocol,
        protocol_hash=protocol.hash(),
        metrics={one.name: MetricFacts(one.definition, one.direction, one.unit, one.per_image) for one in known},
        higher_is_better={one.name: one.direction == "higher" for one in known},
        results=tuple(row for row, _ in pairs),
        decoders={row.label: rest for row, rest in pairs},
        dataset=DatasetFacts(info, SampleCounts(15, 15, 15), (), (), source, pixels),
        setting=Setting("cpu", "fp32", "eager", 8),
        config={},
        command="msbench run",
        date="2026-01-01T00:00:00Z",
        seconds=1.0,
        environment=environment,
        warnings=(),
        timing=None,
    )
    return replace(data, **changes)
