"""The log of a training: log.csv, and TensorBoard's scalars where asked for."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import MsbenchError
from harness.files import atomic_path
from harness.report.tensorboard import FOLDER, summary_writer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RunLog:
    """Rows of scalars by step, in `folder`/log.csv and, if asked for, `folder`/tensorboard."""

    def __init__(self, folder: Path, tensorboard: bool = False) -> None:
        """Raises `MsbenchError` where TensorBoard is asked for and not installed; nothing is written before the first row."""
        self.path = folder / "log.csv"
        self._events = folder / FOLDER
        self._type = summary_writer() if tensorboard else None
        self._writer: SummaryWriter | None = None

    def trim(self, step: int) -> None:
        """Drop the rows after `step`: a run killed after its last save logged them, and will log them again.

        Raises:
            MsbenchError: the file is damaged.
        """
        if self._type is not None:
            self._writer = self._type(str(self._events), purge_step=step + 1)
        if not self.path.exists():
            return
        try:
            with self.path.open(newline="", encoding="utf-8") as stream:
                header, *rows = list(csv.reader(stream)) or [["step"]]
            if rows and len(rows[-1]) < len(header):
                del rows[-1]  # it was being written
            if header[0] != "step" or any(len(row) != len(header) for row in rows):
                raise ValueError("rows and columns do not fit")
            steps = [[float(cell) for cell in row][0] for row in rows]  # noqa: RUF015 (every cell must be a number)
            kept = [row for row, at in zip(rows, steps, strict=True) if at <= step]
        except (OSError, ValueError, csv.Error) as error:
            raise MsbenchError(f"{self.path}: not the log of a training ({error}); move it away to go on without") from error
        if not kept:
            self.path.unlink()
            return
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as stream:
            csv.writer(stream).writerows([header, *kept])

    def write(self, row: Mapping[str, float]) -> None:
        """Append one row; its first column is "step", and all rows of a run have the same columns."""
        fresh = not self.path.exists()
        with self.path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            if fresh:
                writer.writeheader()
            writer.writerow({key: value if isinstance(value, int) else f"{value:.6g}" for key, value in row.items()})
        if self._writer is not None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, int(row["step"]))  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self._writer is not None:
            self._writer.close()  # type: ignore[no-untyped-call]
