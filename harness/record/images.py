"""Images that `run --save-images` wrote: reference/KEY.png and LABEL/KEY.png below one folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.errors import MsbenchError
from harness.files import safe_name
from harness.metrics.metric import Picture
from harness.record.run import REFERENCE, Run


def find_images(run: Run, given: Path | None) -> Path | None:
    """The folder of a run's saved images: the one given, else the one the record names, if that is still there.

    Raises:
        MsbenchError: the folder given is none such.
    """
    named = given or run.record.data.config.get("save_images")
    folder = Path(str(named)) if named and (Path(str(named)) / REFERENCE).is_dir() else None
    if given is not None and folder is None:
        raise MsbenchError(f"--images {given}: no folder `reference` in it; give the folder of `msbench run --save-images`")
    return folder


def image_folder(images: Path, run: Run, label: str, noise_seed: int) -> Path:
    """Where the reconstructions of a row under one noise seed lie."""
    first = noise_seed == run.seeds(label)[0]
    return images / safe_name(label) / ("" if first else f"noise-seed-{noise_seed}")


def absent_images(folder: Path, keys: tuple[str, ...]) -> list[Path]:
    """Those of KEY.png that are not in a folder."""
    return [path for path in (folder / f"{key}.png" for key in keys) if not path.is_file()]


def read_png(path: Path) -> Picture:
    """uint8 [H, W, 3] of an image file.

    Raises:
        MsbenchError: it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except OSError as error:
        raise MsbenchError(f"{path} cannot be read as an image ({error}): save the images again") from error
