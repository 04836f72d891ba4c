"""The command that measures: run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import shared

if TYPE_CHECKING:
    from harness.record.record import Record


def run_command(
    decoder: shared.DecoderList,
    dataset: Annotated[str, typer.Option(help="photos, imagenette, imagenet-val or folder:PATH.")] = "photos",
    data_dir: shared.DataDir = None,
    split: Annotated[str, typer.Option(help="Part of the dataset: val or train.")] = "val",
    resolution: shared.Resolution = None,
    max_samples: shared.MaxSamples = None,
    allow_upsampling: Annotated[bool, typer.Option("--allow-upsampling", help="Enlarge images that are too small.")] = False,
    seed: Annotated[int, typer.Option(help="Seeds the subset and each sample's noise.")] = 0,
    noise_seeds: Annotated[
        int, typer.Option(min=1, help="Decode each image under this many noise seeds; figures are means, their spread is kept.")
    ] = 1,
    margin: Annotated[
        str,
        typer.Option(help="Losses that count as none, stated before the run: lpips=0.01,rfid=5%. Others keep their default."),
    ] = "",
    extra_metrics: Annotated[
        str, typer.Option(help="Slower metrics on request, separated by commas; `msbench ls metrics` lists them.")
    ] = "",
    batch_size: Annotated[int, typer.Option(min=1, help="Images per call; changes no number beyond rounding.")] = 8,
    device: shared.Device = "cpu",
    dtype: shared.Dtype = "fp32",
    mode: Annotated[str, typer.Option(help="How decoders run: eager, compile or cudagraph (CUDA only).")] = "eager",
    checkpoint: Annotated[Path | None, typer.Option(help="Weights instead of the shipped ones (one decoder only).")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Network calls per image (diffusion decoders).")] = None,
    scales: Annotated[int | None, typer.Option(min=1, help="Number of scales the given checkpoint was trained for.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="The run's folder; default: a new one below runs/.")] = None,
    save_images: Annotated[
        Path | None, typer.Option(help="Write every image the metrics saw as PNG below this folder.")
    ] = None,
    cost: Annotated[bool, typer.Option("--cost/--no-cost", help="Measure time, FLOPs and memory.")] = True,
    cost_batch_sizes: Annotated[
        str, typer.Option(help="Batch sizes to time, separated by commas; none = count FLOPs alone.")
    ] = "1,8",
    cost_seconds: Annotated[float, typer.Option(min=0.1, help="Measured seconds per timing cell.")] = 10.0,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Leave images that a decoder fails on out of every decoder's figures.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output-dir that ended early.")] = False,
    offline: shared.Offline = False,
    as_json: shared.JsonFlag = False,
) -> None:
    """Measure decoders on a dataset: quality, cost, a table and a sheet of images."""
    given = locals()
    from harness.cost.cost import CostProtocol
    from harness.run.config import RunConfig
    from harness.run.runner import evaluate

    sizes = () if cost_batch_sizes == "none" else tuple(shared.parse_integers("--cost-batch-sizes", cost_batch_sizes))
    protocol = CostProtocol(batch_sizes=sizes, max_seconds=cost_seconds) if cost else None
    config = RunConfig(
        **shared.chosen(RunConfig, {**given, "decoders": shared.parse_names(*decoder), "margins": margin, "cost": protocol})
    )
    with shared.progress_bar() as progress:
        record = evaluate(config, progress, " ".join(["msbench", *sys.argv[1:]]))
    show_record(record, dataset, save_images, as_json)


def show_record(record: Record, dataset: str, save_images: Path | None, as_json: bool) -> None:
    """Print what a run found: the table, its warnings, and where everything lies; `dataset` is what the table is titled by."""
    from harness.report.results import results_table
    from harness.stopwatch import timing_line

    demo = (dataset,) if record.data.dataset.info.demo else ()
    shared.show(results_table(record.rows_for_people(), f"{dataset}, n = {record.results[0]['n']}", demo), stderr=as_json)
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
    if as_json:
        shared.print_json(record.document())
