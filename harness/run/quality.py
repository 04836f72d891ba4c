"""The quality pass: every image once, through every decoder and noise seed, into per-image values and features.

The reference is loaded and featured once; every decoder sees the same pixels and every metric the same uint8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.dataset import Dataset, prefetch
from harness.data.types import Example
from harness.decoder import Decoder
from harness.errors import MsbenchError
from harness.files import features_dir
from harness.metrics.feature_cache import FeatureCache, pixels_sha256
from harness.metrics.metric import Batch
from harness.metrics.suite import MetricSuite
from harness.noise import SampleNoise
from harness.run.config import RunConfig
from harness.run.reconstruct import encoder_of, reconstruct
from harness.run.savers import ImageSaver
from harness.stopwatch import Stages

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""
Values = dict[str, NDArray[np.float64]]


@dataclass(slots=True)
class Pass:
    """One decoder under one noise seed."""

    batches: list[Values] = field(default_factory=list)
    """per-image metrics and octaves, arrays [B]"""
    features: list[NDArray[np.float32]] = field(default_factory=list)
    """Inception features, one array [B, 2048] a batch"""
    clamped: list[float] = field(default_factory=list)
    """values outside [-1, 1], in images, one number a batch"""

    def repeat(self, other: Pass) -> None:
        """Take over the last batch of another pass."""
        self.batches.append(other.batches[-1])
        self.features.append(other.features[-1])
        self.clamped.append(other.clamped[-1])

    def values(self) -> Values:
        """Per-image values over all batches, arrays [n]."""
        return {name: np.concatenate([batch[name] for batch in self.batches]) for name in self.batches[0]}

    def all_features(self) -> NDArray[np.float32]:
        """Features over all batches, [n, 2048]."""
        return np.concatenate(self.features)


@dataclass(slots=True)
class Gathered:
    """What one decoder's passes leave behind."""

    passes: list[Pass]
    """one a noise seed, in their order"""
    noisy: bool = False
    """it drew noise: passes differ; else all hold what the first one measured"""
    shown: list[NDArray[np.uint8]] = field(default_factory=list)
    """reconstructions of the sheet's images under the first seed, [H, W, 3] each"""
    latents: list[Tensor] = field(default_factory=list)
    """latents of the first images, kept for timing"""

    @property
    def clamped(self) -> float:
        """Share of output values outside [-1, 1]."""
        return sum(sum(one.clamped) for one in self.passes) / max(1, sum(len(f) for one in self.passes for f in one.features))

    def different(self, seeds: Sequence[int]) -> dict[int, Pass]:
        """Seed -> pass; without noise the first alone, since the others repeat it."""
        return dict(zip(seeds, self.passes, strict=True)) if self.noisy else {seeds[0]: self.passes[0]}


@dataclass(slots=True)
class Reference:
    """The images every decoder was measured against."""

    examples: list[Example] = field(default_factory=list)
    """who they are, in the order measured; pixels dropped"""
    features: list[NDArray[np.float32]] = field(default_factory=list)
    """Inception features, one array [B, 2048] a batch"""
    pixels: Any = field(default_factory=hashlib.sha256)
    """running hash over keys and pixels"""
    shown: list[NDArray[np.uint8]] = field(default_factory=list)
    """the sheet's images, [H, W, 3] each"""
    shown_index: list[int] = field(default_factory=list)
    """their places in `examples`"""

    def take(self, batch: _Batch, chosen: Collection[int]) -> list[int]:
        """Add a batch but for its features; returns the places in it of images whose number in the set is among `chosen`."""
        first = len(self.examples)
        for example in batch.examples:
            self.pixels.update(example.key.encode() + example.image.tobytes())
            self.examples.append(_without_pixels(example))
        show = [place for place in range(len(batch.examples)) if first + place in chosen]
        self.shown += [batch.images[place] for place in show]
        self.shown_index += [first + place for place in show]
        return show


