"""What conventions are computed from: a run's samples and features, its saved images, the original files, its decoder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.dataset import Dataset
from harness.data.images import decode
from harness.data.registry import open_dataset
from harness.data.types import Request
from harness.decoder import Decoder, parse_dtype
from harness.errors import MsbenchError
from harness.explain import pairs, views
from harness.explain.pairs import Image
from harness.metrics.inception import WIDTH, FastInception
from harness.metrics.metric import Whole
from harness.noise import SampleNoise
from harness.record.images import find_images, image_folder, read_png
from harness.record.rebuilt import other_weights, rebuild
from harness.record.run import REFERENCE, Run
from harness.run.independence import seeded
from harness.run.reconstruct import decoded
from harness.stats.rfid import rfid_value

_BATCH = 16  # pictures at once


class Needs(Exception):
    """Something that a convention needs is not there; the message says what."""


class Sources:
    """All there is of one row of a run, under the first of its noise seeds.

    Args:
        run: the run.
        label: the row.
        images: folder of saved images; None = where the record says.
        data_dir: where the original files lie; None = where the record says.
        redo: the decoder may be run.
        statistics: an .npz with `mu` and `sigma`.

    Raises:
        MsbenchError: what was asked for by name is not there, damaged, or not the run's.
    """

    def __init__(
        self, run: Run, label: str, images: Path | None, data_dir: Path | None, redo: bool, statistics: Path | None
    ) -> None:
        self.run, self.label, self.seed = run, label, run.seeds(label)[0]
        self.result = next(row for row in run.record.data.results if row.label == label)
        self.resolution = run.record.data.protocol.resolution
        self._images, self._data_dir, self._redo = find_images(run, images), data_dir, redo
        self._given = _statistics(statistics) if statistics else None
        self._features: dict[tuple[Stream, View], NDArray[np.float32]] = {}
        self._judged: dict[tuple[Stream, Stream], dict[str, float]] = {}
        if images is not None and isinstance(self._saved, str):
            raise MsbenchError(f"--images {images}: {self._saved}")
        if data_dir is not None and isinstance(self._originals, str):
            raise MsbenchError(f"--data-dir {data_dir}: {self._originals}")

    @cached_property
    def samples(self) -> Whole:
        """Per-image values, without features."""
        none = np.empty((len(self.run.keys), 0), dtype=np.float32)
        return Whole(none, none, self.run.columns(self.label, self.seed))

    @cached_property
    def kept(self) -> Whole:
        """Per-image values and the features that the run kept."""
        features = self.run.features(self.label)
        if features is None:
            raise Needs("features.safetensors: run it again")
        return Whole(features[0], features[1][0], self.samples.columns)

    def statistics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean [2048] and covariance [2048, 2048] of somebody's reference."""
        if self._given is None:
            raise Needs("statistics of a reference: name them by --statistics")
        return self._given

    def saved(self, side: int) -> Iterator[Image]:
        """Saved images in the order of the run's keys: 0 = references, 1 = the row's."""
        if isinstance(self._saved, str):
            raise Needs(self._saved)
        return map(read_png, self._saved[side])

    def originals(self) -> Iterator[Image]:
        """The files that the run's images were made of, whole."""
        if isinstance(self._originals, str):
            raise Needs(f"the original files, by --data-dir ({self._originals})")
        dataset, entries = self._originals, {entry.key: entry for entry in self._originals.entries}
        return (np.array(decode(dataset.read(entries[key])), dtype=np.uint8) for key in self.run.keys)

    def redone(self, inputs: Iterable[Image], dtype: str, own: Mapping[str, str]) -> Iterator[Image]:
        """What the decoder gives for pictures: float32 in [0, 255], clamped; `dtype` is empty for the run's."""
        if self.run.record.data.protocol.latent_noise:
            raise Needs("a run without --latent-noise")
        decoder, keys = self._built(dtype, own), iter(self.run.keys)
        drawing = own or self.run.record.data.decoders[self.label].noise.global_draws  # an option may make it draw
        for images in _batches(inputs, 1 if drawing else _BATCH):
            names = list(islice(keys, len(images)))
            with seeded(self.seed, names, torch.device("cpu")):
                pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
                output = decoded(decoder, pixels, SampleNoise.for_samples(self.seed, names), names)[1]
            yield from ((output.float().clamp(-1.0, 1.0) + 1.0) * 127.5).permute(0, 2, 3, 1).contiguous().numpy()

    def features(self, stream: Stream, view: View) -> NDArray[np.float32]:
        """Inception features [n, 2048] of pictures that reach the network by `view`; computed once."""
        if (stream, view) not in self._features:
            parts = [self._network.pooled(torch.stack([*map(view, images)])) for images in _batches(stream(self), _BATCH)]
            self._features[stream, view] = torch.cat(parts).numpy()
        return self._features[stream, view]

    def judged(self, reference: Stream, stream: Stream) -> dict[str, float]:
        """The protocol's metrics of two streams, which the decoder may have to make: computed once."""
        if (reference, stream) not in self._judged:
            columns, parts = [], []
            for one, other in zip(reference(self), stream(self), strict=True):
                columns.append([of(one, other) for of in (pairs.psnr, pairs.ssim, pairs.lpips)])
                parts.append(self._network.pooled(views.tensorflow(other)[None]).numpy())
            kept = reference is saved_reference
            first = self.kept.reference_features if kept else self.features(reference, views.tensorflow)
            means = map(pairs.mean, zip(*columns, strict=True))
            values = (*means, rfid_value(first, np.concatenate(parts)))
            self._judged[reference, stream] = dict(zip(("psnr", "ssim", "lpips", "rfid"), values, strict=True))
        return self._judged[reference, stream]

    @cached_property
    def _network(self) -> FastInception:
        return FastInception(torch.device("cpu"))

    @cached_property
    def _saved(self) -> list[list[Path]] | str:
        """Saved references and reconstructions, of which each pair has the run's PSNR; or what is needed."""
        if self._images is None:
            return "saved images: run with --save-images, or name them by --images"
        folders = self._images / REFERENCE, image_folder(self._images, self.run, self.label, self.seed)
        paths = [[folder / f"{key}.png" for key in self.run.keys] for folder in folders]
        if missing := [path for side in paths for path in side if not path.is_file()]:
            return f"saved images: {len(missing)} are missing, first {missing[0]}"
        for first, second, known in zip(*paths, self.samples.columns["psnr"], strict=True):
            one, other = read_png(first), read_png(second)
            if one.shape != other.shape or not np.isclose(pairs.psnr(one, other), known, rtol=0.0, atol=1e-6):
                return f"the run's own saved images: {first} or {second} is another one"
        return paths

    @cached_property
    def _originals(self) -> Dataset | str:
        """The run's dataset opened again, every file with the run's hash; or why it is not there."""
        config: Mapping[str, Any] = self.run.record.data.config
        names = ("resolution", "max_samples", "seed", "allow_upsampling", "split")
        name, place = str(config.get("dataset")), self._data_dir or config.get("data_dir")
        name = f"{name.partition(':')[0]}:" if self._data_dir and ":" in name else name
        hashes = self.run.of(self.label).drop_duplicates("key").set_index("key")["source_sha256"]
        try:
            asked = {key: config[key] for key in names if key in config}
            dataset = open_dataset(Request(name, Path(str(place)) if place else None, offline=True, **asked))
            entries = {entry.key: entry for entry in dataset.entries}
            for key in self.run.keys:
                if key not in entries:
                    return f"{key} is not there"
                if entries[key].corner is not None:
                    return f"{key} is a part of {entries[key].name}: one image a file is wanted"
                if hashlib.sha256(dataset.read(entries[key])).hexdigest() != hashes[key]:
                    return f"{entries[key].name} has another SHA-256 than in the run"
        except (MsbenchError, OSError) as error:
            return str(error)
        return dataset

    def _built(self, dtype: str, own: Mapping[str, str]) -> Decoder:
        """The row's decoder built again."""
        used = str(self.result.options.get("dtype") or self.run.record.data.setting.dtype)
        if not self._redo:
            raise Needs("the decoder: ask for it by --redo")
        if dtype == used:
            raise Needs(f"another dtype than the run's own {used}")
        built = rebuild(self.run, self.result, parse_dtype(dtype or used), own)
        if isinstance(built, str):
            raise Needs(f"another decoder: {built}")
        if other_weights(self.run, self.result, built):
            raise Needs("the weights of the run: those here are others")
        return built


