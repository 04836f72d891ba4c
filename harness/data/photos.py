"""`photos`: the embedded demo set, disjoint native-resolution crops of everyday colour photographs.

The photographs are files inside packages that msbench installs anyway; nothing is copied or downloaded. Credits, as the
packages state them (scikit-image: docstrings of `skimage.data`; scikit-learn: `datasets/images/README.txt`):

    astronaut        NASA Great Images; no known copyright restrictions, public domain
    chelsea          Stéfan van der Walt; CC0
    coffee           Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0
    rocket           SpaceX; public domain
    motorcycle_left  Middlebury 2014 stereo benchmark (Nesic, Westling, Wang, Kitajima, Krathwohl, Scharstein), reduced 4×
    china            danielbuechele on Flickr; CC BY 2.0
    flower           vultilion on Flickr; CC BY 2.0

Left out on purpose: the right-hand twin of the motorcycle (the same scene twice), microscopy, medical and telescope pictures,
and textures and drawings. Too few images for rFID to mean anything: the set shows that everything works.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.data.dataset import DEFAULT_RESOLUTION, Dataset, build_dataset
from harness.data.images import ImageError, image_size
from harness.data.types import Entry, Request
from harness.errors import MsbenchError

NATIVE_CROP = "native-grid-crop-v1"
"""a centred grid of disjoint R×R tiles, no resampling"""


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph and the package that carries it."""

    name: str
    """short name; crops of it share this as `source_photo`"""
    package: str
    """import name of the package"""
    distribution: str
    """what to install"""
    path: str
    """file inside the package"""


PHOTOS = (
    Photo("astronaut", "skimage", "scikit-image>=0.22", "data/astronaut.png"),
    Photo("chelsea", "skimage", "scikit-image>=0.22", "data/chelsea.png"),
    Photo("coffee", "skimage", "scikit-image>=0.22", "data/coffee.png"),
    Photo("motorcycle", "skimage", "scikit-image>=0.22", "data/motorcycle_left.png"),
    Photo("rocket", "skimage", "scikit-image>=0.22", "data/rocket.jpg"),
    Photo("china", "sklearn", "scikit-learn>=1.3", "datasets/images/china.jpg"),
    Photo("flower", "sklearn", "scikit-learn>=1.3", "datasets/images/flower.jpg"),
)


@dataclass(frozen=True, slots=True)
class InstalledFiles:
    """Named files anywhere on disk."""

    paths: Mapping[str, Path]
    """name -> file"""

    def read(self, name: str) -> bytes:
        """Bytes of the file; raises OSError."""
        return self.paths[name].read_bytes()


def find_photo(photo: Photo) -> Path:
    """The installed file of `photo`, found without importing its package; raises MsbenchError that names what to install."""
    spec = importlib.util.find_spec(photo.package)
    for folder in (spec.submodule_search_locations if spec else None) or []:
        path = Path(folder) / photo.path
        if path.is_file():
            return path
    raise MsbenchError(f"photos: {photo.package}/{photo.path} is not installed; {_advice(photo)}")


def _advice(photo: Photo) -> str:
    return f"run: pip install --force-reinstall '{photo.distribution}'"


def grid_corners(width: int, height: int, resolution: int) -> list[tuple[int, int, int, int]]:
    """(row, column, left, top) of the disjoint R×R tiles of a centred grid; empty where not one fits."""
    columns, rows = width // resolution, height // resolution
    left, top = (width - columns * resolution) // 2, (height - rows * resolution) // 2
    return [(r, c, left + c * resolution, top + r * resolution) for r in range(rows) for c in range(columns)]


def open_photos(request: Request) -> Dataset:
    """Open the demo set. Subsets are stratified by photograph.

    Raises:
        MsbenchError: a photograph is not installed, a `data_dir` or the train split is asked for, or no crop is this large.
    """
    if request.data_dir is not None:
        raise MsbenchError("photos is built in and takes no --data-dir; for your own images use --dataset folder:PATH")
    if request.split != "val":
        raise MsbenchError("photos is a demo set without a train split; train on imagenette or folder:PATH")
    resolution = request.resolution or DEFAULT_RESOLUTION
    source = InstalledFiles({f"{photo.package}/{photo.path}": find_photo(photo) for photo in PHOTOS})
    entries = []
    for photo in PHOTOS:
        name = f"{photo.package}/{photo.path}"
        try:
            size = image_size(source.read(name))
        except (ImageError, OSError) as error:
            raise MsbenchError(f"photos: {source.paths[name]} cannot be read ({error}); {_advice(photo)}") from error
        tiles = [] if request.as_given else grid_corners(*size, resolution)
        entries += [Entry(f"{photo.name}-r{r}c{c}", name, None, photo.name, (left, top)) for r, c, left, top in tiles]
        entries += [Entry(photo.name, name, None, photo.name)] * request.as_given
    if not entries:
        raise MsbenchError(f"photos: no photograph holds a {resolution}-px crop; use a --resolution of 512 or less")
    photographs = len({entry.source_photo for entry in entries})
    return build_dataset(
        request,
        entries,
        source,
        preprocessing=NATIVE_CROP,
        notes=[f"demo set: {len(entries)} images of {photographs} photographs; its rFID is a smoke test, not a result"],
        demo=True,
        stratum=lambda entry: entry.source_photo,
        strata="photograph",
    )
