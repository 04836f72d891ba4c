"""What the figures of whole sets cost: CPU seconds and peak memory of each part over synthetic features, one process a row.

    python benchmarks/set_scale.py [--sizes 3000 6000 12000 50000] [--threads 2] [--output results/set-scale.csv]

The features are float32 of 2,048 dimensions with a spectrum that falls as that of Inception features does. `value` is rFID
alone, `rfid` and `kid` are values with what their intervals need, `infinity` takes the value as given; `all` does the last
three in one process, as a run does. Memory is the process's peak, features and interpreter included.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.plumbing import options, run_script, write_csv
from harness.stats.extrapolate import rfid_infinity
from harness.stats.kid import kid_statistic
from harness.stats.rfid import rfid_statistic, rfid_value
from harness.stats.sets import set_estimate

PARTS = ("value", "rfid", "kid", "infinity", "all")
DIMENSIONS = 2048


def features(n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """References and reconstructions, [n, 2048]."""
    generator = np.random.default_rng(0)
    scale = (np.arange(1, DIMENSIONS + 1) ** -0.5).astype(np.float32)
    x = generator.standard_normal((n, DIMENSIONS), dtype=np.float32)
    x *= scale
    y = generator.standard_normal((n, DIMENSIONS), dtype=np.float32)
    y *= 0.3 * scale
    y += x
    return np.maximum(x, 0.0, out=x), np.maximum(y, 0.0, out=y)


def measure(n: int, part: str) -> dict[str, float | int | str]:
    """One row, measured in this process."""
    x, y = features(n)
    before, start = time.process_time(), time.perf_counter()
    whole = 1.0
    if part == "value":
        whole = rfid_value(x, y)
    if part in ("rfid", "all"):
        whole = set_estimate(rfid_statistic(x, y)).value
    if part in ("kid", "all"):
        set_estimate(kid_statistic(x, y)).interval()
    if part in ("infinity", "all"):
        rfid_infinity(x, y, whole)
    seconds, cpu = time.perf_counter() - start, time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    return {"part": part, "n": n, "cpu_s": round(cpu, 2), "wall_s": round(seconds, 2), "peak_mb": round(peak)}


def main() -> None:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[3_000, 6_000, 12_000, 50_000], help="numbers of images")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    parser.add_argument("--threads", type=int, default=2, help="threads of the linear algebra")
    parser.add_argument("--output", type=Path, help="a CSV")
    given = parser.parse_args()
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(given.threads))
    rows = []
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for row in pool.map(measure, *zip(*product(given.sizes, given.parts), strict=True)):
            rows.append({**row, "threads": given.threads})
            print(rows[-1], file=sys.stderr, flush=True)
    print(pd.DataFrame(rows).to_string(index=False))
    if given.output:
        write_csv(rows, given.output)


if __name__ == "__main__":
    sys.exit(run_script(main))
