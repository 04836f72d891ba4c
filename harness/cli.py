"""The command line: `msbench run | compare | train-decoder | scales | ls | weights | doctor`.

Everything heavy is imported inside the command that needs it, so that --help answers at once. Tables go to stdout; with --json,
stdout is one JSON document and tables and progress go to stderr. Exit codes: 0 good, 1 a check failed, 2 bad input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from harness.errors import MsbenchError, UnknownNameError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from harness.runner import Progress

app = typer.Typer(
    name="msbench",
    help="Benchmark image tokenizer decoders: quality (rFID, KID, LPIPS, PSNR, SSIM) and cost (time, FLOPs, memory).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
weights_app = typer.Typer(help="Weights of the metric networks.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")

DecoderList = Annotated[str, typer.Option("--decoder", help="Decoder names, separated by commas (`msbench ls decoders`).")]
DataDir = Annotated[Path | None, typer.Option(help="Where the dataset lies: a folder or a tar.")]
Resolution = Annotated[int | None, typer.Option(min=16, help="Side of every image in pixels; default: the dataset's own.")]
MaxSamples = Annotated[int | None, typer.Option(min=1, help="Seeded, class-stratified subset of this size.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, typer.Option(help="Arithmetic of the decoders: fp32, bf16 or fp16.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never touch the network.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; tables go to stderr.")]


@app.command("run")
def run_command(
    decoder: DecoderList,
    dataset: Annotated[str, typer.Option(help="photos, imagenette, imagenet-val or folder:PATH.")] = "photos",
    data_dir: DataDir = None,
    split: Annotated[str, typer.Option(help="Part of the dataset: val or train.")] = "val",
    resolution: Resolution = None,
    max_samples: MaxSamples = None,
    allow_upsampling: Annotated[bool, typer.Option("--allow-upsampling", help="Enlarge images that are too small.")] = False,
    seed: Annotated[int, typer.Option(help="Seeds the subset and each sample's noise.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per call; changes no number beyond rounding.")] = 8,
    device: Device = "cpu",
    dtype: Dtype = "fp32",
    checkpoint: Annotated[Path | None, typer.Option(help="Weights instead of the shipped ones (one decoder only).")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Network calls per image (diffusion decoders).")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="The run's folder; default: a new one below runs/.")] = None,
    save_images: Annotated[Path | None, typer.Option(help="Write every image the metrics saw as PNG below this folder.")] = None,
    cost: Annotated[bool, typer.Option("--cost/--no-cost", help="Measure time, FLOPs and memory.")] = True,
    cost_batch_sizes: Annotated[str, typer.Option(help="Batch sizes to time, separated by commas.")] = "1,8",
    cost_seconds: Annotated[float, typer.Option(min=0.1, help="Measured seconds per timing cell.")] = 10.0,
    offline: Offline = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure decoders on a dataset: quality, cost, a table and a sheet of images."""
    with _user_errors():
        from harness.cost.cost import CostProtocol
        from harness.report.table import results_table
        from harness.runner import RunConfig, evaluate

        sizes = tuple(_integers("--cost-batch-sizes", cost_batch_sizes))
        config = RunConfig(
            decoders=_names(decoder),
            dataset=dataset,
            data_dir=data_dir,
            split=split,
            resolution=resolution,
            max_samples=max_samples,
            allow_upsampling=allow_upsampling,
            seed=seed,
            batch_size=batch_size,
            device=device,
            dtype=_dtype(dtype),
            checkpoint=checkpoint,
            steps=steps,
            output_dir=output_dir,
            save_images=save_images,
            cost=CostProtocol(batch_sizes=sizes, max_seconds=cost_seconds) if cost else None,
            offline=offline,
        )
        with _progress() as progress:
            record = evaluate(config, progress)
        console = _console(as_json)
        demo = (dataset,) if record.data["dataset"]["demo"] else ()
        console.print(results_table(record.results, title=f"{dataset}, n = {record.results[0]['n']}", demo_datasets=demo))
        skipped = record.data["dataset"]["skipped"]
        if skipped:
            console.print(f"{len(skipped)} files skipped, first: {skipped[0]['name']} ({skipped[0]['reason']})")
        console.print(f"protocol {record.protocol_hash} · record, per-image values and sheet in {record.folder}", soft_wrap=True)
        if save_images:
            console.print(f"images in {save_images}", soft_wrap=True)
        if as_json:
            _print_json(record.document())


