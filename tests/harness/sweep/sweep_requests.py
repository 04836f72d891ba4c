"""What the sweep's tests ask for and what a timing looks like."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.cost.cost import Cost, CostCell, CostProtocol
from harness.cost.latency import Latency
from harness.run.config import RunConfig
from harness.sweep.plan import SweepRequest

QUICK = CostProtocol(batch_sizes=(1, 2), min_calls=1, max_calls=1, max_seconds=0.01)


def request(folder: Path, **changes: Any) -> SweepRequest:
    """Changes of the run's fields are the run's, unless the sweep has them too."""
    own = {name for name in changes if name in SweepRequest.__dataclass_fields__}
    run = RunConfig((), max_samples=2, resolution=64)
    run = replace(run, **{name: value for name, value in changes.items() if name not in own})
    base = SweepRequest(("ms-diffusion",), (1, 2), (1, 2), folder, run=run, cost=QUICK)
    return replace(base, **{name: changes[name] for name in own})


def timed(milliseconds: float, batch: int = 1) -> CostCell:
    return CostCell(batch, "ok", Latency(*[milliseconds] * 4, 3, 4, True, (milliseconds,) * 3))


def cost(gflops: float, *cells: CostCell) -> dict[str, Any]:
    """As it stands in a cell's file."""
    return asdict(Cost(cells, gflops, 1.0, 0))
