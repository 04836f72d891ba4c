"""What conventions are computed from: a run's samples and features, its saved images, the original files, its decoder.

Pictures come in streams, named here. A stream comes from files, from the decoder, or from another stream by a function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.dataset import Dataset
from harness.data.images import ImageError, decode
from harness.data.registry import open_dataset
from harness.data.types import Entry, Request
from harness.decoder import Decoder
from harness.errors import MsbenchError
from harness.explain import views
from harness.explain.convention import Image
from harness.metrics.metric import Whole
from harness.noise import SampleNoise
from harness.record.images import absent_images, find_images, image_folder, read_png
from harness.record.rebuilt import other_weights, rebuild
from harness.record.run import REFERENCE, Run
from harness.record.schema import Result
from harness.registry import find_entry
from harness.run.config import parse_dtype
from harness.run.independence import seeded
from harness.run.reconstruct import decoded

IMAGES, ORIGINALS, DECODER = "saved images", "original files", "decoder"


@dataclass(frozen=True, slots=True)
class Redo:
    """How a stream of decoder outputs comes about."""

    input: str
    """stream that is encoded"""
    dtype: str = ""
    """arithmetic of the decoder; empty = the run's"""
    own: Mapping[str, str] = field(default_factory=dict)
    """options that only some decoders have"""


REDONE: dict[str, Redo] = {
    "floats": Redo("reference"),
    "squashed floats": Redo("squashed"),
    "antialiased floats": Redo("antialiased"),
    "sampled floats": Redo("reference", own={"posterior": "sample"}),
    "bf16 floats": Redo("reference", "bf16"),
    "fp32 floats": Redo("reference", "fp32"),
}
"""stream of decoder outputs, float32 in [0, 255], clamped -> what makes it"""
DERIVED: dict[str, tuple[str, Callable[[Image, int], Image]]] = {
    "jpeg 95": ("decoded", partial(views.jpeg, 95)),
    "jpeg 75": ("decoded", partial(views.jpeg, 75)),
    "squashed": ("original", views.squashed),
    "antialiased": ("original", partial(views.short_side, True)),
    "aliased": ("original", partial(views.short_side, False)),
    "truncated": ("floats", views.truncated),
    "unrounded": ("floats", views.unrounded),
    **{name.removesuffix(" floats"): (name, views.rounded) for name in list(REDONE)[3:]},
    "squashed decoded": ("squashed floats", views.rounded),
    "antialiased decoded": ("antialiased floats", views.rounded),
}
"""stream -> the stream it is made of, and how, given the run's resolution"""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and covariance of somebody else's reference features."""

    mean: NDArray[np.float64]
    """[2048]"""
    covariance: NDArray[np.float64]
    """[2048, 2048]"""


@dataclass(frozen=True, slots=True)
class Sources:
    """All there is of one row."""

    run: Run
    """the run"""
    result: Result
    """the row"""
    seed: int
    """the first of its noise seeds, which everything is computed of"""
    whole: Whole
    """its samples, and features [n, 0] where none were kept"""
    absent: Mapping[str, str]
    """source that is not there -> what it needs"""
    images: Path | None
    """folder of saved images"""
    dataset: Dataset | None
    """the original files"""
    entries: Mapping[str, Entry]
    """key -> where its original lies"""
    decoders: Mapping[str, Decoder | str]
    """stream of decoder outputs -> the decoder that makes it, or what it needs"""
    statistics: Statistics | None
    """from a file"""

    def lacks(self, stream: str) -> str:
        """What a stream needs that is not there; empty where it can be had."""
        if stream in DERIVED:
            return self.lacks(DERIVED[stream][0])
        if stream in REDONE:
            built = self.decoders[stream]
            return built if isinstance(built, str) else self.lacks(REDONE[stream].input)
        if stream == "original" or (stream == "reference" and self.images is None):
            return self.absent.get(ORIGINALS, "")
        return "" if self.images is not None else self.lacks("floats") and self.absent[IMAGES]

    def origin(self, stream: str) -> str:
        """Which source a stream comes from."""
        if stream in DERIVED:
            return self.origin(DERIVED[stream][0])
        if stream in REDONE or (stream == "decoded" and self.images is None):
            return DECODER
        return ORIGINALS if stream == "original" or self.images is None else IMAGES


