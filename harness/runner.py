"""One run: images → latents → images → metrics, for any number of decoders in one pass over the data, then their cost.

The reference is loaded and featured once; every decoder sees the same pixels and every metric the same uint8.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.cost.cost import Cost, CostProtocol, measure_cost
from harness.data.dataset import Dataset
from harness.data.registry import open_dataset
from harness.data.types import Example
from harness.decoder import Decoder, DecoderOptions, NoiseSource
from harness.environment import environment
from harness.errors import MsbenchError
from harness.metrics.suite import MetricSuite, set_metrics
from harness.noise import SampleNoise
from harness.protocol import SCHEMA_VERSION, Protocol
from harness.record import Record, write_record
from harness.registry import build_decoder, decoder_entries
from harness.report.sheet import write_sheet
from harness.savers import ImageSaver

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What `msbench run` was asked for."""

    decoders: tuple[str, ...]
    """registry names, in the order of the table"""
    dataset: str = "photos"
    """dataset name"""
    data_dir: Path | None = None
    """where the dataset lies"""
    split: str = "val"
    """which part of it"""
    resolution: int | None = None
    """side of every image; None = the dataset's own"""
    max_samples: int | None = None
    """size of the stratified subset; None = everything"""
    allow_upsampling: bool = False
    """enlarge images that are too small"""
    seed: int = 0
    """seeds the subset and each sample's noise"""
    batch_size: int = 8
    """images per call; changes no number beyond rounding"""
    device: str = "cpu"
    """cpu, cuda, cuda:N or mps"""
    dtype: torch.dtype = torch.float32
    """arithmetic of the decoders; the encoder and the metrics stay in fp32"""
    checkpoint: Path | None = None
    """weights instead of the shipped ones; with one decoder only"""
    steps: int | None = None
    """network calls per image instead of the decoder's own; with diffusion decoders only"""
    output_dir: Path | None = None
    """the run's folder; None = a new one below runs/"""
    save_images: Path | None = None
    """also write every image the metrics saw"""
    cost: CostProtocol | None = field(default_factory=CostProtocol)
    """how cost is measured; None = not at all"""
    offline: bool = False
    """never touch the network"""
    sheet_rows: int = 6
    """images on the sheet"""


@dataclass(slots=True)
class _Gathered:
    """What one decoder's pass leaves behind."""

    values: dict[str, list[NDArray[np.float64]]] = field(default_factory=lambda: {"psnr": [], "ssim": [], "lpips": []})
    features: list[NDArray[np.float32]] = field(default_factory=list)
    shown: list[NDArray[np.uint8]] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)


def evaluate(config: RunConfig, progress: Progress | None = None) -> Record:
    """Run the protocol and write the run's folder.

    Raises:
        MsbenchError: bad input; checked before anything is computed or written.
    """
    report = progress or (lambda stage, done, total: None)
    device = check_device(config.device)
    _check(config)
    dataset = open_dataset(
        config.dataset,
        data_dir=config.data_dir,
        resolution=config.resolution,
        max_samples=config.max_samples,
        seed=config.seed,
        allow_upsampling=config.allow_upsampling,
        split=config.split,
        offline=config.offline,
    )
    folder = config.output_dir or new_run_folder(config)
    if (folder / "record.json").exists():
        raise MsbenchError(f"{folder} already holds a run; give another --output-dir")
    options = DecoderOptions(device=device, dtype=config.dtype, checkpoint=config.checkpoint, steps=config.steps)
    decoders = {name: build_decoder(name, options) for name in config.decoders}
    suite = MetricSuite(device, config.offline)
    started = time.time()
    gathered, reference = _quality_pass(config, dataset, decoders, suite, device, report)
    costs: dict[str, Cost | None] = dict.fromkeys(decoders)
    if config.cost is not None:
        for index, (name, decoder) in enumerate(decoders.items()):
            report(f"timing {name}", index, len(decoders))
            latents = torch.cat(gathered[name].latents)
            costs[name] = measure_cost(decoder, latents, _noise_for(config.seed, device), config.cost, device)
        report("timing", len(decoders), len(decoders))
    data = _record(config, dataset, decoders, gathered, reference, costs, started)
    record = write_record(folder, data, _samples_frame(gathered, reference))
    if reference.shown:
        _write_sheet(folder / "sheet.png", gathered, reference)
    return record


