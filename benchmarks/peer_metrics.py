"""How fast are msbench's metrics beside the published packages, on the same pairs of PNGs, at the same figures?

    python benchmarks/peer_metrics.py --data-dir DATA [--decoder direct] [--count 250] [--threads 1] [--output FILE.csv]
    python benchmarks/peer_metrics.py --images-dir REFERENCE --images-dir DECODED [--threads 1]

Both sides compute rFID, PSNR, SSIM and LPIPS (AlexNet) from two folders of PNGs of the same names, with the same weights, in a
single process that has imported everything; each side's time starts before its networks are built and ends with its figures.

- msbench: one pass of `MetricSuite`, which reads each PNG once and also measures octaves of the spectrum.
- the packages: torch-fidelity (its own reading, batches of 64, its workers) for rFID; then, image by image from PNG, the lpips
  package's network and scikit-image's PSNR and SSIM.

The reference's Inception features are cached on both sides (torch-fidelity's own cache; msbench's), filled before the clock
starts. Nothing else is: msbench computes LPIPS features and SSIM moments of the reference within its time, once an image.

The halves are rFID, and the per-image metrics. msbench's one pass is divided by its stages: networks, Inception and the Fréchet
distance belong to the half they serve; reading, which it does once for both, and everything else count as per-image.
"""

from __future__ import annotations

import argparse
import csv
import io
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.dataset import prefetch
from harness.data.registry import open_dataset
from harness.decoder import DecoderOptions
from harness.environment import environment
from harness.errors import MsbenchError
from harness.files import write_text
from harness.metrics.feature_cache import FeatureCache, pixels_sha256
from harness.metrics.inception import FastInception, torch_fidelity_state_dict
from harness.metrics.metric import Batch
from harness.metrics.registry import METRICS
from harness.metrics.suite import MetricSuite
from harness.noise import SampleNoise
from harness.registry import build_decoder
from harness.run.reconstruct import reconstruct
from harness.run.savers import ImageSaver
from harness.stats.rfid import rfid_value
from harness.stopwatch import Stages
from harness.verify.pixels import read_png

FIGURES = ("rfid", "psnr", "ssim", "lpips")
EQUAL = 1e-3
"""two figures are called equal up to this, of the value where it is above 1"""
_BATCH = 8
_RFID_STAGES = ("loading inception", "inception", "frechet")
Pictures = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Measured:
    """One side's figures and time."""

    figures: dict[str, float]
    """by name, as `FIGURES`"""
    rfid_seconds: float
    """the rFID half, whole set"""
    pixel_seconds: float
    """the other half, whole set"""

    @property
    def seconds(self) -> float:
        """Both halves."""
        return self.rfid_seconds + self.pixel_seconds


def pairs(reference: Path, decoded: Path) -> list[str]:
    """Names of the PNGs, which both folders must hold alike.

    Raises:
        MsbenchError: they do not, or there are fewer than two.
    """
    first, second = ({path.name for path in folder.glob("*.png")} for folder in (reference, decoded))
    if first != second or len(first) < 2:
        raise MsbenchError(
            f"{reference} and {decoded} must hold the same PNGs, two at least; "
            f"they hold {len(first)} and {len(second)}, {len(first & second)} names in both"
        )
    return sorted(first)


def make_pairs(data_dir: Path, decoder: str, count: int, folder: Path) -> tuple[Path, Path]:
    """Imagenette validation images and their reconstructions as PNGs below `folder`.

    Raises:
        MsbenchError: no such data or decoder.
    """
    dataset = open_dataset("imagenette", data_dir=data_dir, resolution=None, max_samples=count, seed=0, offline=True)
    built, saver = build_decoder(decoder, DecoderOptions()), ImageSaver(folder)
    for example in dataset:
        pixels = torch.from_numpy(example.image).permute(2, 0, 1)[None]
        output = reconstruct(built, pixels, SampleNoise.for_samples(0, [example.key])).pixels
        saver.save("reference", [example.key], example.image[None])
        saver.save("decoded", [example.key], output.permute(0, 2, 3, 1).numpy())
    return folder / "reference", folder / "decoded"


