"""`msbench sweep`: quality and cost over numbers of scales and steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import shared
from harness.report.table import Cell, Table, listing, number

if TYPE_CHECKING:
    import pandas as pd

    from harness.sweep.sweep import MeasuredCell

_SHOWN = {
    "decoder": "decoder",
    "scales": "K",
    "steps": "N",
    "batch": "batch",
    "mode": "mode",
    "weights": "weights",
    "status": "status",
    "ms_per_image": "ms/image",
    "gflops": "GFLOPs",
    "theory_speedup": "K/S_K",
    "counted_speedup": "counted x",
    "measured_speedup": "measured x",
    "rfid": "rFID",
    "lpips": "LPIPS",
}


def sweep_command(
    decoder: shared.DecoderList = ["ms-diffusion-cascade"],  # noqa: B006 - typer copies it
    scales: str = "1,2,3,4",
    steps: str = "4,10,20,50",
    beside: str = "vae,ms-onestep,bicubic,jpeg",
    checkpoint_dir: Path | None = None,
    dataset: str = "photos",
    data_dir: Path | None = None,
    split: str = "val",
    resolution: shared.SideIfAny = None,
    max_samples: shared.CountIfAny = None,
    seed: shared.Seed = 0,
    cost_batch_sizes: str = "1,8",
    cost_seconds: shared.Seconds = 10.0,
    cost_only: Annotated[bool, typer.Option("--cost-only")] = False,
    device: str = "cpu",
    dtype: str = "fp32",
    mode: str = "eager",
    output_dir: Path | None = None,
    offline: shared.Offline = False,
    as_json: shared.JsonFlag = False,
) -> None:
    """Measure quality and cost over a grid of scales and steps; resumable. Untrained cells get cost alone.

    \b
    Examples:
      msbench sweep --decoder ms-diffusion-cascade --scales 1,2,3,4 --steps 4,50
      msbench sweep --steps 50 --cost-only --cost-seconds 5
    """
    given = locals()
    from harness.cost.cost import CostProtocol
    from harness.files import atomic_path, write_text
    from harness.run.config import RunConfig, runs_root
    from harness.sweep.plan import SweepRequest
    from harness.sweep.plots import write_plots
    from harness.sweep.sweep import run_sweep
    from harness.sweep.table import sweep_frame

    what = "cost" if cost_only else dataset.partition(":")[0]
    folder = output_dir or runs_root() / f"sweep-{what}-{device.replace(':', '')}"
    sizes = () if cost_batch_sizes == "none" else tuple(shared.parse_integers("--cost-batch-sizes", cost_batch_sizes))
    of_runs = ("dataset", "data_dir", "split", "resolution", "max_samples", "seed", "device", "dtype", "offline")
    run = RunConfig((), **{name: given[name] for name in of_runs})
    request = SweepRequest(
        decoders=shared.parse_names(*decoder),
        scales=tuple(shared.parse_integers("--scales", scales)),
        steps=tuple(shared.parse_integers("--steps", steps)),
        output_dir=folder,
        baselines=shared.parse_names(beside),
        checkpoint_dir=checkpoint_dir,
        run=run,
        modes=shared.parse_names(mode),
        cost=CostProtocol(batch_sizes=sizes, max_seconds=cost_seconds),
        cost_only=cost_only,
    )
    with shared.progress_bar() as progress:
        sweep = run_sweep(request, progress)
    frame = sweep_frame(sweep)
    table = folder / "sweep.parquet"
    with atomic_path(table) as temporary:
        frame.to_parquet(temporary, index=False)
    write_text(folder / "sweep.csv", frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    plots, omitted = write_plots(frame, folder)
    shared.show(sweep_table(frame), stderr=as_json)
    reasons = dict.fromkeys(text for text in (*frame["reason"], *frame["quality_reason"]) if isinstance(text, str))
    for line in (*reasons, *omitted):
        shared.say(line, as_json)
    shared.say(f"{sweep.cells_run} of {len(sweep.cells)} cells measured now; table, cells and plots in {folder}", as_json)
    if as_json:
        shared.print_json(
            {
                "schema_version": 1,
                "status": "complete",
                "cells_run": sweep.cells_run,
                "cells": [_cell(one) for one in sweep.cells if not one.cell.baseline],
                "baselines": [_cell(one) for one in sweep.cells if one.cell.baseline],
                "table": table,
                "plots": plots,
                "plots_omitted": omitted,
            }
        )


def sweep_table(frame: pd.DataFrame) -> Table:
    """What people read of a sweep: a row a cell, mode and batch size."""
    rows = [[_shown(value) for value in row] for row in frame[list(_SHOWN)].astype(object).itertuples(index=False)]
    return listing(list(_SHOWN.values()), rows, keys=5)


def _shown(value: Any) -> Cell:
    return Cell(value) if value is None or isinstance(value, str) else number(value, lambda figure: f"{figure:.4g}")


def _cell(one: MeasuredCell) -> dict[str, Any]:
    """A cell in JSON types; the samples of its timing are in its file."""
    cell, figures = one.cell, one.figures
    head: dict[str, Any] = {"decoder": cell.decoder, "scales": cell.scales, "steps": cell.steps}
    if figures is None or cell.fit is None:
        why = cell.skipped
        return {**head, "status": "skipped", "reason": why, "quality": None, "quality_reason": why, "cost": None}
    cost = figures["cost"]
    cells = [_without_samples(timed) for timed in cost["cells"]]
    return {
        **head,
        "status": next((timed["status"] for timed in cells if timed["status"] != "ok"), "ok"),
        "reason": None,
        "model": cell.fit.model,
        "weights": cell.fit.weights,
        "weights_sha256": figures["spec"]["weights_sha256"],
        **{name: figures[name] for name in ("quality", "quality_reason", "run")},
        "cost": {**cost, "cells": cells},
    }


def _without_samples(timed: dict[str, Any]) -> dict[str, Any]:
    latency = timed["latency"]
    return {**timed, "latency": latency and {key: value for key, value in latency.items() if key != "samples_ms"}}
