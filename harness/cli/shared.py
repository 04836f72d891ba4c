"""What every command shares: options, one-line errors, the console, progress and JSON output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from harness.errors import MsbenchError, UnknownNameError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from harness.run.quality import Progress

DecoderList = Annotated[str, typer.Option("--decoder", help="Decoder names, separated by commas (`msbench ls decoders`).")]
DataDir = Annotated[Path | None, typer.Option(help="Where the dataset lies: a folder or a tar.")]
Resolution = Annotated[int | None, typer.Option(min=16, help="Side of every image in pixels; default: the dataset's own.")]
MaxSamples = Annotated[int | None, typer.Option(min=1, help="Seeded, class-stratified subset of this size.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, typer.Option(help="Arithmetic of the decoders: fp32, bf16 or fp16.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never touch the network.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; tables go to stderr.")]


@contextmanager
def user_errors() -> Iterator[None]:
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


def parse_names(text: str) -> tuple[str, ...]:
    """Decoder names from "a,b"."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_integers(option: str, text: str) -> list[int]:
    """Positive whole numbers from "1,8"; `option` names the culprit."""
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise MsbenchError(f"{option} {text}: give whole numbers separated by commas, such as 1,8") from error
    if not values or min(values) < 1:
        raise MsbenchError(f"{option} {text}: every number must be at least 1")
    return values


def parse_dtype(name: str) -> torch.dtype:
    """The torch dtype of --dtype."""
    from harness.run.config import DTYPES

    if name not in DTYPES:
        raise UnknownNameError("dtype", name, DTYPES)
    return DTYPES[name]


def console_for(stderr: bool) -> Console:
    """stdout's or stderr's console."""
    from rich.console import Console

    # A pipe has no width of its own; 110 columns keep the tables readable in a log.
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=110)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress bar on stderr where that is a terminal, else one line per stage."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = console_for(True)
    if not console.is_terminal:
        printed = -1.0

        def line(stage: str, done: int, total: int) -> None:
            nonlocal printed
            share = done / max(1, total)
            if share >= printed + 0.1 or share < printed or done == total:
                console.print(f"{100 * share:3.0f}% {stage}", soft_wrap=True)
                printed = share

        yield line
        return
    with Bar(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as bar:
        task = bar.add_task("starting", total=None)

        def update(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total)

        yield update


@contextmanager
def prints_to_stderr(wanted: bool) -> Iterator[None]:
    """Where `wanted`, what is written to stdout inside goes to stderr, by its file descriptor too."""
    if not wanted:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def print_json(document: Any) -> None:
    """The one document on stdout: JSON types only, NaN and infinities as null."""
    from harness.record.record import plain

    sys.stdout.write(json.dumps(plain(document), allow_nan=False) + "\n")
