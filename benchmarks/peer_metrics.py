"""How fast are msbench's metrics beside the published packages, on the same pairs of PNGs, at the same figures?

    msbench run --decoder direct --dataset imagenette --data-dir DATA --max-samples 250 --no-cost --save-images PAIRS
    python benchmarks/peer_metrics.py PAIRS/reference PAIRS/direct [--threads 1] [--output FILE.csv]

Both sides compute rFID, PSNR, SSIM and LPIPS (AlexNet) from two folders of PNGs of the same names, with the same weights, each
in a process of its own that has imported everything; a side's time starts before its networks are built and ends with its
figures. Memory is kept in msbench's process, as in `msbench run`, and is the system's own in the other.

- msbench: one pass of `MetricSuite`, which reads each PNG once and also measures octaves of the spectrum.
- the packages: torch-fidelity (its own reading, batches of 64, its workers) for rFID; then, image by image from PNG, the lpips
  package's network and scikit-image's PSNR and SSIM.

The reference's Inception features are cached on both sides (torch-fidelity's own cache; msbench's), filled before the clock
starts. Nothing else is: msbench computes LPIPS features and SSIM moments of the reference within its time, once an image.

The limit is what the networks' convolutions alone would take at the most that this machine was seen to reach in float32, in a
large product or convolution, in turns with both sides: FLOPs of Inception on the reconstruction, and of LPIPS on both pictures,
by torch's counter. A half's share of its limit is limit / time; SSIM, the spectrum and reading are in the time only.

The halves are rFID, and the per-image metrics. msbench's one pass is divided by its stages: networks, Inception and the Fréchet
distance belong to the half they serve; reading, which it does once for both, and everything else count as per-image.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plumbing import options, run_script, write_csv
from harness.cost.roofline import measure_ceilings
from harness.data.dataset import prefetch
from harness.environment import cpu_model, keep_freed_memory
from harness.errors import MsbenchError
from harness.metrics.feature_cache import FeatureCache, pixels_sha256
from harness.metrics.inception import FastInception, torch_fidelity_state_dict
from harness.metrics.lpips import Lpips
from harness.metrics.metric import Batch
from harness.metrics.registry import METRICS
from harness.metrics.suite import MetricSuite
from harness.stats.rfid import rfid_value
from harness.stopwatch import Stages
from harness.verify.images import read_png

FIGURES = ("rfid", "psnr", "ssim", "lpips")
EQUAL = 1e-3
"""two figures are called equal up to this, of the value where it is above 1"""
COLUMNS = (
    *("quantity", "msbench", "packages", "times_faster", "difference"),
    *("images", "threads", "repeats", "cpu", "torch"),
)
HALVES = {"rfid_seconds": "rFID half", "pixel_seconds": "per-image half", "seconds": "both"}
_BATCH = 8
_RFID_STAGES = ("loading inception", "inception", "frechet")


@dataclass(frozen=True, slots=True)
class Side:
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
    first, second = ({str(path.relative_to(folder)) for path in folder.rglob("*.png")} for folder in (reference, decoded))
    if first != second or len(first) < 2:
        raise MsbenchError(
            f"{reference} and {decoded} must hold the same PNGs, two at least; "
            f"they hold {len(first)} and {len(second)}, {len(first & second)} names in both"
        )
    return sorted(first)


def _reading(reference: Path, decoded: Path, names: list[str]) -> Iterator[tuple[Tensor, Tensor, list[bytes]]]:
    for start in range(0, len(names), _BATCH):
        some = names[start : start + _BATCH]
        first, second = (np.stack([read_png(folder / name) for name in some]) for folder in (reference, decoded))
        references, images = (torch.from_numpy(np.ascontiguousarray(one.transpose(0, 3, 1, 2))) for one in (first, second))
        yield references, images, [pixels_sha256(image) for image in first]


def by_msbench(reference: Path, decoded: Path, names: list[str], cache_folder: Path) -> Side:
    """The figures by msbench's suite; the cache is filled by the first call and used by the next."""
    stages = Stages()
    with stages.stage("loading inception"):
        inception = FastInception(torch.device("cpu"), offline=True)
    suite = MetricSuite(offline=True, inception=inception)
    cache = FeatureCache(cache_folder, {"reference": str(reference), "extractor": suite.extractor})
    features: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    values: list[dict[str, NDArray[np.float64]]] = []
    for references, images, keys in prefetch(_reading(reference, decoded, names)):
        with stages.stage("inception"):
            features.append((suite.reference_features(references, cache, keys), suite.inception_features(images)))
        batch = Batch(images, references)
        found = [suite.measure(name, batch, suite.prepare(name, references)) for name in suite.names]
        values.append({name: column for columns in found for name, column in columns.items()})
    with stages.stage("frechet"):
        rfid = rfid_value(*(np.concatenate(side) for side in zip(*features, strict=True)))
    figures = {name: METRICS[name].mean(np.concatenate([part[name] for part in values])) for name in FIGURES[1:]}
    figures["rfid"] = rfid
    timing = stages.timing()
    cache.save()
    half = sum(timing.stages[name].seconds for name in _RFID_STAGES if name in timing.stages)
    return Side(figures, half, timing.seconds - half)


