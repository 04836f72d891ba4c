"""What the scripts here share: their command lines, errors and tables."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import MsbenchError
from harness.files import write_text


def options(doc: str | None) -> argparse.ArgumentParser:
    """A command line whose help is the script's docstring."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def run_script(main: Callable[[], None]) -> int:
    """Exit code of a script: 0, or 2 with one line for what a user can mend."""
    try:
        main()
    except MsbenchError as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        return 2
    return 0


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path, columns: Sequence[str] = ()) -> None:
    """Rows as CSV: six significant digits, what is missing is empty. Columns are those of the first row by default."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns or list(rows[0]), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows)
    write_text(path, stream.getvalue())
