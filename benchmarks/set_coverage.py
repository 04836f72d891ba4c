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

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.plumbing import options, run_script, write_csv
from harness.errors import MsbenchError
from harness.record.run import open_run
from harness.stats.kid import kid_statistic
from harness.stats.rfid import rfid_statistic
from harness.stats.sets import set_difference, set_estimate

Features = NDArray[np.float32]
STATISTICS = {"rfid": rfid_statistic, "kid": kid_statistic}


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
    found = []
    for draw in range(draws):
        generator = np.random.default_rng(draw)
        rows = generator.choice(total, size, replace=False)
        coin = generator.random(size)[:, None] < 0.5
        reference, one, other = first[0][rows], first[1][rows], second[1][rows]
        for metric, statistic in STATISTICS.items():
            a, b = statistic(reference, one), statistic(reference, other)
            mixed = (statistic(reference, np.where(coin, *sides)) for sides in ((one, other), (other, one)))
            estimates = {"value": set_estimate(a), "difference": set_difference(a, b), "no difference": set_difference(*mixed)}
            for quantity, estimate in estimates.items():
                interval = estimate.interval(0.95)
                ends = {"low": interval.low, "high": interval.high}
                figures = {"value": estimate.value, "error": estimate.standard_error, **ends, "p": estimate.p_value(0.0)}
                found.append({"metric": metric, "quantity": quantity, **figures})
        if (draw + 1) % 25 == 0:
            print(f"{draw + 1} of {draws} draws", file=sys.stderr, flush=True)
    return [_shares(key, rows, size, total) for key, rows in pd.DataFrame(found).groupby(["metric", "quantity"], sort=False)]


def _shares(key: tuple[str, str], rows: pd.DataFrame, size: int, total: int) -> dict[str, Any]:
    value, low, high = rows["value"], rows["low"], rows["high"]
    truth = 0.0 if key[1] == "no difference" else float(value.mean())
    narrow = (value - truth).abs() <= np.sqrt(1.0 - size / total) * (high - low) / 2.0
    return {
        "metric": key[0],
        "quantity": key[1],
        "n": size,
        "pairs": total,
        "draws": len(rows),
        "expectation": truth,
        "coverage": float(((low <= truth) & (truth <= high)).mean()),
        "coverage_narrowed": float(narrow.mean()),
        "p_below_0.05": float((rows["p"] < 0.05).mean()),
        "deviation": float(value.std()),
        "mean_standard_error": float(rows["error"].mean()),
    }


def main() -> None:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("first", help="RUN:DECODER")
    parser.add_argument("second", help="RUN:DECODER, of the same images")
    parser.add_argument("--size", type=int, default=450, help="pairs in a subset")
    parser.add_argument("--draws", type=int, default=500, help="subsets")
    parser.add_argument("--output", type=Path, help="a CSV")
    given = parser.parse_args()
    rows = study(load(given.first), load(given.second), given.size, given.draws)
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    if given.output:
        write_csv(rows, given.output)


if __name__ == "__main__":
    sys.exit(run_script(main))
