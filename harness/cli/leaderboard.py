"""The command `msbench leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.shared import JsonFlag, print_json, say


def leaderboard_command(
    folders: list[Path],
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o")],
    as_json: JsonFlag = False,
) -> None:
    """Make a page of many records: a table a protocol, and where each row comes from; exit 1 where one cannot be read.

    \b
    Example:
      msbench leaderboard results/runs --output-dir site
    """
    from harness.report.leaderboard import read_entries, write_page

    entries, unread = read_entries(folders)
    page = write_page(entries, unread, output_dir)
    for place, reason in unread:
        say(f"warning: {place} is left out: {reason}", stderr=True)
    say(f"{len(entries)} records in {page}", as_json)
    if as_json:
        print_json({"schema_version": 1, "page": page, "records": len(entries), "unread": dict(unread)})
    if unread:
        raise typer.Exit(1)