@app.command("compare")
def compare_command(
    runs: Annotated[list[str], typer.Argument(help="Run folders, each RUN or RUN:DECODER.")],
    force: Annotated[bool, typer.Option("--force", help="Show runs of different protocols side by side all the same.")] = False,
    table_format: Annotated[str, typer.Option("--format", help="table, markdown or csv.")] = "table",
    as_json: JsonFlag = False,
) -> None:
    """Put runs of one protocol side by side."""
    with _user_errors():
        from harness.compare import compare
        from harness.record import document
        from harness.report.table import results_table, to_csv, to_markdown

        if table_format not in ("table", "markdown", "csv"):
            raise UnknownNameError("format", table_format, ("table", "markdown", "csv"))
        comparison = compare([_run_argument(run) for run in runs], force)
        console = _console(as_json)
        demo = tuple({row["dataset"] for record in comparison.records for row in record.results if record.data["dataset"]["demo"]})
        for warning in comparison.warnings:
            _console(True).print(f"warning: {warning}", soft_wrap=True)
        if table_format == "table":
            console.print(results_table(comparison.results, demo_datasets=demo))
        else:
            text = to_markdown(comparison.results, demo) if table_format == "markdown" else to_csv(comparison.results)
            (sys.stderr if as_json else sys.stdout).write(text.rstrip("\n") + "\n")
        if as_json:
            _print_json({**document(comparison.records), "results": list(comparison.results), "warnings": list(comparison.warnings)})


@app.command("train-decoder")
def train_command(
    decoder: Annotated[str, typer.Argument(help="vae, diffusion, ms-diffusion, ms-diffusion-cascade, onestep, ms-onestep, direct.")],
    dataset: Annotated[str, typer.Option(help="imagenette or folder:PATH.")] = "imagenette",
    data_dir: DataDir = None,
    resolution: Resolution = None,
    max_samples: MaxSamples = None,
    preset: Annotated[str, typer.Option(help="Size of the networks.")] = "nano",
    max_minutes: Annotated[float | None, typer.Option(min=0.0, help="Wall-clock budget.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Step budget.")] = None,
    stop_after: Annotated[int | None, typer.Option(min=1, help="Leave after this many steps; --resume goes on.")] = None,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 4e-4,
    warmup: Annotated[int, typer.Option(min=0, help="Steps of linear warm-up.")] = 100,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seeds initial weights and every step's draws.")] = 0,
    vae: Annotated[Path | None, typer.Option(help="Autoencoder checkpoint that gives the latents; default: the shipped one.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="Teacher checkpoint of a student; default: the shipped one.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="The run's folder; default: runs/train/DECODER.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's saved state.")] = False,
    device: Device = "cpu",
    offline: Offline = False,
) -> None:
    """Train or distil a decoder; writes a checkpoint with its model card."""
    with _user_errors():
        from decoders.training.train import TrainRequest, run_training
        from decoders.training.trainer import TrainConfig
        from harness.data.types import Request
        from harness.runner import check_device, runs_root

        config = TrainConfig(
            max_steps=max_steps,
            max_minutes=max_minutes,
            stop_after=stop_after,
            learning_rate=learning_rate,
            warmup=warmup,
            precision=precision,
            seed=seed,
        )
        request = TrainRequest(
            decoder=decoder,
            data=Request(dataset, data_dir, resolution, max_samples, seed, False, "train", offline),
            output=output_dir or runs_root() / "train" / decoder,
            preset=preset,
            config=config,
            vae=vae,
            teacher=teacher,
            device=check_device(device),
            resume=resume,
            offline=offline,
        )
        console = _console(True)
        with _progress() as progress:
            path = run_training(
                request,
                lambda line: console.print(line, soft_wrap=True),
                lambda step, loss, done: progress(f"step {step}, loss {loss:.4f}", int(1000 * min(done, 1.0)), 1000),
            )
        _console(False).print(f"{path}\ntry it: msbench run --decoder {decoder} --checkpoint {path}", soft_wrap=True)


