"""What each convention of `msbench explain` shifts, for a few decoders, on pictures where crops and resizes show.

    python benchmarks/conventions.py --data imagenette-224-val.tar [--count 64] [--output results/conventions.csv]
    python benchmarks/conventions.py --tables docs/conventions.md      # the page's tables again, from that file if it is there

Two sets: cuts of 224 × 160, lying and standing in turn, from the pictures of `--data` (a folder or tar, 224 px or more) at
`--resolution 128`; and the whole photographs of the built-in demo set at 256 px.
"""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.plumbing import options, run_script, write_csv
from harness.data.photos import PHOTOS, find_photo
from harness.data.registry import open_dataset
from harness.data.types import Request
from harness.explain.explanation import explain
from harness.explain.registry import CONVENTIONS, METRICS, USERS
from harness.files import write_text
from harness.run.config import RunConfig
from harness.run.runner import evaluate

DECODERS = ("vae", "jpeg", "ms-onestep")
HEADING = "## The conventions\n"


def cuts(data: Path, count: int, folder: Path) -> None:
    """Write `count` cuts, as PNG."""
    dataset = open_dataset(Request("folder:", data, resolution=224, max_samples=count))
    for index, example in enumerate(dataset):
        height, width = (160, 224) if index % 2 else (224, 160)
        Image.fromarray(example.image[:height, :width]).save(folder / f"{example.key}.png")


def photographs(folder: Path) -> None:
    """Copy the photographs."""
    for photo in PHOTOS:
        path = find_photo(photo)
        shutil.copy(path, folder / f"{photo.name}{path.suffix}")


def shifts(name: str, folder: Path, resolution: int) -> list[dict[str, Any]]:
    """One row a decoder and convention that could be computed."""
    place = {"output_dir": folder.with_name(f"{name}-run"), "save_images": folder.with_name(f"{name}-images")}
    record = evaluate(RunConfig(DECODERS, f"folder:{folder}", resolution=resolution, cost=None, **place))
    rows = []
    for decoder in DECODERS:
        found = explain(record, decoder, redo=True)
        for one in (one for one in found.findings if one.value is not None):
            way = {"metric": one.convention.metric, "convention": one.convention.name, "source": one.source}
            rows.append({"set": name, "n": found.n, "decoder": decoder, **way, "value": one.value, "shift": one.shift})
    return rows


def write_tables(page: Path, measured: Path) -> None:
    """Write every convention, who uses it and its measured shifts below the page's last heading."""
    rows = list(csv.DictReader(measured.open())) if measured.is_file() else []
    shift = {(row["set"], row["decoder"], row["metric"], row["convention"]): f"{float(row['shift']):+.3g}" for row in rows}
    columns = list(dict.fromkeys(key[:2] for key in shift))
    lines = [page.read_text().partition(HEADING)[0] + HEADING]
    for metric in METRICS:
        heads = [metric, "used by", *(f"{decoder}, {name}" for name, decoder in columns)]
        lines += ["", f"| {' | '.join(heads)} |", "|---|---" + "|--:" * len(columns) + "|"]
        for one in (one for one in CONVENTIONS if one.metric == metric):
            users = ", ".join(f"[{user}]({USERS[user]})" for user in one.users)
            cells = (shift.get((*column, metric, one.name), "–") for column in columns)
            lines.append(f"| {' | '.join((one.name, users, *cells))} |")
    write_text(page, "\n".join(lines) + "\n")


def main() -> None:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, help="pictures of 224 px or more: a folder or a tar")
    parser.add_argument("--count", type=int, default=64, help="cuts")
    parser.add_argument("--tables", type=Path, help="write the tables of this page instead of measuring")
    parser.add_argument("--output", type=Path, default=Path("results/conventions.csv"))
    given = parser.parse_args()
    if given.tables or not given.data:
        write_tables(given.tables or parser.error("--data or --tables is needed"), given.output)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / name for name in ("cuts", "photographs")]
        for folder in folders:
            folder.mkdir()
        cuts(given.data, given.count, folders[0])
        photographs(folders[1])
        write_csv(shifts("cuts", folders[0], 128) + shifts("photographs", folders[1], 256), given.output)


if __name__ == "__main__":
    sys.exit(run_script(main))