def open_sources(
    run: Run, label: str, images: Path | None, data_dir: Path | None, redo: bool, statistics: Path | None
) -> Sources:
    """Find what there is of one row.

    Raises:
        MsbenchError: what was asked for by name is not there, damaged, or not the run's.
    """
    result = next(one for one in run.record.data.results if one.label == label)
    seed, absent = run.seeds(label)[0], {}
    folder = find_images(run, images)
    if folder is None:
        absent[IMAGES] = "saved images: run with --save-images, or name them by --images"
    else:
        missing = [
            path
            for where in (folder / REFERENCE, image_folder(folder, run, label, seed))
            for path in absent_images(where, run.keys)
        ]
        if missing:
            absent[IMAGES], folder = f"saved images ({len(missing)} are missing, first {missing[0]})", None
    dataset: Dataset | None = None
    entries: dict[str, Entry] = {}
    try:
        dataset, entries = _originals(run, data_dir)
    except MsbenchError as error:
        if data_dir is not None:
            raise
        absent[ORIGINALS] = f"the original files, by --data-dir ({error})"
    mine = run.of(label)
    columns = mine[mine["noise_seed"] == seed].select_dtypes("float64")
    kept, none = run.features(label), np.empty((len(run.keys), 0), dtype=np.float32)
    reference, features = (kept[0], kept[1][0]) if kept else (none, none)
    whole = Whole(reference, features, {str(name): values.to_numpy() for name, values in columns.items()})
    if not redo:
        absent[DECODER] = "the decoder: ask for it by --redo"
    decoders = {stream: absent.get(DECODER) or _built(run, result, how) for stream, how in REDONE.items()}
    given = _statistics(statistics, whole) if statistics else None
    return Sources(run, result, seed, whole, absent, folder, dataset, entries, decoders, given)


def _originals(run: Run, data_dir: Path | None) -> tuple[Dataset, dict[str, Entry]]:
    """The run's dataset opened again, and its entries by key; every file's hash is the run's."""
    config: Mapping[str, Any] = run.record.data.config
    if "dataset" not in config:
        raise MsbenchError("the record does not say which")
    names = ("resolution", "max_samples", "seed", "allow_upsampling", "split")
    place = data_dir or (Path(str(config["data_dir"])) if config.get("data_dir") else None)
    name = str(config["dataset"])
    if data_dir is not None and name.startswith("folder:"):
        name = "folder:"
    dataset = open_dataset(Request(name, place, **{key: config[key] for key in names if key in config}, offline=True))
    entries = {entry.key: entry for entry in dataset.entries}
    hashes = run.of(run.record.data.results[0].label).drop_duplicates("key").set_index("key")["source_sha256"]
    for key in run.keys:
        if key not in entries:
            raise MsbenchError(f"{key} is not there")
        if entries[key].corner is not None:
            raise MsbenchError(f"of a data set of one image a file; {key} is a part of {entries[key].name}")
        try:
            digest = hashlib.sha256(dataset.read(entries[key])).hexdigest()
        except OSError as error:
            raise MsbenchError(f"{entries[key].name} cannot be read: {error.strerror or error}") from error
        if digest != hashes[key]:
            raise MsbenchError(f"{entries[key].name} has another SHA-256 than in the run")
    return dataset, entries