@dataclass(slots=True)
class _Reference:
    """The images every decoder was measured against."""

    examples: list[Example] = field(default_factory=list)  # pixels dropped
    features: list[NDArray[np.float32]] = field(default_factory=list)
    pixels: Any = field(default_factory=hashlib.sha256)
    shown: list[NDArray[np.uint8]] = field(default_factory=list)
    shown_index: list[int] = field(default_factory=list)


def _quality_pass(
    config: RunConfig,
    dataset: Dataset,
    decoders: dict[str, Decoder],
    suite: MetricSuite,
    device: torch.device,
    report: Progress,
) -> tuple[dict[str, _Gathered], _Reference]:
    gathered = {name: _Gathered() for name in decoders}
    reference = _Reference()
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


def reconstruct(decoder: Decoder, pixels: Tensor, noise: NoiseSource) -> tuple[Tensor, Tensor]:
    """Encode and decode a batch of any size: padded by repeating its edge to the decoder's factor, cropped after.

    Args:
        decoder: built on the device of `pixels`.
        pixels: uint8 [B, 3, H, W].
        noise: one stream per sample.

    Returns:
        latents, and uint8 [B, 3, H, W] after the one rounding of the protocol.
    """
    height, width = pixels.shape[-2:]
    images = pixels.float() / 127.5 - 1.0
    bottom, right = -height % decoder.spec.down_factor, -width % decoder.spec.down_factor
    if bottom or right:
        images = F.pad(images, (0, right, 0, bottom), mode="replicate")
    with torch.inference_mode():
        latents = decoder.encode(images)
        output = decoder.decode(latents, noise)
    return latents, to_uint8(output[..., :height, :width])


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] -> uint8 [0, 255]: clamped, rounded once (half to even)."""
    return ((images.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


def check_device(name: str) -> torch.device:
    """The device called `name`; raises `MsbenchError` where the machine has none such."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise MsbenchError(f"--device {name}: not a device name; use cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MsbenchError(f"--device {name}: this machine has no CUDA device that torch can use; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MsbenchError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, numbered from 0")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise MsbenchError(f"--device {name}: this machine has no MPS device; use --device cpu")
    return device


def runs_root() -> Path:
    """`results/runs` inside a checkout of msbench, `./runs` elsewhere."""
    here = Path.cwd()
    checkout = (here / "pyproject.toml").is_file() and (here / "harness" / "runner.py").is_file()
    return here / "results" / "runs" if checkout else here / "runs"


def new_run_folder(config: RunConfig) -> Path:
    """A fresh folder name: date, dataset, decoders."""
    names = config.decoders[0] if len(config.decoders) == 1 else f"{len(config.decoders)}-decoders"
    dataset = "folder" if config.dataset.startswith("folder:") else config.dataset
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{dataset}-{names}"
    folder, count = runs_root() / stem, 1
    while folder.exists():
        count += 1
        folder = runs_root() / f"{stem}-{count}"
    return folder


def _check(config: RunConfig) -> None:
    if not config.decoders:
        raise MsbenchError("no decoder given: use --decoder NAME[,NAME…]; `msbench ls decoders` lists them")
    repeated = {name for name in config.decoders if config.decoders.count(name) > 1}
    if repeated:
        raise MsbenchError(f"--decoder names {', '.join(sorted(repeated))} twice")
    if config.checkpoint is not None and len(config.decoders) > 1:
        raise MsbenchError("--checkpoint goes with one --decoder, not several")
    if config.batch_size < 1:
        raise MsbenchError(f"--batch-size {config.batch_size}: must be at least 1")
    entries = decoder_entries()
    for name in config.decoders:
        if name not in entries:
            build_decoder(name, DecoderOptions())  # raises with the nearest name


