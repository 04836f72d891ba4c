"""The quality pass: every image once, through every decoder, into per-image values and features.

The reference is loaded and featured once; every decoder sees the same pixels and every metric the same uint8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.config import RunConfig
from harness.data.dataset import Dataset
from harness.data.types import Example
from harness.decoder import Decoder
from harness.errors import MsbenchError
from harness.metrics.suite import PER_IMAGE, MetricSuite
from harness.noise import SampleNoise
from harness.reconstruct import reconstruct
from harness.savers import ImageSaver

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


@dataclass(slots=True)
class Gathered:
    """What one decoder's pass leaves behind."""

    values: dict[str, list[NDArray[np.float64]]] = field(default_factory=lambda: {name: [] for name in PER_IMAGE})
    """per-image metrics, one array [B] a batch"""
    features: list[NDArray[np.float32]] = field(default_factory=list)
    """Inception features, one array [B, 2048] a batch"""
    shown: list[NDArray[np.uint8]] = field(default_factory=list)
    """reconstructions of the sheet's images, [H, W, 3] each"""
    latents: list[Tensor] = field(default_factory=list)
    """latents of the first images, kept for timing"""


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


def quality_pass(
    config: RunConfig,
    dataset: Dataset,
    decoders: dict[str, Decoder],
    suite: MetricSuite,
    device: torch.device,
    report: Progress,
) -> tuple[dict[str, Gathered], Reference]:
    """One pass over the dataset, every batch through every decoder.

    Raises:
        MsbenchError: not one image was usable.
    """
    gathered = {name: Gathered() for name in decoders}
    reference = Reference()
    saver = ImageSaver(config.save_images) if config.save_images else None
    chosen = set(np.linspace(0, len(dataset) - 1, min(config.sheet_rows, len(dataset))).round().astype(int).tolist())
    needed = max(config.cost.batch_sizes) if config.cost else 0
    total, done = len(dataset) * len(decoders), 0
    for batch in _batches(dataset, config.batch_size):
        images = np.stack([example.image for example in batch])
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        first = len(reference.examples)
        show = [i for i in range(len(batch)) if first + i in chosen]
        for example in batch:
            reference.pixels.update(example.key.encode() + example.image.tobytes())
            reference.examples.append(_without_pixels(example))
        reference.features.append(suite.inception_features(pixels).astype(np.float32))
        reference.shown += [images[i] for i in show]
        reference.shown_index += [first + i for i in show]
        keys = [example.key for example in batch]
        if saver:
            saver.save("reference", keys, images)
        for name, decoder in decoders.items():
            report(f"decoding with {name}", done, total)
            kept = gathered[name]
            noise = SampleNoise.for_samples(config.seed, keys, device)
            latents, output = reconstruct(decoder, pixels.to(device), noise)
            if sum(map(len, kept.latents)) < needed:
                kept.latents.append(latents)
            output = output.cpu()
            for metric, values in suite.per_image(pixels, output).items():
                kept.values[metric].append(values)
            kept.features.append(suite.inception_features(output).astype(np.float32))
            arrays = output.permute(0, 2, 3, 1).contiguous().numpy()
            kept.shown += [arrays[i] for i in show]
            if saver:
                saver.save(name, keys, arrays)
            done += len(batch)
    report("decoding", total, total)
    if not reference.examples:
        reasons = "; ".join(f"{skipped.name}: {skipped.reason}" for skipped in dataset.skipped[:3])
        raise MsbenchError(f"{config.dataset}: no usable image ({reasons or 'the set is empty'})")
    return gathered, reference


def _batches(dataset: Dataset, size: int) -> Iterator[list[Example]]:
    batch: list[Example] = []
    for example in dataset:
        batch.append(example)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _without_pixels(example: Example) -> Example:
    nothing = np.zeros((0, 0, 3), np.uint8)
    return Example(example.key, nothing, example.label, example.source_photo, example.source_sha256)