def quality_pass(
    config: RunConfig,
    dataset: Dataset,
    decoders: dict[str, Decoder],
    suite: MetricSuite,
    device: torch.device,
    report: Progress,
    stages: Stages | None = None,
) -> tuple[dict[str, Gathered], Reference]:
    """One pass over the dataset, every batch through every decoder and noise seed; batches are loaded ahead in a thread.

    Features of the reference come from the cache where it has them, and are kept there, also by a pass that fails later.

    Raises:
        MsbenchError: not one image was usable.
    """
    gathered = {name: Gathered([Pass() for _ in config.noise_seed_list()]) for name in decoders}
    reference = Reference()
    saver = ImageSaver(config.save_images) if config.save_images else None
    chosen = set(np.linspace(0, len(dataset) - 1, min(config.sheet_rows, len(dataset))).round().astype(int).tolist())
    needed = max(config.cost.batch_sizes, default=1) if config.cost else 0
    total, done = len(dataset) * len(decoders), 0
    stages = stages or Stages(device)
    with stages.stage("cache"):
        cache = FeatureCache(features_dir(), _cached_set(dataset, suite))
    batches = prefetch(_batches(dataset, config.batch_size))
    try:
        while batch := _next(batches, stages):
            pixels = torch.from_numpy(batch.images).permute(0, 3, 1, 2).contiguous().to(device)
            show = reference.take(batch, chosen)
            with stages.stage("reference features"):
                reference.features.append(suite.reference_features(pixels, cache, batch.pixels_sha256))
            prepared = {}
            for metric in suite.names:
                with stages.stage(metric):
                    prepared[metric] = suite.prepare(metric, pixels)
            keys = [example.key for example in batch.examples]
            if saver:
                with stages.stage("saving images"):
                    saver.save("reference", keys, batch.images)
            for name, decoder in decoders.items():
                report(f"decoding with {name}", done, total)
                kept = gathered[name]
                for index, seed in enumerate(config.noise_seed_list()):
                    if index and not kept.noisy:
                        kept.passes[index].repeat(kept.passes[0])
                        continue
                    noise = SampleNoise.for_samples(seed, keys, device)
                    latents, output = _measure(decoder, batch, pixels, prepared, noise, suite, kept.passes[index], stages)
                    if index == 0:
                        kept.noisy |= noise.used
                        if sum(map(len, kept.latents)) < needed:
                            kept.latents.append(latents)
                        kept.shown += [output[i] for i in show]
                    if saver:
                        with stages.stage("saving images"):
                            saver.save(name if index == 0 else f"{name}/noise-seed-{seed}", keys, output)
                done += len(batch.examples)
    finally:
        batches.close()
        with stages.stage("cache"):
            cache.save()
    report("decoding", total, total)
    if not reference.examples:
        reasons = "; ".join(f"{skipped.name}: {skipped.reason}" for skipped in dataset.skipped[:3])
        raise MsbenchError(f"{config.dataset}: no usable image ({reasons or 'the set is empty'})")
    return gathered, reference


def _measure(
    decoder: Decoder,
    batch: _Batch,
    pixels: Tensor,
    prepared: Mapping[str, Any],
    noise: SampleNoise,
    suite: MetricSuite,
    into: Pass,
    stages: Stages,
) -> tuple[Tensor, NDArray[np.uint8]]:
    """One batch through one decoder under one seed; returns latents and reconstructions [B, H, W, 3]."""
    found = reconstruct(decoder, pixels, noise, stages)
    latents, output = found.latents, found.pixels
    into.clamped.append(found.clamped / output[0].numel())
    keys, labels = tuple(example.key for example in batch.examples), tuple(example.label for example in batch.examples)
    pairs = Batch(output, pixels, keys, labels, latents, encoder_of(decoder))
    columns: Values = {}
    for name in suite.names:
        with stages.stage(name):
            columns |= suite.measure(name, pairs, prepared[name])
    into.batches.append(columns)
    with stages.stage("inception"):
        into.features.append(suite.inception_features(output))
    return latents, output.permute(0, 2, 3, 1).contiguous().cpu().numpy()


@dataclass(frozen=True, slots=True)
class _Batch:
    """Some images in their order, made by the loading thread."""

    examples: list[Example]
    """B of them"""
    images: NDArray[np.uint8]
    """their pixels, [B, H, W, 3]"""
    pixels_sha256: list[bytes]
    """hash of each one's pixels"""


def _batches(dataset: Dataset, size: int) -> Iterator[_Batch]:
    examples = iter(dataset)
    while batch := list(islice(examples, size)):
        images = np.stack([example.image for example in batch])
        yield _Batch(batch, images, [pixels_sha256(image) for image in images])


def _next(batches: Iterator[_Batch], stages: Stages) -> _Batch | None:
    with stages.stage("waiting for images"):
        return next(batches, None)


def _cached_set(dataset: Dataset, suite: MetricSuite) -> dict[str, str | int | None]:
    """What the cache's file of features is named by; rows are found by pixels."""
    info = dataset.info
    return {
        "dataset": info.name,
        "split": info.split,
        "resolution": info.resolution,
        "preprocessing": info.preprocessing,
        "extractor": suite.extractor,
    }


def _without_pixels(example: Example) -> Example:
    nothing = np.zeros((0, 0, 3), np.uint8)
    return Example(example.key, nothing, example.label, example.source_photo, example.source_sha256)