def torch_fidelity_rfid(reference: Path, decoded: Path, scratch: Path) -> float:
    """rFID by torch-fidelity, the reference's features in its cache below `scratch` (filled by the first call)."""
    from torch_fidelity import calculate_metrics

    places = {"cache_root": str(scratch / "torch-fidelity"), "feature_extractor_weights_path": str(scratch / "inception.pth")}
    asked = {"cuda": False, "fid": True, "verbose": False, "cache": True, "input1_cache_name": "reference"}
    found = calculate_metrics(input1=str(reference), input2=str(decoded), **asked, **places)
    return float(found["frechet_inception_distance"])


def by_packages(reference: Path, decoded: Path, names: list[str], scratch: Path) -> Side:
    """The figures by torch-fidelity, lpips and scikit-image."""
    started = time.perf_counter()
    rfid = torch_fidelity_rfid(reference, decoded, scratch)
    between = time.perf_counter()
    by_pair = {name: check.pair for name in FIGURES[1:] if (check := METRICS[name].check) and check.pair}
    values = []
    for png in names:
        first, second = read_png(reference / png), read_png(decoded / png)
        values.append({name: again(first, second) for name, again in by_pair.items()})
    means = {name: METRICS[name].mean(column.to_numpy()) for name, column in pd.DataFrame(values).items()}
    return Side({"rfid": rfid, **means}, between - started, time.perf_counter() - between)


def _begin(threads: int, keep: bool) -> None:
    torch.set_num_threads(threads)
    if keep:
        keep_freed_memory()


def _process(threads: int, keep: bool) -> ProcessPoolExecutor:
    """A process that stays, with so many threads; `keep`: it keeps freed memory."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (threads, keep))


def equal(ours: dict[str, float], theirs: dict[str, float]) -> bool:
    """Every figure within `EQUAL`."""
    return all(abs(ours[name] - theirs[name]) <= EQUAL * max(1.0, abs(theirs[name])) for name in FIGURES)


def work(reference: Path, decoded: Path) -> dict[str, float]:
    """FLOPs of each half's network for one pair of PNGs, a multiply-add being two."""
    first, second = (torch.from_numpy(read_png(path).copy()).permute(2, 0, 1)[None] for path in (reference, decoded))
    networks = FastInception(torch.device("cpu"), offline=True, plain=True), Lpips.load("alex", offline=True)
    with torch.inference_mode(), FlopCounterMode(display=False) as inception:
        networks[0].features(second)
    with torch.inference_mode(), FlopCounterMode(display=False) as lpips:
        networks[1](second / 127.5 - 1, first / 127.5 - 1)
    rfid, pixel = float(inception.get_total_flops()), float(lpips.get_total_flops())
    return {"rfid_seconds": rfid, "pixel_seconds": pixel, "seconds": rfid + pixel}


