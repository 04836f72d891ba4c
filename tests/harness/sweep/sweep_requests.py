"""What the sweep's tests ask for and what a timing looks like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.cost.cost import CostProtocol
from harness.sweep.plan import SweepRequest

QUICK = CostProtocol(batch_sizes=(1, 2), min_calls=1, max_calls=1, max_seconds=0.01)


def request(folder: Path, **changes: Any) -> SweepRequest:
    base = SweepRequest(("ms-diffusion",), (1, 2), (1, 2), folder, max_samples=2, resolution=64, cost=QUICK)
    return replace(base, **changes)


def timed(milliseconds: float, batch: int = 1) -> dict[str, Any]:
    keys = ("median_ms", "p10_ms", "p90_ms", "p99_ms")
    latency = {**dict.fromkeys(keys, milliseconds), "n_calls": 3}
    return {
        "mode": "eager",
        "batch_size": batch,
        "status": "ok",
        "reason": None,
        "latency": latency,
        "energy_j": None,
        "power": None,
    }
