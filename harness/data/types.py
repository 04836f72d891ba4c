"""What passes between the parts of `harness.data`: requests in, entries and examples out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MIN_RESOLUTION = 32
"""smallest side of an image in pixels: the metric networks halve it up to five times"""
MAX_RESOLUTION = 8192
"""largest side of an image in pixels"""
NATIVE = "native"
"""in place of a resolution: every image keeps its own size"""


@dataclass(frozen=True, slots=True)
class Example:
    """One image as every metric sees it."""

    key: str
    """unique in the dataset, safe as a file name, the same on every machine"""
    image: npt.NDArray[np.uint8]
    """uint8 [R, R, 3], RGB; [H, W, 3] where images keep their own size"""
    label: str | None
    """class, where the dataset has classes"""
    source_photo: str
    """the photograph this image was cut from (statistics cluster by it); equal to `key` where each file is one image"""
    source_sha256: str
    """SHA-256 of the source file's bytes"""
    text: str | None = None
    """what stands written in the image, where that is known"""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that gave no example, and why."""

    name: str
    """the file, as its folder or tar names it"""
    reason: str
    """one line a user can act on"""


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What a record says about a dataset."""

    name: str
    """as the user wrote it"""
    split: str | None
    """which part, "val" or "train"; None where the dataset has no splits"""
    resolution: int
    """side R of every image, in pixels; 0 where each has a size of its own"""
    n_available: int
    """images the dataset holds (`n_original` in a record)"""
    n_selected: int
    """images left after `max_samples`; broken files are found only when read and still count here"""
    classes: int
    """number of classes; 0 where there are no labels"""
    partial: bool
    """true where the dataset should hold more images than it does here"""
    subset: str
    """how `max_samples` chose: "stratified by class", "stratified by photograph" or "unlabelled"; empty for everything"""
    demo: bool
    """true for a set too small for its rFID to be more than a smoke test"""
    note: str
    """what a reader of the figures should know about this dataset, in one line; may be empty"""
    preprocessing: str
    """versioned name of the way from file to pixels"""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one example comes from, before anything is read."""

    key: str
    """see `Example.key`"""
    name: str
    """path inside the source, with forward slashes"""
    label: str | None
    """see `Example.label`"""
    source_photo: str
    """see `Example.source_photo`"""
    corner: tuple[int, int] | None = None
    """(left, top) of an R×R crop at native resolution; None = centre crop"""
    text: str | None = None
    """see `Example.text`"""


class Source(Protocol):
    """Gives the bytes of a file. Safe to call from several threads."""

    def read(self, name: str) -> bytes:
        """Bytes of the file called `name`; raises OSError where it cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for; `open_dataset` checks the plain values before a dataset sees it."""

    name: str
    """a key of `dataset_names()`, with a real path in place of PATH"""
    data_dir: Path | None = None
    """folder or tar with the data"""
    resolution: int | None = None
    """side in pixels, `MIN_RESOLUTION` to `MAX_RESOLUTION`; None = 224 for imagenette, else 256"""
    max_samples: int | None = None
    """size of a class-stratified subset (`photos`: by photograph); None = everything"""
    seed: int = 0
    """seed of the subset, nothing else"""
    allow_upsampling: bool = False
    """enlarge images smaller than the resolution instead of leaving them out"""
    split: str = "val"
    """which part, "val" or "train"; datasets without parts ignore it"""
    offline: bool = False
    """never touch the network"""
    as_given: bool = False
    """nothing is cropped: every image keeps its pixels and its own size"""