def _reading(reference: Path, decoded: Path, names: list[str]) -> Iterator[tuple[Pictures, Pictures, list[bytes]]]:
    for start in range(0, len(names), _BATCH):
        some = names[start : start + _BATCH]
        first, second = (np.stack([read_png(folder / name) for name in some]) for folder in (reference, decoded))
        yield first, second, [pixels_sha256(image) for image in first]


def _tensor(pictures: Pictures) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def by_msbench(reference: Path, decoded: Path, names: list[str], cache_folder: Path) -> Measured:
    """The figures by msbench's suite; the cache is filled by the first call and used by the next."""
    stages = Stages()
    with stages.stage("loading inception"):
        inception = FastInception(torch.device("cpu"), offline=True)
    suite = MetricSuite(offline=True, inception=inception)
    cache = FeatureCache(cache_folder, {"reference": str(reference), "extractor": suite.extractor})
    originals: list[NDArray[np.float32]] = []
    features: list[NDArray[np.float32]] = []
    values: dict[str, list[NDArray[np.float64]]] = {name: [] for name in FIGURES[1:]}
    for first, second, keys in prefetch(_reading(reference, decoded, names)):
        references, images = _tensor(first), _tensor(second)
        with stages.stage("inception"):
            originals.append(suite.reference_features(references, cache, keys))
            features.append(suite.inception_features(images))
        batch = Batch(images, references)
        found = {}
        for name in suite.names:
            found |= suite.measure(name, batch, suite.prepare(name, references))
        for name, column in values.items():
            column.append(found[name])
    with stages.stage("frechet"):
        rfid = rfid_value(np.concatenate(originals), np.concatenate(features))
    figures = {"rfid": rfid} | {name: METRICS[name].mean(np.concatenate(parts)) for name, parts in values.items()}
    timing = stages.timing()
    cache.save()
    half = sum(timing.stages[name].seconds for name in _RFID_STAGES if name in timing.stages)
    return Measured(figures, half, timing.seconds - half)


def torch_fidelity_rfid(reference: Path, decoded: Path, scratch: Path) -> float:
    """rFID by torch-fidelity, the reference's features in its cache below `scratch` (filled by the first call)."""
    from torch_fidelity import calculate_metrics

    found = calculate_metrics(
        input1=str(reference),
        input2=str(decoded),
        cuda=False,
        fid=True,
        verbose=False,
        cache=True,
        cache_root=str(scratch / "torch-fidelity"),
        input1_cache_name="reference",
        feature_extractor_weights_path=str(scratch / "inception.pth"),
    )
    return float(found["frechet_inception_distance"])


def by_packages(reference: Path, decoded: Path, names: list[str], scratch: Path) -> Measured:
    """The figures by torch-fidelity, lpips and scikit-image."""
    started = time.perf_counter()
    rfid = torch_fidelity_rfid(reference, decoded, scratch)
    between = time.perf_counter()
    by_pair = {name: check.pair for name in FIGURES[1:] if (check := METRICS[name].check) and check.pair}
    values: dict[str, list[Any]] = {name: [] for name in by_pair}
    for png in names:
        first, second = read_png(reference / png), read_png(decoded / png)
        for name, again in by_pair.items():
            values[name].append(again(first, second))
    means = {name: METRICS[name].mean(np.array(column)) for name, column in values.items()}
    return Measured({"rfid": rfid, **means}, between - started, time.perf_counter() - between)


def fill_caches(reference: Path, names: list[str], scratch: Path) -> None:
    """Features of the reference into both caches, before any clock starts."""
    torch.save(torch_fidelity_state_dict(), scratch / "inception.pth")
    by_msbench(reference, reference, names, scratch / "msbench")
    torch_fidelity_rfid(reference, reference, scratch)


