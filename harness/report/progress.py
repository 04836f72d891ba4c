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

    class Pace(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.3g}/s" if task.speed else "")

    console, printed, stage = console_for(True), -1.0, TextColumn("{task.description}", markup=False)
    columns = stage, BarColumn(), MofNCompleteColumn(), Pace(), TimeRemainingColumn()
    hour = 3600.0  # that a pace is taken over: one batch of a slow decoder takes minutes
    with Bar(
        *columns, console=console, disable=not console.is_terminal, get_time=time.monotonic, speed_estimate_period=hour
    ) as bar:
        bar.add_task("starting", total=None)
        (now,) = bar.tasks

        def update(stage: str, done: int, total: int) -> None:
            nonlocal printed
            share = done / max(1, total)
            if done < now.completed or total != now.total:
                bar.reset(now.id)  # another stage has another pace
            bar.update(now.id, description=visible(stage), completed=done, total=total)
            if not console.is_terminal and (share >= printed + 0.1 or share < printed or done == total):
                left = f", {timedelta(seconds=now.time_remaining or 0)} left" * (done < total)
                say(f"{100 * share:3.0f}% {stage}" + (f", {now.speed:.3g}/s{left}" if now.speed else ""), stderr=True)
                printed = share

        yield update
