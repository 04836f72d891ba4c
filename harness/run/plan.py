"""What a run would do and roughly take: everything is opened, an image goes through once, nothing is written or fetched."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from itertools import islice

import torch
from PIL import Image
from torch import Tensor

from harness.cost.cost import CostProtocol
from harness.cost.latency import timed_call
from harness.cost.memory import held_mb, peak_memory_mb
from harness.data.registry import open_dataset
from harness.decoder import Decoder, Finished
from harness.errors import MsbenchError
from harness.metrics.metric import Batch
from harness.metrics.registry import METRICS
from harness.metrics.suite import MetricSuite
from harness.noise import SampleNoise
from harness.run.config import RunConfig, check_config, check_device, dataset_request
from harness.run.reconstruct import Reconstruction, encoder_of, reconstruct
from harness.run.runner import build_decoders, match_images

_FEATURES = 4 * 2048  # bytes of one image's Inception features
_SAMPLE = 200  # bytes of one row of samples.parquet, about


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """One decoder of the run."""

    label: str
    """its row"""
    steps: int
    """network calls per image"""
    noise_seeds: int
    """times each image is decoded"""
    seconds_per_image: float
    """estimate of encoding, decoding and metrics under all noise seeds"""
    cost_seconds: float
    """estimate of what measuring its cost takes"""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What is known before a run."""

    dataset: str
    """as the user wrote it"""
    n: int
    """images"""
    resolution: int
    """side of each in pixels"""
    metrics: tuple[str, ...]
    """what is measured"""
    metrics_timed: bool
    """the estimates hold them; false where the networks' weights are not here"""
    decoders: tuple[PlannedRow, ...]
    """in the order of the table"""
    seconds: float
    """estimate for everything"""
    memory_mb: float | None
    """estimate of the peak on the device; None where this platform cannot tell"""
    disk_mb: float
    """estimate of the run's folder once it is complete; on the way features and samples are there twice"""
    images_mb: float
    """estimate of the saved images"""

    def lines(self) -> list[str]:
        """The estimates in words."""
        memory = "unknown here" if self.memory_mb is None else f"{self.memory_mb:,.0f} MiB"
        images = f", saved images {self.images_mb:,.1f} MiB" * bool(self.images_mb)
        lacking = (
            "" if self.metrics_timed else " without the metrics, whose networks are not here yet (`msbench weights fetch`)"
        )
        return [
            f"Estimate from one image a decoder on this machine as it is now: about {_words(self.seconds)}{lacking}; "
            f"memory {memory}; disk {self.disk_mb:,.1f} MiB{images}.",
            "Larger batches are often faster an image, other work slows all of it: take it for the order of magnitude.",
        ]


def plan_run(config: RunConfig) -> RunPlan:
    """Open dataset, decoders and metrics, send one image through each decoder, and add up.

    Raises:
        MsbenchError: what `evaluate` would refuse at once, or a decoder fails on the first image.
    """
    device = check_device(config.device)
    check_config(config)
    dataset = open_dataset(replace(dataset_request(config), offline=True))
    decoders = build_decoders(config, device)
    match_images(decoders, dataset)
    example = next(islice(dataset, 1), None)
    if example is None:
        raise MsbenchError(f"{config.dataset}: its first images cannot be used ({dataset.skipped[0].reason})")
    pixels = torch.from_numpy(example.image).permute(2, 0, 1)[None].to(device)
    suite, n = _suite(config, device), len(dataset)
    reference = timed_call(lambda: suite and suite.inception_features(pixels), device)
    rows, rises, images = [], [0.0], _png_mb(pixels)
    for label, decoder in decoders.items():
        row, rise, decoded = _probe(label, decoder, suite, pixels, example.key, config, device)
        rows.append(row)
        rises.append(rise)
        images += row.noise_seeds * _png_mb(decoded)
    passes = 1 + sum(row.noise_seeds for row in rows)
    held = held_mb(device)
    features = n * passes * _FEATURES / 2**20
    return RunPlan(
        dataset=config.dataset,
        n=n,
        resolution=dataset.info.resolution,
        metrics=tuple(one.name for one in METRICS.values() if not one.extra or one.name in config.extra_metrics),
        metrics_timed=suite is not None,
        decoders=tuple(rows),
        seconds=n * (reference + sum(row.seconds_per_image for row in rows)) + sum(row.cost_seconds for row in rows),
        memory_mb=None if held is None else held + config.batch_size * max(rises) + features * (device.type == "cpu"),
        disk_mb=features + n * passes * _SAMPLE / 2**20,
        images_mb=n * images if config.save_images else 0.0,
    )


def _suite(config: RunConfig, device: torch.device) -> MetricSuite | None:
    """The metric networks; None where their weights are not here."""
    try:
        return MetricSuite(device, offline=True, extra=config.extra_metrics)
    except MsbenchError:
        return None


def _probe(
    label: str,
    decoder: Decoder,
    suite: MetricSuite | None,
    pixels: Tensor,
    key: str,
    config: RunConfig,
    device: torch.device,
) -> tuple[PlannedRow, float, Tensor]:
    """A decoder's row, the MiB that memory rises over one image, and the image it gave."""
    noise, found = SampleNoise.for_samples(config.seed, [key], device), []

    def decode() -> None:
        finished = isinstance(decoder, Finished)
        found.append(Reconstruction.of(pixels) if finished else reconstruct(decoder, pixels, noise, [key]))

    def measure() -> None:
        batch = Batch(found[-1].pixels, pixels, (key,), (None,), found[-1].latents, encoder_of(decoder))
        if suite:
            suite.inception_features(batch.images)
            for name in suite.names:
                suite.measure(name, batch, suite.prepare(name, pixels))

    decode()  # sets up what later calls have
    seconds: list[float] = []
    rise = peak_memory_mb(lambda: seconds.append(timed_call(decode, device)), device)
    measure()
    both = seconds[0] + timed_call(measure, device)
    seeds, cost = config.noise_seeds if noise.used else 1, None if isinstance(decoder, Finished) else config.cost
    row = PlannedRow(label, decoder.spec.steps, seeds, seeds * both, _cost_seconds(cost, seconds[0]))
    return row, rise or 0.0, found[-1].pixels


def _cost_seconds(protocol: CostProtocol | None, single: float) -> float:
    """What `measure_cost` takes for a decoder that takes `single` seconds an image: counting, memory, warm-ups, calls."""
    if protocol is None:
        return 0.0
    total, most = 2 * single, protocol.max_seconds
    for call in (size * single for size in protocol.batch_sizes):
        total += max(call, min(4 * call, most)) + max(protocol.min_calls * call, min(protocol.max_calls * call, most))
    total += single * bool(protocol.batch_sizes)
    return total if protocol.decoder_seconds is None else min(total, max(protocol.decoder_seconds, 4 * single))


def _png_mb(pixels: Tensor) -> float:
    """Size of uint8 [1, 3, H, W] as PNG."""
    stream = io.BytesIO()
    Image.fromarray(pixels[0].permute(1, 2, 0).cpu().numpy()).save(stream, format="PNG")
    return len(stream.getvalue()) / 2**20


def _words(seconds: float) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
