"""`msbench speed`: what decoding costs in time, decoders side by side."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import shared
from harness.data.types import MAX_RESOLUTION, MIN_RESOLUTION
from harness.errors import MsbenchError
from harness.interrupt import Terminated


def speed_command(
    decoder: shared.DecoderList,
    cost_batch_sizes: str | None = None,
    mode: str = "eager",
    dtype: str = "fp32",
    resolution: str = "256",
    cost_seconds: shared.Seconds = 10.0,
    cores: str = "1,all",
    no_memory: Annotated[bool, typer.Option("--no-memory")] = False,
    budget_seconds: Annotated[float | None, typer.Option(min=0.0, callback=shared.finite)] = None,
    wait_seconds: Annotated[float, typer.Option(min=0.0, max=86_400.0, callback=shared.finite)] = 60.0,
    device: str = "cpu",
    output_dir: Path | None = None,
    as_json: shared.JsonFlag = False,
) -> None:
    """Time decoders in turns, the others against the first, with a noise floor. Exit 1 where nothing was measured.

    \b
    Examples:
      msbench speed --decoder diffusion,ms-onestep,vae --cost-batch-sizes 1,8
      msbench speed --decoder diffusion@steps=10,ms-onestep --mode eager,compile --budget-seconds 900
    """
    from harness.cost.cost import LARGEST_BATCH
    from harness.cost.load import allowed_cpus
    from harness.cost.modes import parse_mode
    from harness.decoder import parse_dtype
    from harness.environment import Start
    from harness.request.requests import parse_requests
    from harness.run.config import check_device, runs_root
    from harness.speed.protocol import SpeedProtocol, parse_counts, parse_list
    from harness.speed.record import RECORD, document, write_speed
    from harness.speed.report import speed_tables
    from harness.speed.run import measure_speed

    start = Start()
    contestants = tuple(one.pinned() for one in parse_requests(shared.parse_names(*decoder)))
    on_gpu = check_device(device).type == "cuda"
    for name in parse_list(dtype):
        parse_dtype(name)
    batches, available = cost_batch_sizes or ("1,8,32,max" if on_gpu else "1,8"), len(allowed_cpus())
    protocol = SpeedProtocol(
        batch_sizes=parse_counts("--cost-batch-sizes", batches, "max", LARGEST_BATCH, "images per call"),
        modes=tuple(parse_mode(name) for name in parse_list(mode)),
        dtypes=parse_list(dtype),
        resolutions=tuple(dict.fromkeys(shared.parse_integers("--resolution", resolution, MIN_RESOLUTION, MAX_RESOLUTION))),
        cores=parse_counts("--cores", cores, "all", available, f"this process may use {available} cores"),
        cell_seconds=cost_seconds,
        budget_seconds=budget_seconds,
        wait_seconds=wait_seconds,
        memory=not no_memory,
    )
    folder = output_dir or runs_root() / f"{time.strftime('%Y%m%d-%H%M%S')}-speed"
    if (folder / RECORD).exists():
        raise MsbenchError(f"{folder} already holds a run; give another --output-dir")
    with shared.progress_bar() as progress:
        results = measure_speed(contestants, device, protocol, progress)
    whole = document(contestants, device, protocol, results, start)
    write_speed(folder, whole, results.samples)
    shared.show(*speed_tables(whole), stderr=as_json)
    shared.say(f"record and every timed call in {folder}", as_json)
    if as_json:
        shared.print_json(whole)
    if results.ended:
        raise Terminated(f"what was measured is kept in {folder}")
    if whole["status"] == "failed":
        typer.echo("msbench: nothing was measured: every cell failed or was skipped, for the reasons above", err=True)
        raise typer.Exit(1)
