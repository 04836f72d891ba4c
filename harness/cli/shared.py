"""What every command shares: options, the boundary where errors become exit codes, printing, progress and JSON output."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from harness.data.types import MAX_RESOLUTION, MIN_RESOLUTION, NATIVE
from harness.errors import ElsewhereError, MsbenchError
from harness.interrupt import EXIT_CODE, Terminated, terminable
from harness.report import progress
from harness.report.table import Table, terminal, visible

say, console_for, progress_bar = progress.say, progress.console_for, progress.progress_bar
DEBUG = "MSBENCH_DEBUG"
MAX_SEED = 2**63 - 1
_DOCUMENT = "document"  # attribute of stdout: where the JSON goes when stdout itself is turned to stderr


def finite(value: float | None) -> float | None:
    """Callback of options that take a number: `nan` and infinities are refused, which no range leaves out."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


def side_or_native(value: Any) -> int | str:
    """Parser of a resolution that may be `native`."""
    if str(value) == NATIVE:
        return NATIVE
    if not str(value).isdecimal() or not MIN_RESOLUTION <= int(value) <= MAX_RESOLUTION:
        raise typer.BadParameter(f"{value}: a whole number from {MIN_RESOLUTION} to {MAX_RESOLUTION}, or {NATIVE}")
    return int(value)


def _keep_stdout(asked: bool) -> bool:
    """With --json, whatever else is written to stdout, by a plug-in or a library it calls, goes to stderr."""
    with suppress(OSError, ValueError, AttributeError):  # a stdout that is no file has no descriptor to keep
        if asked and sys.stdout.fileno() == 1:
            kept = os.fdopen(os.dup(1), "w")
            os.dup2(2, 1)
            setattr(sys.stdout, _DOCUMENT, kept)
    return asked


def give_stdout_back() -> None:
    """Undo --json's turn of stdout, for processes that print the document themselves."""
    if (kept := getattr(sys.stdout, _DOCUMENT, None)) is not None:
        os.dup2(kept.fileno(), 1)


# What each means stands in options.toml.
Count = Annotated[int, typer.Option(min=1)]
CountIfAny = Annotated[int | None, typer.Option(min=1)]
Seconds = Annotated[float, typer.Option(min=0.01, max=86_400.0, callback=finite)]
DecoderList = Annotated[list[str], typer.Option("--decoder")]
Side = Annotated[int, typer.Option(min=MIN_RESOLUTION, max=MAX_RESOLUTION)]
SideIfAny = Annotated[int | None, typer.Option(min=MIN_RESOLUTION, max=MAX_RESOLUTION)]
SideOrNative = Annotated[Any, typer.Option(parser=side_or_native, metavar="PX|native")]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED)]
Resume = Annotated[bool, typer.Option("--resume")]
Offline = Annotated[bool, typer.Option("--offline")]
JsonFlag = Annotated[bool, typer.Option("--json", callback=_keep_stdout)]


class Commands(TyperGroup):
    """A group whose commands run inside `boundary`."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Read the options; --help is printed here."""
        with boundary():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with boundary(), terminable():
            return super().invoke(ctx)


@contextmanager
def boundary() -> Iterator[None]:
    """Turn whatever ends a command into one line on stderr and an exit code; the codes are those of `msbench --help`."""
    try:
        yield
        sys.stdout.flush()
    except (typer.Abort, KeyboardInterrupt, Terminated) as error:
        what, code = ("told to end (SIGTERM)", EXIT_CODE) if isinstance(error, Terminated) else ("interrupted", 130)
        _leave(f"{what}{'; ' * bool(str(error))}{error}" * (os.environ.get("RANK", "0") == "0"), code)
    except BrokenPipeError:
        _leave("", 141)  # as a shell reports a command whose reader has gone
    except MsbenchError as error:
        _leave(str(error) * (not isinstance(error, ElsewhereError)), 2)
    except OSError as error:
        names = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        _leave(f"{names or 'reading or writing'}: {error.strerror or error}", 2)
    except MemoryError as error:
        _leave(f"out of memory ({error or 'no size given'}): take a smaller --batch-size, --resolution or --max-samples", 2)
    except (Exception, SystemExit) as error:
        if hasattr(error, "exit_code"):  # how a command leaves, and how bad options are told
            raise
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        _leave(f"unexpected {what}{_at(error)}; {_keep_traceback()}", 3)


def _leave(message: str, code: int) -> NoReturn:
    """Say why, and leave with `code`."""
    if os.environ.get(DEBUG, "0") not in ("", "0") and code not in (EXIT_CODE, 130, 141):
        with suppress(OSError):
            traceback.print_exc()
    if message:
        with suppress(OSError):
            print(f"msbench: {visible(' '.join(message.split()))}", file=sys.stderr, flush=True)
    for stream in (sys.stdout, getattr(sys.stdout, _DOCUMENT, sys.stdout)):
        try:
            stream.flush()
        except OSError:  # what is held back cannot be written at the end either
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    raise typer.Exit(code) from None


def _at(error: BaseException) -> str:
    """Where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _keep_traceback() -> str:
    """Write the traceback of the current exception to a file; says which."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="msbench-", suffix=".txt", delete=False, errors="replace") as file:
            traceback.print_exc(file=file)
    except OSError:
        return "see it with `msbench --debug`"
    return f"traceback in {file.name}, or with `msbench --debug`"


def open_streams() -> None:
    """Make stdout and stderr take any text: signs that their encoding lacks are replaced, a closed one takes everything."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (as long as the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace" if name == "stdout" else "backslashreplace")


def parse_names(*texts: str) -> tuple[str, ...]:
    """The parts of "a,b" of each text; commas of a path that exists separate nothing."""
    from harness.request.requests import split_list

    return tuple(part for text in texts for part in split_list(text))


def read_run(text: str) -> tuple[Any, str | None]:
    """The record and the decoder that RUN or RUN:DECODER names, split at the last colon that a run's folder stands before.

    Raises:
        MsbenchError: there is no such folder, or no record in it.
    """
    from harness.record.record import read_record

    parts = text.split(":")
    for place in range(len(parts), 0, -1):
        run = ":".join(parts[:place])
        if run and Path(run).exists():
            return read_record(Path(run)), ":".join(parts[place:]) or None
    raise MsbenchError(f"no run at {text}: give the folder that `msbench run` printed, or FOLDER:DECODER")


def chosen(kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options of a command that a dataclass has fields for."""
    return {field.name: options[field.name] for field in fields(kind) if field.name in options}


def parse_integers(option: str, text: str, least: int = 1, most: int = 1_000_000) -> list[int]:
    """Whole numbers from "1,8"; `option` names the culprit of one outside `least` to `most`."""
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise MsbenchError(f"{option} {text}: give whole numbers separated by commas, such as 1,8") from error
    if min(values) < least or max(values) > most:
        raise MsbenchError(f"{option} {text}: every number must be at least {least} and at most {most:,}")
    return values


def show(*tables: Table, stderr: bool = False) -> None:
    """Print tables for people."""
    console = console_for(stderr)
    console.print(terminal(*tables, width=console.width))


def print_json(document: Any) -> None:
    """The one document on stdout: JSON types only, NaN and infinities as null."""
    from harness.record.record import plain

    stream = getattr(sys.stdout, _DOCUMENT, sys.stdout)
    stream.write(json.dumps(plain(document), allow_nan=False) + "\n")
    stream.flush()
