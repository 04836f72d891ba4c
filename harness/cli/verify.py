"""The command `msbench verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.shared import JsonFlag, console_for, print_json, progress_bar, user_errors

_LOG_WIDTH = 170  # a pipe has no width of its own; six columns need more than other tables
if TYPE_CHECKING:
    from rich.table import Table

    from harness.verify.verification import Verification


def verify_command(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of `run --save-images`; default: where the record says, if still there.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compute every number of a run again and say what agrees; exit 1 where one does not."""
    with user_errors():
        from harness.verify.verification import verify

        with progress_bar() as progress:
            found = verify(run, images, progress)
        console = console_for(as_json)
        if not console.is_terminal:
            console.width = _LOG_WIDTH
        console.print(verification_table(found))
        for check in found.disagreements:
            who = f"{check.decoder} " if check.decoder else ""
            console.print(
                f"DISAGREES: {who}{check.number}: recorded {_text(check.recorded)}, recomputed {_text(check.recomputed)} "
                f"({check.how})",
                soft_wrap=True,
                markup=False,
            )
        if found.images is None:
            console.print("no saved images: checks on pixels were left out; `msbench run --save-images DIR` keeps them")
        console.print(found.summary(), soft_wrap=True)
        if as_json:
            print_json(found.document())
        if found.status == "disagrees":
            raise typer.Exit(1)


def verification_table(found: Verification) -> Table:
    """One row a check."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("decoder", "number", "recorded", "recomputed", "within", "how", "verdict"):
        numeric = column in ("recorded", "recomputed", "within")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=column != "how")
    styles = {"agrees": "green", "DISAGREES": "bold red", "not checked": "dim"}
    for check in found.checks:
        within = "" if check.tolerance is None else f"{check.tolerance:.1e}"
        cells = (check.decoder, check.number, _text(check.recorded), _text(check.recomputed), within, check.how)
        table.add_row(*map(escape, cells), f"[{styles[check.verdict]}]{check.verdict}[/]")
    return table


def _text(value: Any) -> str:
    """Eight figures of a number, twelve digits of a hash."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.8g}"
    text = str(value)
    return f"{text[:12]}…" if len(text) > 24 else text
