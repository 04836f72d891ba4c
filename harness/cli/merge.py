"""`msbench merge`: shards of one run, measured apart, as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import shared
from harness.cli.run import show_record
from harness.environment import command_line


def merge_command(
    shards: list[Path], output_dir: Annotated[Path, typer.Option()], columns: str = "", as_json: shared.JsonFlag = False
) -> None:
    """Join the shards of one run (`run --shard I/N`) into that run; cost is not measured.

    \b
    Examples:
      msbench merge shard-1 shard-2 shard-3 --output-dir whole
    """
    from harness.run.merge import merge

    record = merge(shards, output_dir, command_line())
    show_record(record, record.data.dataset.info.name, shared.parse_names(columns), None, as_json)
