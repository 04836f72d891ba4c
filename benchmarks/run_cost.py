"""What an evaluation costs: where runs' time went, which stage sets their pace, and what N images would take.

    MSBENCH_FEATURES=off msbench run --decoder vae --dataset imagenette --max-samples 1000 --no-cost --output-dir RUN
    python benchmarks/run_cost.py RUN... [--images 3925] [--output results/run-cost.csv]

A row is a run, its seconds those of the record's `timing`. A stage is of one of four kinds:

- once a run: loading decoders and metrics, statistics of latents, measuring cost, effective rate;
- once an image, shared by all decoders: waiting for images (what reading ahead did not hide), reference features (Inception on
  the originals; none where the feature cache has them), writing (parts, features, samples, sheet), the cache, saved images,
  waiting for other processes, and what lies between the stages;
- once an image, decoder and noise seed (`decodes` of them an image): decoding (with the encoder, and once a decoder the probe
  of other batch sizes), inception, and each metric. `latent_error` encodes once more. The originals' half of a metric, which
  decoders share, is in here, since the record does not tell it apart; nor one decoder's seconds from another's: run them alone;
- statistics: rFID, KID, their intervals. They grow with N, but not in proportion, so that no prediction holds them.

`slowest` is the longest stage of the second and third kind, `slowest_share` its share of the whole run, `limit_images_per_s`
the pace if it were the only one. `predicted_s` is the time of N images without statistics: what is once a run, and
N (`shared_ms` + `decodes` × `own_ms`) / 1000. In the row of a run of N images it is the measured time: hold others to it.

A resumed run's record tells of its last call alone, and none tells what else the machine did: measure in one go, undisturbed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.plumbing import options, run_script, write_csv
from harness.errors import MsbenchError
from harness.record.record import Record, read_record

ONCE = {"loading decoders", "loading metrics", "statistics of latents", "measuring cost", "effective rate"}
SHARED = {"waiting for images", "reference features", "writing", "cache", "saving images", "waiting for processes", "between"}


def row(record: Record, images: int) -> dict[str, Any]:
    """One run, and what so many images would take.

    Raises:
        MsbenchError: it has not ended, or was merged of several.
    """
    data = record.data
    if data.status != "complete" or data.timing is None:
        raise MsbenchError(f"{record.folder} tells no times (status {data.status}): give a run that ended and was not merged")
    n, seconds = data.dataset.n_samples.effective, data.timing.seconds
    decodes = sum(len(one.noise.seeds) for one in data.decoders.values())
    spent = {name: stage.seconds for name, stage in data.timing.stages.items()} | {"between": data.timing.unaccounted.seconds}
    grows = {name: took for name, took in spent.items() if name not in ONCE | {"statistics"}}
    once, shared = (sum(spent[name] for name in names & spent.keys()) for names in (ONCE, SHARED))
    slowest, total = max(grows, key=grows.__getitem__), sum(grows.values())
    found = {"decoder": ",".join(data.decoders), "n": n, "decodes": decodes, "seconds": seconds, "images_per_s": n / seconds}
    found |= {"slowest": slowest, "slowest_share": grows[slowest] / seconds, "limit_images_per_s": n / grows[slowest]}
    found |= {"once_s": once, "shared_ms": 1e3 * shared / n, "own_ms": 1e3 * (total - shared) / n / decodes}
    found |= {"predicted_n": images, "predicted_s": once + images / n * total, "cpu": data.environment["cpu_model"]}
    return found | {f"{name.replace(' ', '_')}_s": spent[name] for name in sorted(spent)}


def main() -> None:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("run", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--images", type=int, default=3925, help="N")
    parser.add_argument("--output", type=Path, default=Path("results/run-cost.csv"))
    arguments = parser.parse_args()
    if arguments.images < 1:
        raise MsbenchError(f"--images {arguments.images}: give a number of images, 1 or more")
    rows = [row(read_record(folder), arguments.images) for folder in arguments.run]
    write_csv(rows, arguments.output, [*dict.fromkeys(column for line in rows for column in line)])
    print(pd.DataFrame(rows).T.to_string(header=False))


if __name__ == "__main__":
    sys.exit(run_script(main))