def table(
    ours: list[Side], theirs: list[Side], count: int, threads: int, flops: dict[str, float], ceiling: float
) -> list[dict[str, str]]:
    """Rows of the CSV: medians of seconds an image of each half, with how many times faster; then what share of the limit that
    is, from FLOPs a pair and FLOP/s; then figures and differences."""
    rows, shares = [], [("ceiling, GFLOP/s", f"{ceiling / 1e9:.1f}", "", "", "")]
    for half, name in HALVES.items():
        first, second = (statistics.median(getattr(one, half) for one in side) / count for side in (ours, theirs))
        rows.append((f"{name}, seconds an image", f"{first:.4f}", f"{second:.4f}", f"{second / first:.2f}", ""))
        limit = flops[half] / ceiling
        shares.append((f"{name}, limit, seconds an image", f"{limit:.4f}", f"{limit:.4f}", "", ""))
        shares.append((f"{name}, share of the limit", f"{limit / first:.3f}", f"{limit / second:.3f}", "", ""))
    rows += shares
    for name in FIGURES:
        one, other = ours[-1].figures[name], theirs[-1].figures[name]
        rows.append((name, f"{one:.6f}", f"{other:.6f}", "", f"{one - other:.2e}"))
    common = (str(count), str(threads), str(len(ours)), str(cpu_model()), str(torch.__version__))
    return [dict(zip(COLUMNS, row + common, strict=True)) for row in rows]


def compare(reference: Path, decoded: Path, threads: int, repeats: int, scratch: Path) -> tuple[list[dict[str, str]], str]:
    """Rows of the table, and its last line in words."""
    names = pairs(reference, decoded)
    ours, theirs, ceiling = [], [], 0.0
    with _process(threads, keep=True) as one, _process(threads, keep=False) as other:
        torch.save(torch_fidelity_state_dict(), scratch / "inception.pth")
        one.submit(by_msbench, reference, reference, names, scratch / "msbench").result()  # fills its cache
        other.submit(torch_fidelity_rfid, reference, reference, scratch).result()
        for _ in range(repeats):  # in turns, so that a busy machine slows all
            ceiling = max(ceiling, one.submit(measure_ceilings, torch.device("cpu"), torch.float32).result().flops_per_s)
            ours.append(one.submit(by_msbench, reference, decoded, names, scratch / "msbench").result())
            theirs.append(other.submit(by_packages, reference, decoded, names, scratch).result())
    rows = table(ours, theirs, len(names), threads, work(reference / names[0], decoded / names[0]), ceiling)
    faster = rows[2]["times_faster"]
    same = "equal" if all(equal(a.figures, b.figures) for a, b in zip(ours, theirs, strict=True)) else "NOT equal"
    share = next(row["msbench"] for row in rows if row["quantity"] == "rFID half, share of the limit")
    pace = f"{faster} times as fast on {len(names)} pairs with {threads} threads"
    return rows, f"{pace}; figures {same} to {EQUAL:g}; rFID half at {share} of its limit"


def main() -> None:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("reference", type=Path, help="folder of PNGs")
    parser.add_argument("decoded", type=Path, help="folder of PNGs of the same names")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads, on both sides")
    parser.add_argument("--repeats", type=int, default=1, help="passes of each side, in turns; times are medians")
    parser.add_argument("--output", type=Path, default=Path("results/peer_metrics.csv"), help="the table as CSV")
    given = parser.parse_args()
    if min(given.threads, given.repeats) < 1:
        raise MsbenchError("--threads and --repeats must be at least 1")
    with tempfile.TemporaryDirectory(prefix="msbench-peers-") as scratch:
        rows, verdict = compare(given.reference, given.decoded, given.threads, given.repeats, Path(scratch))
    print(pd.DataFrame(rows).iloc[:, :5].to_string(index=False))
    print(verdict)
    write_csv(rows, given.output)


if __name__ == "__main__":
    sys.exit(run_script(main))