Stream = Callable[[Sources], Iterable[Image]]
"""Pictures of a row, in the order of the run's keys."""
View = Callable[[Image], Tensor]
"""A picture -> what the Inception network sees of it, float32 [3, 299, 299] in [-1, 1]."""


def saved_reference(sources: Sources) -> Iterator[Image]:
    """The run's references."""
    return sources.saved(0)


def saved(sources: Sources) -> Iterator[Image]:
    """The run's reconstructions."""
    return sources.saved(1)


def made(function: Callable[[Image, int], Image], stream: Stream = Sources.originals) -> Stream:
    """Another stream through a function of a picture and the run's resolution."""
    return lambda sources: (function(image, sources.resolution) for image in stream(sources))


def redone(inputs: Stream = saved_reference, dtype: str = "", own: Mapping[str, str] | None = None) -> Stream:
    """What the decoder gives for another stream."""
    return lambda sources: sources.redone(inputs(sources), dtype, own or {})


def rounded(inputs: Stream = saved_reference, dtype: str = "", own: Mapping[str, str] | None = None) -> Stream:
    """The same, rounded as the protocol does."""
    return made(views.rounded, redone(inputs, dtype, own))


def _batches(images: Iterable[Image], size: int) -> Iterator[list[Image]]:
    iterator = iter(images)
    while batch := list(islice(iterator, size)):
        yield batch


def _statistics(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`mu` and `sigma` of an .npz, as pytorch-fid, clean-fid and ADM write them."""
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, covariance = (np.asarray(file[name], dtype=np.float64) for name in ("mu", "sigma"))
    except (OSError, ValueError, KeyError, EOFError, TypeError) as error:
        raise MsbenchError(f"--statistics {path}: no .npz with plain arrays mu and sigma ({error})") from error
    if mean.shape != (WIDTH,) or covariance.shape != (WIDTH, WIDTH) or not np.isfinite(mean.sum() + covariance.sum()):
        raise MsbenchError(f"--statistics {path}: mu and sigma must be finite, [{WIDTH}] and [{WIDTH}, {WIDTH}]")
    return mean, covariance