def _built(run: Run, result: Result, how: Redo) -> Decoder | str:
    """The row's decoder built again in another way, or what that would need."""
    used = run.record.data.setting.dtype
    if how.dtype == used:
        return f"another dtype than the run's own {used}"
    if missing := set(how.own) - set(find_entry(result.decoder)[0].own):
        return f"a decoder with the option {', '.join(sorted(missing))}"
    built = rebuild(result, parse_dtype(how.dtype or used), how.own)
    if isinstance(built, str):
        return f"the decoder ({built})"
    return "the run's weights: those here are others" if other_weights(run, result, built) else built


def _statistics(path: Path, whole: Whole) -> Statistics:
    """`mu` and `sigma` of an .npz, as pytorch-fid, clean-fid and ADM write them."""
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, covariance = (np.asarray(file[name], dtype=np.float64) for name in ("mu", "sigma"))
    except (OSError, ValueError, KeyError, EOFError, TypeError) as error:
        raise MsbenchError(f"--statistics {path}: no .npz with plain arrays mu and sigma ({error})") from error
    width = whole.features.shape[1] or len(mean)
    if mean.shape != (width,) or covariance.shape != (width, width) or not np.isfinite(mean.sum() + covariance.sum()):
        raise MsbenchError(
            f"--statistics {path}: mu {mean.shape} and sigma {covariance.shape}, wanted finite ({width},) and {(width,) * 2}"
        )
    return Statistics(mean, covariance)


class Batch:
    """Some images; each stream is made when it is first asked for."""

    def __init__(self, sources: Sources, keys: Sequence[str]) -> None:
        self._sources, self._keys, self._made = sources, keys, dict[str, list[Image]]()

    def __getitem__(self, stream: str) -> list[Image]:
        """The pictures of a stream that `Sources.lacks` nothing for.

        Raises:
            MsbenchError: a file cannot be read, or the decoder fails.
        """
        if stream not in self._made:
            self._made[stream] = self._make(stream)
        return self._made[stream]

    def _make(self, stream: str) -> list[Image]:
        sources = self._sources
        resolution = sources.run.record.data.protocol.resolution
        if stream in DERIVED:
            parent, function = DERIVED[stream]
            return [function(image, resolution) for image in self[parent]]
        if stream in REDONE:
            built = sources.decoders[stream]
            assert not isinstance(built, str)  # else the stream lacks it
            return self._decoded(built, self[REDONE[stream].input])
        if stream != "original" and sources.images is not None:
            where = image_folder(sources.images, sources.run, sources.result.label, sources.seed)
            folder = sources.images / REFERENCE if stream == "reference" else where
            return [read_png(folder / f"{key}.png") for key in self._keys]
        if stream == "decoded":
            return [views.rounded(image, resolution) for image in self["floats"]]
        assert sources.dataset is not None
        entries = [sources.entries[key] for key in self._keys]
        try:
            pictures = [decode(sources.dataset.read(entry)) for entry in entries]
        except (ImageError, OSError) as error:
            raise MsbenchError(f"the original files changed while they were read: {error}") from error
        if stream == "original":
            return [np.array(picture, dtype=np.uint8) for picture in pictures]
        return [sources.dataset.cropped(entry, picture) for entry, picture in zip(entries, pictures, strict=True)]

    def _decoded(self, decoder: Decoder, inputs: Sequence[Image]) -> list[Image]:
        """What the decoder gives for pictures of one size: float32 in [0, 255], clamped."""
        facts = self._sources.run.record.data.decoders[self._sources.result.label].noise
        size = 1 if facts.global_draws else len(inputs)
        found: list[Image] = []
        for start in range(0, len(inputs), size):
            keys, part = self._keys[start : start + size], np.stack(inputs[start : start + size])
            noise = SampleNoise.for_samples(self._sources.seed, keys)
            with seeded(self._sources.seed, keys, torch.device("cpu")):
                output = decoded(decoder, torch.from_numpy(part).permute(0, 3, 1, 2).contiguous(), noise, keys)[1]
            levels = (output.float().clamp(-1.0, 1.0) + 1.0) * 127.5
            found += list(levels.permute(0, 2, 3, 1).contiguous().numpy())
        return found
