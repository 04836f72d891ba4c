"""What each convention of `msbench explain` shifts, for a few decoders, on pictures where crops and resizes show.

    python benchmarks/conventions.py --data imagenette-224-val.tar [--count 32] [--output results/conventions.csv]

Two sets: cuts of 224 × 160, lying and standing in turn, from the pictures of `--data` (a folder or tar, 224 px or more) at
`--resolution 128`; and the whole photographs of the built-in demo set at 256 px.
"""

from __future__ import annotations

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
from harness.run.config import RunConfig
from harness.run.runner import evaluate

DECODERS = ("vae", "jpeg", "ms-onestep")


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


def main() -> None:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="pictures of 224 px or more: a folder or a tar")
    parser.add_argument("--count", type=int, default=32, help="cuts")
    parser.add_argument("--output", type=Path, default=Path("results/conventions.csv"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / name for name in ("cuts", "photographs")]
        for folder in folders:
            folder.mkdir()
        cuts(given.data, given.count, folders[0])
        photographs(folders[1])
        write_csv(shifts("cuts", folders[0], 128) + shifts("photographs", folders[1], 256), given.output)


if __name__ == "__main__":
    sys.exit(run_script(main))
