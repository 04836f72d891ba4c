"""A finished run with all it left behind, checked as a whole: `open_run` is the one way in for whoever compares or verifies.

`samples.parquet` has one row per decoder, noise seed and image: decoder (the row's label), noise_seed, key, label (of the
image), source_photo, source_sha256, then the columns of the metrics, and `FILE` for finished images. `features.safetensors`
holds Inception features, float32 [n, 2048] in the order of the images: "reference", and "LABEL/SEED" for each decoder and
noise seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import MsbenchError
from harness.files import atomic_path
from harness.record.record import SAMPLES, Record, read_record

if TYPE_CHECKING:
    import pandas as pd

FEATURES, REFERENCE = "features.safetensors", "reference"
FILE = "reconstruction_sha256"
"""column of the samples: SHA-256 of the file of a finished image; absent or null for decoders that decode"""
PIXELS_VERSION = "v2:"
"""begins every `reference_sha256`; those of records before there was a version have none"""
Features = NDArray[np.float32]
_TEXTS = ("decoder", "key", "source_photo", "source_sha256")


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """One complete run."""

    record: Record
    """what it found"""
    samples: pd.DataFrame
    """per-image values, one row per decoder, noise seed and image"""
    keys: tuple[str, ...]
    """its images, in order"""

    def __repr__(self) -> str:
        return f"<Run of {self.record!r}>"

    @property
    def has_features(self) -> bool:
        """Inception features were kept."""
        return (self.record.folder / FEATURES).is_file()

    def of(self, label: str) -> pd.DataFrame:
        """The samples of one decoder."""
        return self.samples[self.samples["decoder"] == label]

    def seeds(self, label: str) -> tuple[int, ...]:
        """Noise seeds that one decoder has values for."""
        return self.record.data.decoders[label].noise.seeds

    def columns(self, label: str, seed: int) -> dict[str, NDArray[np.float64]]:
        """The per-image columns of one decoder under one noise seed, [n] each."""
        mine = self.of(label)
        numbers = mine[mine["noise_seed"] == seed].select_dtypes("float64")
        return {str(name): values.to_numpy(np.float64) for name, values in numbers.items()}

    def features(self, label: str) -> tuple[Features, list[Features]] | None:
        """References' features [n, d] and the decoder's, one array a noise seed in their order; None where none were kept.

        Raises:
            MsbenchError: the file is damaged, or a value is not finite.
        """
        if not self.has_features:
            return None
        path = self.record.folder / FEATURES
        with _open_features(path) as file:
            names = [REFERENCE, *(feature_key(label, seed) for seed in self.seeds(label))]
            arrays = [file.get_tensor(name) for name in names]
        for name, array in zip(names, arrays, strict=True):
            if not np.isfinite(array).all():
                raise MsbenchError(f"{path}: {name} holds a value that is not finite: run it again")
        return arrays[0], arrays[1:]


def open_run(run: Path | Record) -> Run:
    """Read a run and check that its record, samples and features belong together.

    Raises:
        MsbenchError: something is missing or damaged; the message names file and place.
    """
    record = run if isinstance(run, Record) else read_record(run)
    data, path = record.data, record.folder / SAMPLES
    if not data.results:
        early = data.status != "complete"
        what = f", the run did not finish (status {data.status}): go on with it by --resume" if early else ": run it again"
        raise MsbenchError(f"{record.folder} holds no results{what}")
    labels = [result.label for result in data.results]
    if len(set(labels)) != len(labels) or set(labels) != set(data.decoders):
        raise MsbenchError(f"{record.folder}: results and decoders of the record name different rows: run it again")
    samples = record.samples()
    needed = {m for result in data.results for m, value in result.metrics.items() if value is not None}
    values = {name for name, facts in data.metrics.items() if facts.per_image and name in needed}
    if missing := {*_TEXTS, "noise_seed", *values} - set(samples.columns):
        raise MsbenchError(f"{path} lacks the column {', '.join(sorted(missing))}: run it again")
    for name in values:
        if samples[name].dtype.kind != "f":
            raise MsbenchError(f"{path}: the column {name} holds no numbers: run it again")
    keys = tuple(samples.loc[samples["decoder"] == labels[0], "key"].drop_duplicates())
    groups: dict[Any, pd.DataFrame] = dict(list(samples.groupby(["decoder", "noise_seed"], sort=False)))
    wanted = {(result.label, seed) for result in data.results for seed in data.decoders[result.label].noise.seeds}
    if wanted ^ groups.keys():
        label, seed = sorted(wanted ^ groups.keys(), key=str)[0]
        raise MsbenchError(f"{path}: {label} under noise seed {seed} is only in it or only in the record: run it again")
    for result in data.results:
        for seed in data.decoders[result.label].noise.seeds:
            mine = groups[result.label, seed]
            if tuple(mine["key"]) != keys or len(set(keys)) != result.n:
                raise MsbenchError(f"{path}: {result.label} has not each of {result.n} images once, in one order: run it again")
            for name in values:
                if result.metrics.get(name) is not None and mine[name].isna().any():
                    raise MsbenchError(f"{path}: {name} of {result.label} has gaps: run it again")
    opened = Run(record, samples, keys)
    if opened.has_features:
        _check_features(record.folder / FEATURES, [feature_key(label, seed) for label, seed in wanted], len(keys))
    return opened


def files_sha256(keys: Iterable[str], hashes: Iterable[str]) -> str:
    """SHA-256 over keys and file hashes, a line each."""
    return hashlib.sha256("".join(f"{key}\0{one}\n" for key, one in zip(keys, hashes, strict=True)).encode()).hexdigest()


def pixels_id(keys: Iterable[str], hashes: Iterable[bytes]) -> str:
    """`reference_sha256`: over keys and the hash of each image's shape and pixels, behind the version of this definition."""
    return PIXELS_VERSION + files_sha256(keys, (one.hex() for one in hashes))


