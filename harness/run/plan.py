"""What a run would roughly take, from a run over two images in a folder that is removed at once.

Nothing is fetched for it, and nothing stays of it but features of the two references in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.cost.cost import CostProtocol
from harness.cost.memory import held_mb
from harness.data.registry import open_dataset
from harness.run.config import RunConfig, check_device, dataset_request, parse_shard
from harness.run.quality import cut
from harness.run.runner import evaluate
from harness.stopwatch import Progress

_FEATURES, _SAMPLE = 4 * 2048, 200  # bytes an image and noise seed: Inception features; a row of samples.parquet, about
_ROW = ("label", "decoder", "options", "ms_per_image", "gflops", "parameters", "peak_memory_mb", "trained_on")
_ONCE = ("loading decoders", "loading metrics")
_ELSEWHERE = ("statistics of latents", "decoding", "measuring cost", "statistics", "cache", "writing")


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What is known before a run; every number but `n` is an estimate."""

    n: int
    """images"""
    rows: tuple[Mapping[str, Any], ...]
    """each decoder with its time of one image, FLOPs, parameters and memory, keys as in a record's results"""
    seconds: float
    """for everything, on this machine as it is now"""
    memory_mb: float | None
    """peak on the device; None where this platform cannot tell"""
    disk_mb: float
    """the run's folder once it is complete; on the way features and samples are there twice"""
    images_mb: float
    """the saved images"""

    def line(self) -> str:
        """The sums in words."""
        memory = "unknown" if self.memory_mb is None else f"{self.memory_mb:,.0f} MiB"
        disk = f"disk {self.disk_mb:,.1f} MiB and {self.images_mb:,.1f} MiB of saved images"
        return f"Estimates on this machine as it is now: {self.seconds / 60:,.1f} min, memory {memory}, {disk}."


def plan_run(config: RunConfig, progress: Progress | None = None) -> RunPlan:
    """Measure two images and add up.

    Raises:
        MsbenchError: as `evaluate`; or dataset or weights are not here yet.
    """
    n = len(open_dataset(replace(dataset_request(config), offline=True)))
    if config.shard:
        n, config = len(cut(range(n), *parse_shard(config.shard), config.batch_size)), replace(config, shard=None)
    few = min(2, n)
    with TemporaryDirectory(prefix="msbench-") as place:
        images = Path(place) / "images"
        one = CostProtocol(batch_sizes=(1,), min_calls=1, max_calls=1, max_seconds=1e-3)
        quick = replace(
            config,
            max_samples=few,
            cost=None if config.as_given else one,
            effective_rate=False,
            offline=True,
            resume=False,
            output_dir=Path(place) / "run",
        )
        data = evaluate(replace(quick, save_images=images if config.save_images else None), progress).data
        saved = sum(file.stat().st_size for file in images.rglob("*.png")) / few
    stages = {name: stage.seconds for name, stage in data.timing.stages.items()} if data.timing else {}
    single = {row.label: row.ms_per_image.get("1", 0.0) / 1000.0 for row in data.results}
    seeds = {label: len(details.noise.seeds) for label, details in data.decoders.items()}
    seconds = sum(stages.get(name, 0.0) for name in _ONCE)
    seconds += n * sum(value for name, value in stages.items() if name not in (*_ONCE, *_ELSEWHERE)) / few
    seconds += sum(n * seeds[label] * value + _cost_seconds(config.cost, value) for label, value in single.items())
    device, passes = check_device(config.device), 1 + sum(seeds.values())
    held, rise = held_mb(device), max(row.peak_memory_mb or 0.0 for row in data.results)
    features = n * passes * _FEATURES / 2**20
    return RunPlan(
        n,
        tuple({key: getattr(row, key) for key in _ROW} for row in data.results),
        seconds,
        None if held is None else held + config.batch_size * rise + features * (device.type == "cpu"),
        features + n * passes * _SAMPLE / 2**20,
        n * saved / 2**20,
    )


def _cost_seconds(protocol: CostProtocol | None, single: float) -> float:
    """What `measure_cost` takes for a decoder that takes `single` seconds an image: counting, memory, warm-ups, calls."""
    if protocol is None:
        return 0.0
    total, most = 3 * single, protocol.max_seconds
    for call in (size * single for size in protocol.batch_sizes):
        total += max(call, min(4 * call, most)) + max(protocol.min_calls * call, min(protocol.max_calls * call, most))
    return min(total, max(protocol.decoder_seconds or total, 4 * single))
