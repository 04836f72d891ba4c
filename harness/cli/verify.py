"""The command `msbench verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from harness.cli.shared import JsonFlag, print_json, progress_bar, say, show
from harness.report.table import MISSING, Cell, Table, listing, number

if TYPE_CHECKING:
    from harness.verify.verification import Verification


def verify_command(run: Path, images: Path | None = None, as_json: JsonFlag = False) -> None:
    """Compute every number of a run again and say what agrees; exit 1 where one does not.

    \b
    Example:
      msbench verify RUN --images DIR
    """
    from harness.verify.verification import verify

    with progress_bar() as progress:
        found = verify(run, images, progress)
    show(verification_table(found), stderr=as_json)
    for check in found.disagreements:
        who = f"{check.decoder} " if check.decoder else ""
        recorded, recomputed = _text(check.recorded), _text(check.recomputed)
        say(f"DISAGREES: {who}{check.number}: recorded {recorded}, recomputed {recomputed} ({check.how})", as_json)
    if found.images is None:
        say("no saved images: checks on pixels were left out; `msbench run --save-images DIR` keeps them", as_json)
    say(found.summary(), as_json)
    if as_json:
        print_json(found.document())
    if found.status == "disagrees":
        raise typer.Exit(1)


def verification_table(found: Verification) -> Table:
    """One row a check."""
    rows = []
    for check in found.checks:
        within = number(check.tolerance, lambda value: f"{value:.1e}")
        verdict = Cell(check.verdict, bold=check.verdict == "DISAGREES")
        rows.append((check.decoder, check.number, _cell(check.recorded), _cell(check.recomputed), within, check.how, verdict))
    return listing(("decoder", "number", "recorded", "recomputed", "within", "how", "verdict"), rows, wrap=("how",), keys=2)


def _cell(value: Any) -> Cell:
    return Cell(value, (_text(value),)) if isinstance(value, float) else Cell(_text(value))


def _text(value: Any) -> str:
    """Eight figures of a number, twelve digits of a hash."""
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:.8g}"
    text = str(value)
    return f"{text[:12]}…" if len(text) > 24 else text