@app.command("scales")
def scales_command(
    decoder: Annotated[str, typer.Option(help="A multi-scale diffusion decoder; random weights serve.")] = "ms-diffusion",
    scales: Annotated[str, typer.Option(help="Numbers of scales, separated by commas.")] = "1,2,3,4",
    steps: Annotated[int, typer.Option(min=1, help="Network calls per image over all scales.")] = 50,
    resolution: Annotated[int, typer.Option(min=64, help="Side of the image in pixels.")] = 256,
    cost_batch_sizes: Annotated[str, typer.Option(help="Batch sizes to time, separated by commas.")] = "1,8",
    cost_seconds: Annotated[float, typer.Option(min=0.1, help="Measured seconds per timing cell.")] = 10.0,
    device: Device = "cpu",
    dtype: Dtype = "fp32",
    output: Annotated[Path | None, typer.Option(help="Stem of the .csv, .svg and .png; default: runs/scales-DEVICE.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure and plot the speed-up against the number of scales."""
    with _user_errors():
        from harness.cost.cost import CostProtocol
        from harness.files import write_text
        from harness.report.plots import plot_speedup_vs_scales
        from harness.runner import check_device, runs_root
        from harness.scales import measure_scales

        place = check_device(device)
        protocol = CostProtocol(batch_sizes=tuple(_integers("--cost-batch-sizes", cost_batch_sizes)), max_seconds=cost_seconds)
        with _progress() as progress:
            frame = measure_scales(
                decoder, _integers("--scales", scales), steps, resolution, protocol, place, _dtype(dtype), progress
            )
        stem = output or runs_root() / f"scales-{place.type}"
        write_text(stem.with_suffix(".csv"), frame.to_csv(index=False, float_format="%.4g"))
        title = f"{steps} Euler steps at {resolution} px, spread over K scales ({place.type})"
        plot_speedup_vs_scales(frame, stem.with_suffix(".svg"), stem.with_suffix(".png"), title)
        console = _console(as_json)
        console.print(frame.to_string(index=False, float_format=lambda value: f"{value:.4g}"), soft_wrap=True)
        console.print(f"table and plot in {stem}.csv, .svg, .png", soft_wrap=True)
        if as_json:
            _print_json({"schema_version": 1, "status": "complete", "results": frame.to_dict(orient="records")})


@app.command("ls")
def ls_command(
    what: Annotated[str, typer.Argument(help="decoders, datasets or metrics.")],
    as_json: JsonFlag = False,
) -> None:
    """List what there is: decoders, datasets or metrics."""
    with _user_errors():
        from rich.table import Table

        rows = _listing(what)
        table = Table(box=None, pad_edge=False)
        for column in rows[0]:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(str(value) for value in row.values()))
        if as_json:
            _print_json({"schema_version": 1, "status": "complete", "results": rows})
        else:
            _console(False).print(table)


@weights_app.command("fetch")
def weights_fetch_command(
    names: Annotated[list[str] | None, typer.Argument(help="inception, lpips-alex, lpips-vgg; default: all.")] = None,
    offline: Offline = False,
) -> None:
    """Bring the metric networks' weights into the cache, checked."""
    with _user_errors():
        from harness import weights

        console = _console(True)
        for fetched in weights.fetch(names or None, offline=offline, report=lambda line: console.print(line, soft_wrap=True)):
            _console(False).print(f"{fetched.name}: {fetched.source} ({fetched.path})", soft_wrap=True)


@weights_app.command("verify")
def weights_verify_command(as_json: JsonFlag = False) -> None:
    """Check the cached weights by content; exit 1 where one is absent or wrong."""
    with _user_errors():
        from harness import weights

        rows = [{"name": s.name, "state": s.state, "detail": s.detail, "path": str(s.path)} for s in weights.verify()]
        for row in rows:
            _console(as_json).print(f"{row['name']}: {row['state']} {row['detail']} ({row['path']})", soft_wrap=True)
        good = all(row["state"] == "ok" for row in rows)
        if as_json:
            _print_json({"schema_version": 1, "status": "complete" if good else "failed", "results": rows})
        if not good:
            raise typer.Exit(1)


@app.command("doctor")
def doctor_command(as_json: JsonFlag = False) -> None:
    """Check this machine and installation: libraries, devices, weights, checkpoints; exit 1 where something is missing."""
    with _user_errors():
        from harness.doctor import examine

        checks = examine()
        for check in checks:
            _console(as_json).print(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}", soft_wrap=True)
        good = all(check.ok for check in checks)
        if as_json:
            rows = [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks]
            _print_json({"schema_version": 1, "status": "complete" if good else "failed", "results": rows})
        if not good:
            raise typer.Exit(1)


def run() -> None:
    """Entry point of the console script."""
    app(prog_name="msbench")


@contextmanager
def _user_errors() -> Iterator[None]:
    """Turn an error a user can act on into one line on stderr and exit code 2."""
    try:
        yield
    except MsbenchError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None


def _fail(message: str) -> NoReturn:
    typer.echo(f"msbench: {' '.join(message.split())}", err=True)
    raise typer.Exit(2) from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _integers(option: str, text: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise MsbenchError(f"{option} {text}: give whole numbers separated by commas, such as 1,8") from error
    if not values or min(values) < 1:
        raise MsbenchError(f"{option} {text}: every number must be at least 1")
    return values


def _dtype(name: str) -> torch.dtype:
    import torch

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name not in dtypes:
        raise UnknownNameError("dtype", name, dtypes)
    return dtypes[name]


def _run_argument(text: str) -> tuple[Any, str | None]:
    """RUN or RUN:DECODER."""
    from harness.record import read_record

    if Path(text).exists():
        return read_record(Path(text)), None
    path, _, decoder = text.rpartition(":")
    if path and Path(path).exists():
        return read_record(Path(path)), decoder
    raise MsbenchError(f"no run at {text}: give the folder that `msbench run` printed, or FOLDER:DECODER")


def _listing(what: str) -> list[dict[str, Any]]:
    if what == "decoders":
        from harness.registry import decoder_entries

        return [{"name": e.name, "from": e.origin, "description": e.description} for e in decoder_entries().values()]
    if what == "datasets":
        from harness.data.registry import dataset_names

        return [{"name": name, "description": description} for name, description in dataset_names().items()]
    if what == "metrics":
        from harness.metrics.registry import METRICS

        return [
            {"name": m.name, "better": m.direction, "per image": m.per_image, "unit": m.unit, "description": m.description}
            for m in METRICS.values()
        ]
    raise UnknownNameError("listing", what, ("decoders", "datasets", "metrics"))


def _console(stderr: bool) -> Console:
    from rich.console import Console

    # A pipe has no width of its own; 110 columns keep the tables readable in a log.
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=110)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A progress bar on stderr where that is a terminal, else one line per stage."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = _console(True)
    if not console.is_terminal:
        last = ""

        def line(stage: str, done: int, total: int) -> None:
            nonlocal last
            name = stage.split(",")[0].rstrip("0123456789 ")
            if name != last:
                console.print(f"{stage} …", soft_wrap=True)
                last = name

        yield line
        return
    with Bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("starting", total=None)

        def update(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total)

        yield update


def _print_json(document: Any) -> None:
    from harness.record import plain

    sys.stdout.write(json.dumps(plain(document), allow_nan=False) + "\n")
