"""Text for people while a command works: the console, one line, and how far it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from harness.report.table import visible

if TYPE_CHECKING:
    from rich.console import Console

    from harness.stopwatch import Progress

_PIPE_WIDTH = 170  # a pipe has no width of its own


def say(line: str, stderr: bool = False) -> None:
    """Print one line, text from outside made visible."""
    print(visible(line), file=sys.stderr if stderr else sys.stdout)


def console_for(stderr: bool) -> Console:
    """stdout's or stderr's console; interprets nothing."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            """Leave it to `boundary`."""
            raise BrokenPipeError

    stream: TextIO = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Plain(file=stream, highlight=False, markup=False, emoji=False, width=width)


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
                say(f"{100 * share:3.0f}% {stage}", stderr=True)
                printed = share

        yield line
        return
    stage_column = TextColumn("{task.description}", markup=False)
    with Bar(stage_column, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("starting", total=None)

        def update(stage: str, done: int, total: int) -> None:
            bar.update(task, description=visible(stage), completed=done, total=total)

        yield update
