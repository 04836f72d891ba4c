"""A run's figures and saved images for TensorBoard (extra `train`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import MsbenchError
from harness.files import safe_name
from harness.record.images import find_images, image_folder, read_png
from harness.record.record import Record
from harness.record.run import REFERENCE, open_run
from harness.report.results import figures

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
"""where it goes in the folder of a run or training"""
_IMAGES = 8  # of a row; thousands of them say no more


def summary_writer() -> type[SummaryWriter]:
    """TensorBoard's writer; raises `MsbenchError` where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MsbenchError("tensorboard is not installed: pip install msbench[train], or leave it off") from error
    return SummaryWriter


def write_events(record: Record) -> Path:
    """Write each row as a run of its own, its figures under their names in the CSV; returns the folder.

    The first saved images stand beside them, and their originals in `reference`. What an earlier call wrote is replaced.

    Raises:
        MsbenchError: TensorBoard is not installed, or a file of the run is damaged.
    """
    run, kind, root = open_run(record), summary_writer(), record.folder / FOLDER
    saved = find_images(run, None)
    for row in (*([{}] if saved else ()), *record.rows_for_people()):
        label = row.get("label")
        writer = kind(str(root / (safe_name(label) if label else REFERENCE)), purge_step=0)
        for figure in figures([row]) if label else ():
            if (value := figure.value(row)) is not None:
                writer.add_scalar(figure.column, value, 0)  # type: ignore[no-untyped-call]
        if saved:
            folder = image_folder(saved, run, label, run.seeds(label)[0]) if label else saved / REFERENCE
            for path in (folder / f"{key}.png" for key in run.keys[:_IMAGES]):
                if path.is_file():
                    writer.add_image(path.stem, read_png(path), 0, dataformats="HWC")  # type: ignore[no-untyped-call]
        writer.close()  # type: ignore[no-untyped-call]
    return root