def differences(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
    """ours - theirs by name."""
    return {name: ours[name] - theirs[name] for name in FIGURES}


def equal(ours: dict[str, float], theirs: dict[str, float]) -> bool:
    """Every figure within `EQUAL`."""
    found = differences(ours, theirs)
    return all(abs(found[name]) <= EQUAL * max(1.0, abs(theirs[name])) for name in FIGURES)


def table(ours: list[Measured], theirs: list[Measured], count: int, threads: int) -> list[dict[str, str]]:
    """Rows of the CSV: medians of seconds an image of each half, with how many times faster; then figures and differences."""
    machine = environment()
    common = {
        "images": str(count),
        "threads": str(threads),
        "repeats": str(len(ours)),
        "cpu": str(machine.get("cpu_model") or platform.processor()),
        "torch": torch.__version__,
    }
    rows = []
    for half, name in (("rfid_seconds", "rFID half"), ("pixel_seconds", "per-image half"), ("seconds", "both")):
        first, second = (statistics.median(getattr(one, half) for one in side) / count for side in (ours, theirs))
        rows.append(
            {
                "quantity": f"{name}, seconds an image",
                "msbench": f"{first:.4f}",
                "packages": f"{second:.4f}",
                "times_faster": f"{second / first:.2f}",
                "difference": "",
                **common,
            }
        )
    for name, difference in differences(ours[-1].figures, theirs[-1].figures).items():
        rows.append(
            {
                "quantity": name,
                "msbench": f"{ours[-1].figures[name]:.6f}",
                "packages": f"{theirs[-1].figures[name]:.6f}",
                "times_faster": "",
                "difference": f"{difference:.2e}",
                **common,
            }
        )
    return rows


def show(rows: list[dict[str, str]]) -> None:
    """The table on stdout."""
    columns = ("quantity", "msbench", "packages", "times_faster", "difference")
    lines = [columns, *(tuple(row[column] for column in columns) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def compare(reference: Path, decoded: Path, threads: int, repeats: int, scratch: Path) -> tuple[list[dict[str, str]], str]:
    """Rows of the table, and its last line in words."""
    names = pairs(reference, decoded)
    torch.set_num_threads(threads)
    fill_caches(reference, names, scratch)
    ours, theirs = [], []
    for _ in range(repeats):  # in turns, so that a busy machine slows both
        ours.append(by_msbench(reference, decoded, names, scratch / "msbench"))
        theirs.append(by_packages(reference, decoded, names, scratch))
    rows = table(ours, theirs, len(names), threads)
    faster = rows[2]["times_faster"]
    same = "equal" if all(equal(a.figures, b.figures) for a, b in zip(ours, theirs, strict=True)) else "NOT equal"
    return rows, f"{faster} times as fast on {len(names)} pairs with {threads} threads; figures {same} to {EQUAL:g}"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images-dir", type=Path, action="append", default=[], help="twice: reference PNGs, decoded PNGs")
    parser.add_argument("--data-dir", type=Path, help="Imagenette; pairs are made on the spot with --decoder")
    parser.add_argument("--decoder", default="direct", help="any decoder's name, for example direct, vae or jpeg")
    parser.add_argument("--count", type=int, default=250, help="pairs made on the spot")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads, on both sides")
    parser.add_argument("--repeats", type=int, default=1, help="passes of each side, in turns; times are medians")
    parser.add_argument("--output", type=Path, default=Path("results/peer_metrics.csv"), help="the table as CSV")
    arguments = parser.parse_args()
    try:
        if min(arguments.threads, arguments.repeats) < 1 or arguments.count < 2:
            raise MsbenchError("--threads and --repeats must be at least 1, --count at least 2")
        if (len(arguments.images_dir) == 2) == (arguments.data_dir is not None) or len(arguments.images_dir) not in (0, 2):
            raise MsbenchError("give --images-dir twice (reference, decoded), or --data-dir")
        with tempfile.TemporaryDirectory(prefix="msbench-peers-") as name:
            scratch = Path(name)
            folders = arguments.images_dir or make_pairs(arguments.data_dir, arguments.decoder, arguments.count, scratch)
            rows, verdict = compare(folders[0], folders[1], arguments.threads, arguments.repeats, scratch)
        show(rows)
        print(verdict)
        stream = io.StringIO()
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(arguments.output, stream.getvalue())
    except MsbenchError as error:
        print(f"peer_metrics: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