def other_version(one: str, other: str) -> str:
    """What to say where one of two `reference_sha256` is of an earlier definition, so that they say nothing of pixels."""
    same = one.startswith(PIXELS_VERSION) == other.startswith(PIXELS_VERSION)
    return "" if same else "an older msbench hashed pixels in another way, so that they cannot be compared: run it again"


def feature_key(label: str, noise_seed: int) -> str:
    """Name of one decoder's features under one noise seed."""
    return f"{label}/{noise_seed}"


def write_samples(folder: Path, samples: pd.DataFrame) -> None:
    """Write the per-image values."""
    with atomic_path(folder / SAMPLES) as temporary:
        samples.to_parquet(temporary, index=False)


def write_features(folder: Path, reference: Features, decoders: Mapping[str, Mapping[int, Features]]) -> None:
    """Write the features [n, d] of the references and of each decoder and noise seed."""
    from safetensors.numpy import save_file

    tensors = {REFERENCE: np.ascontiguousarray(reference)}
    for name, seeds in decoders.items():
        for seed, features in seeds.items():
            tensors[feature_key(name, seed)] = np.ascontiguousarray(features)
    with atomic_path(folder / FEATURES) as temporary:
        save_file(tensors, temporary)
        temporary.chmod(0o644)


def _check_features(path: Path, names: list[str], n: int) -> None:
    """Every tensor is there, float32 [n, d] with one d."""
    with _open_features(path) as file:
        if missing := {REFERENCE, *names} - set(file.keys()):
            raise MsbenchError(f"{path} lacks {', '.join(sorted(missing))}: run it again")
        wide = file.get_slice(REFERENCE).get_shape()[-1:]
        for name in (REFERENCE, *names):
            part = file.get_slice(name)
            if part.get_shape() != [n, *wide] or part.get_dtype() != "F32":
                raise MsbenchError(f"{path}: {name} is {part.get_dtype()} {part.get_shape()}, not F32 [{n}, d]: run it again")


@contextmanager
def _open_features(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise MsbenchError(f"{path} is not a readable safetensors file ({error}): run it again") from error
