"""The command that measures: run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import shared
from harness.cli.runfile import read_run_file
from harness.environment import command_line
from harness.report.table import select, significant

if TYPE_CHECKING:
    from harness.record.record import Record
    from harness.run.config import RunConfig


def run_command(
    decoder: shared.DecoderList,
    config: Annotated[Path | None, typer.Option(is_eager=True, callback=read_run_file)] = None,
    dataset: str = "photos",
    data_dir: Path | None = None,
    split: str = "val",
    resolution: shared.SideOrNative = None,
    max_samples: shared.CountIfAny = None,
    allow_upsampling: Annotated[bool, typer.Option("--allow-upsampling")] = False,
    as_given: Annotated[bool, typer.Option("--as-given")] = False,
    seed: int = 0,
    noise_seeds: shared.Count = 1,
    latent_noise: Annotated[float, typer.Option(metavar="SIGMA")] = 0.0,
    effective_rate: Annotated[bool, typer.Option("--effective-rate")] = False,
    margin: str = "",
    extra_metrics: str = "",
    batch_size: shared.Count = 8,
    device: str = "cpu",
    dtype: str = "fp32",
    mode: str = "eager",
    checkpoint: Path | None = None,
    steps: shared.CountIfAny = None,
    scales: shared.CountIfAny = None,
    output_dir: Path | None = None,
    save_images: Path | None = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard")] = False,
    cost: bool = True,
    cost_batch_sizes: str = "1,8",
    cost_seconds: shared.Seconds = 10.0,
    decoder_seconds: Annotated[float | None, typer.Option(min=0.1)] = None,
    keep_going: Annotated[bool, typer.Option("--keep-going")] = False,
    resume: shared.Resume = False,
    shard: Annotated[str | None, typer.Option(metavar="I/N")] = None,
    processes: shared.Count = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run")] = False,
    columns: str = "",
    offline: shared.Offline = False,
    as_json: shared.JsonFlag = False,
) -> None:
    """Measure decoders on a dataset: quality, cost, a table and a sheet of images.

    \b
    Examples:
      msbench run --decoder vae,ms-onestep,jpeg
      msbench run --decoder vae --dataset folder:my-images --max-samples 500 --dry-run
      msbench run --config run.toml --device cuda
    """
    given = locals()
    from harness.cost.cost import CostProtocol
    from harness.distributed import WORLD, start_processes
    from harness.report.results import check_columns
    from harness.report.tensorboard import summary_writer, write_events
    from harness.run.config import RunConfig, check_config
    from harness.run.runner import evaluate

    sizes = () if cost_batch_sizes == "none" else tuple(shared.parse_integers("--cost-batch-sizes", cost_batch_sizes))
    protocol = CostProtocol(batch_sizes=sizes, max_seconds=cost_seconds, decoder_seconds=decoder_seconds) if cost else None
    named = {"decoders": shared.parse_names(*decoder), "margins": margin, "cost": protocol}
    request = RunConfig(**shared.chosen(RunConfig, {**given, **named}))
    names = shared.parse_names(columns)
    check_columns(names, request.extra_metrics, sizes)
    if tensorboard:
        summary_writer()  # raises before anything is measured
    if dry_run:
        _show_plan(request, as_json)
        return
    if processes > 1 and WORLD not in os.environ:
        check_config(request)
        shared.give_stdout_back()
        raise typer.Exit(start_processes(processes, sys.argv[1:]))
    with shared.progress_bar() as progress:
        record = evaluate(request, progress, command_line(), partial(_show_figures, dataset) if sizes and cost else None)
    show_record(record, dataset, names, save_images, as_json)
    if tensorboard and record.data.status == "complete" and os.environ.get("RANK", "0") == "0":
        shared.say(f"for TensorBoard: {write_events(record)}", as_json)


def show_record(record: Record, dataset: str, names: Sequence[str], save_images: Path | None, as_json: bool) -> None:
    """Print what a run found: the table (of the columns `names`, where any are), warnings, and where everything lies."""
    from harness.report.results import label_tables, results_table
    from harness.stopwatch import timing_line

    if os.environ.get("RANK", "0") != "0":  # under torchrun one process speaks for all
        return
    if as_json:
        shared.print_json(record.document())
    if record.data.status == "shard":
        count = f"{record.data.dataset.n_samples.effective:,} images of shard {record.data.config['shard']}"
        shared.say(f"{count} in {record.folder}: `msbench merge` makes a run of all shards; cost is not measured", as_json)
        return
    demo = (dataset,) if record.data.dataset.info.demo else ()
    table = results_table(record.rows_for_people(), f"{dataset}, n = {record.results[0]['n']}", demo)
    table = select(table, [name for name in names if table.has(name)]) if names else table
    by_label = label_tables({label: one.by_label for label, one in record.data.decoders.items()})
    shared.show(table, *by_label, stderr=as_json)
    for warning in record.data.warnings:
        shared.say(f"warning: {warning}", stderr=True)
    skipped = record.data.dataset.skipped
    if skipped:
        shared.say(f"{len(skipped)} files skipped, first: {skipped[0].name} ({skipped[0].reason})", as_json)
    shared.say(f"protocol {record.protocol_hash} · record, per-image values and sheet in {record.folder}", as_json)
    if record.data.timing:
        shared.say(timing_line(record.data.timing), as_json)
    if save_images:
        shared.say(f"images in {save_images}", as_json)


def _show_figures(dataset: str, record: Record) -> None:
    """The table of quality as soon as it stands, then a line for each decoder's cost."""
    from harness.report.results import results_table

    timed = [row for row in record.results if record.data.decoders[row["label"]].cost]
    if timed:
        times = [f"{significant(value)} ms/image at batch {size}" for size, value in timed[-1]["ms_per_image"].items()]
        marks = " †" * timed[-1]["time_estimated"]
        shared.say(f"{timed[-1]['label']}: {', '.join(times) or 'not timed'}{marks}", stderr=True)
    else:
        table = results_table(record.rows_for_people(), f"{dataset}: quality; cost follows", ())
        shared.show(replace(table, notes=()), stderr=True)


def _show_plan(request: RunConfig, as_json: bool) -> None:
    """What a run would take."""
    from harness.report.results import results_table
    from harness.run.plan import plan_run

    with shared.progress_bar() as progress:
        plan = plan_run(request, progress)
    table = results_table(plan.rows, f"{request.dataset}, n = {plan.n:,}: a dry run over two images", ())
    shared.show(replace(table, notes=(plan.line(),)), stderr=as_json)
    if as_json:
        shared.print_json({"schema_version": 1, "status": "planned", **asdict(plan)})
