"""Do the intervals of rFID and KID hold what they promise on real pairs? Subsets of n pairs are drawn from a large run.

    python benchmarks/set_coverage.py RUN:DECODER RUN:DECODER [--size 450] [--draws 500] [--output results/set-coverage.csv]

The truth of an interval is the expectation of the metric *at this n*: the mean of the metric over all draws, since rFID of 450
images is another quantity than rFID of 3,925. Subsets are drawn without replacement (a repeated image would inflate rFID), so
they vary less than sets drawn from the world, by the finite-population factor 1 - n / N. Shares are given as they are
(`coverage`) and for intervals narrowed by the root of that factor (`coverage_narrowed`), the stricter figure.

No difference: image by image a coin decides which of the two decoders stands on which side, so that both sides have one
distribution and every p below 0.05 is a false positive.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import MsbenchError
from harness.files import write_text
from harness.record.run import open_run
from harness.stats.estimate import Estimate
from harness.stats.kid import kid_statistic
from harness.stats.rfid import rfid_statistic
from harness.stats.sets import set_difference, set_estimate

Features = NDArray[np.float32]
STATISTICS = {"rfid": rfid_statistic, "kid": kid_statistic}


@dataclass(frozen=True, slots=True)
class Draw:
    """One estimate of one subset."""

    value: float
    """point estimate"""
    error: float
    """standard error"""
    low: float
    """lower end of the 95 % interval"""
    high: float
    """upper end"""
    p: float
    """p-value of zero"""

    @classmethod
    def of(cls, estimate: Estimate) -> Draw:
        """What is kept of an estimate."""
        interval = estimate.interval(0.95)
        return cls(estimate.value, estimate.standard_error, interval.low, interval.high, estimate.p_value(0.0))


def load(argument: str) -> tuple[Features, Features]:
    """References and reconstructions of RUN:DECODER, first noise seed."""
    folder, _, decoder = argument.rpartition(":")
    found = open_run(Path(folder)).features(decoder) if folder else None
    if found is None:
        raise MsbenchError(f"{argument}: no features there; give RUN:DECODER of a run of this version")
    return found[0], found[1][0]


def study(first: tuple[Features, Features], second: tuple[Features, Features], size: int, draws: int) -> list[dict[str, Any]]:
    """One row per metric and quantity: its shares over the draws."""
    total = len(first[0])
    if len(second[0]) != total or not np.allclose(first[0], second[0], atol=1e-3):
        raise MsbenchError("the two runs are not of the same images in the same order")
    found: dict[tuple[str, str], list[Draw]] = {}
    for draw in range(draws):
        generator = np.random.default_rng(draw)
        rows = generator.choice(total, size, replace=False)
        coin = generator.random(size)[:, None] < 0.5
        reference, one, other = first[0][rows], first[1][rows], second[1][rows]
        mixed = np.where(coin, one, other), np.where(coin, other, one)
        for metric, statistic in STATISTICS.items():
            a, b = statistic(reference, one), statistic(reference, other)
            null = set_difference(statistic(reference, mixed[0]), statistic(reference, mixed[1]))
            for quantity, estimate in (
                ("value", set_estimate(a)),
                ("difference", set_difference(a, b)),
                ("no difference", null),
            ):
                found.setdefault((metric, quantity), []).append(Draw.of(estimate))
        if (draw + 1) % 25 == 0:
            print(f"{draw + 1} of {draws} draws", file=sys.stderr, flush=True)
    return [_shares(metric, quantity, rows, size, total) for (metric, quantity), rows in found.items()]


def _shares(metric: str, quantity: str, rows: list[Draw], size: int, total: int) -> dict[str, Any]:
    value = np.array([row.value for row in rows])
    low, high = np.array([row.low for row in rows]), np.array([row.high for row in rows])
    truth = 0.0 if quantity == "no difference" else float(value.mean())
    factor = np.sqrt(1.0 - size / total)
    narrow = np.abs(value - truth) <= factor * (high - low) / 2.0
    return {
        "metric": metric,
        "quantity": quantity,
        "n": size,
        "pairs": total,
        "draws": len(rows),
        "expectation": truth,
        "coverage": float(np.mean((low <= truth) & (truth <= high))),
        "coverage_narrowed": float(np.mean(narrow)),
        "p_below_0.05": float(np.mean([row.p < 0.05 for row in rows])),
        "deviation": float(value.std(ddof=1)),
        "mean_standard_error": float(np.mean([row.error for row in rows])),
    }


def main() -> int:
    """Run the study; 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", help="RUN:DECODER")
    parser.add_argument("second", help="RUN:DECODER, of the same images")
    parser.add_argument("--size", type=int, default=450, help="pairs in a subset")
    parser.add_argument("--draws", type=int, default=500, help="subsets")
    parser.add_argument("--output", type=Path, help="a CSV")
    options = parser.parse_args()
    import pandas as pd

    try:
        frame = pd.DataFrame(study(load(options.first), load(options.second), options.size, options.draws))
    except MsbenchError as error:
        print(f"set_coverage: {error}", file=sys.stderr)
        return 2
    print(frame.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    if options.output:
        write_text(options.output, frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