def _batches(dataset: Dataset, size: int) -> Sequence[list[Example]] | Any:
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


def _noise_for(seed: int, device: torch.device) -> Callable[[int], NoiseSource]:
    def noise(batch: int) -> NoiseSource:
        return SampleNoise.for_samples(seed, [f"cost-{i}" for i in range(batch)], device)

    return noise


def _record(
    config: RunConfig,
    dataset: Dataset,
    decoders: dict[str, Decoder],
    gathered: dict[str, _Gathered],
    reference: _Reference,
    costs: dict[str, Cost | None],
    started: float,
) -> dict[str, Any]:
    info = dataset.info
    everything = config.max_samples is None or config.max_samples >= info.n_available
    protocol = Protocol(
        dataset=info.name,
        split=info.split,
        resolution=info.resolution,
        preprocessing=info.preprocessing,
        max_samples=None if everything else config.max_samples,
        subset_seed=0 if everything else config.seed,
        noise_seed=config.seed,
    )
    sources = hashlib.sha256("".join(f"{e.key}\0{e.source_sha256}\n" for e in reference.examples).encode()).hexdigest()
    features = np.concatenate(reference.features)
    results, details = [], {}
    for name, decoder in decoders.items():
        kept, cost, spec = gathered[name], costs[name], decoder.spec
        per_image = {metric: np.concatenate(parts) for metric, parts in kept.values.items()}
        metrics = set_metrics(features, np.concatenate(kept.features), per_image)
        row = {
            "decoder": name,
            "dataset": info.name,
            "n": len(reference.examples),
            **metrics,
            "ms_per_image": cost.ms_per_image if cost else {},
            "gflops": cost.gflops if cost else None,
            "parameters": spec.parameters,
            "peak_memory_mb": cost.peak_memory_mb if cost else None,
            "trained_on": spec.trained_on,
        }
        results.append(row)
        details[name] = {
            "spec": asdict(spec),
            "psnr_exact_images": int(np.isinf(per_image["psnr"]).sum()),
            "cost": cost.as_record() if cost else None,
        }
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "complete",
        "protocol": asdict(protocol),
        "protocol_hash": protocol.hash(),
        "results": results,
        "decoders": details,
        "dataset": {
            **asdict(info),
            "n_samples": {"original": info.n_available, "selected": info.n_selected, "effective": len(reference.examples)},
            "skipped": [asdict(skipped) for skipped in dataset.skipped],
            "source_sha256": sources,
            "reference_sha256": reference.pixels.hexdigest(),
        },
        "config": {**asdict(config), "cost": asdict(config.cost) if config.cost else None, "dtype": str(config.dtype)},
        "higher_is_better": {"rfid": False, "kid": False, "psnr": True, "ssim": True, "lpips": False},
        "command": " ".join(["msbench", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "environment": environment(),
    }


def _samples_frame(gathered: dict[str, _Gathered], reference: _Reference) -> Any:
    import pandas as pd

    base = {
        "key": [example.key for example in reference.examples],
        "label": [example.label for example in reference.examples],
        "source_photo": [example.source_photo for example in reference.examples],
        "source_sha256": [example.source_sha256 for example in reference.examples],
    }
    frames = [
        pd.DataFrame({"decoder": name, **base, **{m: np.concatenate(parts) for m, parts in kept.values.items()}})
        for name, kept in gathered.items()
    ]
    return pd.concat(frames, ignore_index=True)


def _write_sheet(path: Path, gathered: dict[str, _Gathered], reference: _Reference) -> None:
    captions = {
        name: [
            f"{np.concatenate(kept.values['psnr'])[i]:.1f} dB · LPIPS {np.concatenate(kept.values['lpips'])[i]:.3f}"
            for i in reference.shown_index
        ]
        for name, kept in gathered.items()
    }
    keys = [reference.examples[i].key for i in reference.shown_index]
    write_sheet(path, reference.shown, {name: kept.shown for name, kept in gathered.items()}, keys, captions)
