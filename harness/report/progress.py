"""Text for people while a command works: the console, one line, and how far it is."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
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
    """A progress bar on stderr where that is a terminal, else lines: how far a stage is, its pace and the time left.

    Under torchrun the first process alone shows one.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    if os.environ.get("RANK", "0") != "0":
        yield lambda stage, done, total: None
        return
    console = console_for(True)
    if not console.is_terminal:
        printed, began, first = -1.0, 0.0, 0

        def line(stage: str, done: int, total: int) -> None:
            nonlocal printed, began, first
            share = done / max(1, total)
            if share < printed or printed < 0:
                began, first = time.monotonic(), done
            if share >= printed + 0.1 or share < printed or done == total:
                pace = (done - first) / max(1e-9, time.monotonic() - began)
                left = f", {timedelta(seconds=round((total - done) / pace))} left" * (done < total) if pace else ""
                say(f"{100 * share:3.0f}% {stage}{f', {pace:.3g}/s' * (pace > 0)}{left}", stderr=True)
                printed = share

        yield line
        return

    class Pace(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.3g}/s" if task.speed else "")

    stage_column = TextColumn("{task.description}", markup=False)
    with Bar(stage_column, BarColumn(), MofNCompleteColumn(), Pace(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("starting", total=None)

        def update(stage: str, done: int, total: int) -> None:
            if done < bar.tasks[0].completed or total != bar.tasks[0].total:
                bar.reset(task)  # another stage has another pace
            bar.update(task, description=visible(stage), completed=done, total=total)

        yield update
