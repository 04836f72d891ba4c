"""What the regression gate can tell apart: differences that mean nothing against checkpoints that were harmed a little.

For each shipped decoder, on `photos`: a plain run (batch 8, one thread), then the same under benign changes (a second run,
other batch sizes, two threads, older instruction sets as stand-ins for other machines, features of the reference that another
run has cached), then with weights harmed by Gaussian noise of p % of each tensor's standard deviation. Decoders of many steps
get fewer conditions, those without weights are not harmed. Writes one row a condition and metric:

    python benchmarks/gate_sensitivity.py                       # all; what is already in the file is not run again
    python benchmarks/gate_sensitivity.py --decoders direct
    python benchmarks/gate_sensitivity.py --summary             # read the file only

The largest benign difference of a metric is its floor; the tolerances of the metrics' entries hold ten times that, rounded up.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch

from decoders.checkpoint import load_autoencoder, load_denoiser, read_checkpoint, save_checkpoint, shipped_path
from harness.compare.gate import gated_figures, tolerance_of, worsening
from harness.files import sha256_file, write_text
from harness.metrics.registry import METRICS
from harness.record.record import Record, read_record
from harness.run.config import RunConfig
from harness.run.runner import evaluate

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "results" / "regression" / "sensitivity.csv"
FAST = ("vae", "onestep", "ms-onestep", "direct")
SLOW = ("diffusion", "ms-diffusion", "ms-diffusion-cascade")
UNTRAINED = ("bicubic", "jpeg", "identity")
ALL = (*FAST, *UNTRAINED, *SLOW)
SSE41 = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to run a decoder."""

    change: str
    """"plain", a benign change, or "noise" for harmed weights"""
    level: float = 0.0
    """noise in per cent of each tensor's standard deviation"""
    seed: int = 0
    """seed of that noise"""
    batch_size: int = 8
    """images per call"""
    threads: int = 1
    """threads of torch"""
    instructions: str = ""
    """"sse41" or "avx2" to hold torch and oneDNN back; empty = what the machine has"""
    cached: bool = False
    """only the reference's features are made this way, by a run before a plain one"""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of one condition."""

    decoder: str
    """registry name"""
    change: str
    """see `Condition`"""
    level: float
    """see `Condition`"""
    seed: int
    """see `Condition`"""
    metric: str
    """key of a record's results"""
    plain: float
    """the plain run's figure"""
    worse_by: float
    """how much worse this one is, in the metric's unit; negative = better"""
    protocol_hash: str
    """of both runs"""
    weights_sha256: str
    """of the unharmed decoder; empty where it has none"""


def conditions(decoder: str) -> list[Condition]:
    """The plain run first, then what the decoder's speed allows."""
    sse41 = Condition("sse41, batch 1, 2 threads", batch_size=1, threads=2, instructions="sse41")
    benign = [
        Condition("plain"),
        Condition("second run"),
        Condition("batch 7", batch_size=7),
        Condition("2 threads", threads=2),
    ]
    benign += [Condition("sse41", instructions="sse41")]
    if decoder in SLOW:
        return [*benign, *(Condition("noise", 1.0, seed) for seed in range(3))]
    benign += [Condition("batch 1", batch_size=1), Condition("batch 32", batch_size=32), sse41]
    benign += [Condition("avx2", instructions="avx2")]
    if decoder in UNTRAINED:
        return [*benign, *(replace(other, change=f"features of {other.change}", cached=True) for other in benign[2:])]
    return [*benign, *(Condition("noise", level, seed) for level in (0.1, 0.2, 0.5, 1.0, 2.0) for seed in range(3))]


def harm(source: Path, target: Path, percent: float, seed: int) -> None:
    """Write `source` with Gaussian noise of `percent` of each tensor's standard deviation added to it."""
    manifest, _ = read_checkpoint(source)
    module = (load_autoencoder if manifest.kind == "autoencoder" else load_denoiser)(source)[0]
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.add_(noise, alpha=percent / 100 * float(tensor.std(correction=0)))
    save_checkpoint(target, module, manifest)


def run(decoder: str, condition: Condition, folder: Path) -> Record:
    """One run whose features of the reference are its own, or those of another run where the condition says so."""
    os.environ["MSBENCH_FEATURES"] = str(folder / "features")
    if condition.cached:
        run_once("identity", condition, folder / "before")
        condition = Condition("plain")
    return run_once(decoder, condition, folder)


def run_once(decoder: str, condition: Condition, folder: Path) -> Record:
    """One run without cost; in a process of its own where instruction sets are held back."""
    checkpoint = None
    if condition.change == "noise":
        checkpoint = folder / f"{decoder}.safetensors"
        harm(shipped_path(decoder), checkpoint, condition.level, condition.seed)
    if not condition.instructions:
        torch.set_num_threads(condition.threads)
        config = RunConfig(
            (decoder,),
            batch_size=condition.batch_size,
            checkpoint=checkpoint,
            output_dir=folder / "run",
            cost=None,
            sheet_rows=0,
        )
        return evaluate(config)
    environment = {
        **os.environ,
        **(SSE41 if condition.instructions == "sse41" else AVX2),
        "OMP_NUM_THREADS": str(condition.threads),
    }
    command = [sys.executable, str(ROOT / "msbench.py"), "run", "--decoder", decoder, "--no-cost"]
    command += ["--batch-size", str(condition.batch_size), "--output-dir", str(folder / "run")]
    subprocess.run(command, env=environment, check=True, capture_output=True, cwd=ROOT)
    return read_record(folder / "run")


def figures(record: Record) -> dict[str, float]:
    """The gated figures that were measured rather than counted."""
    found = gated_figures(record, record.data.results[0])
    return {name: value for name, value in found.items() if name in METRICS and value is not None}


def study(decoder: str, kept: list[Row], output: Path) -> list[Row]:
    """Run what `kept` lacks of one decoder, writing the file after every condition.

    Rows of other weights or of another protocol are dropped, and their conditions run again.
    """
    weights = "" if decoder in UNTRAINED else sha256_file(shipped_path(decoder))
    kept = [row for row in kept if row.decoder != decoder or row.weights_sha256 == weights]
    wanted = conditions(decoder)
    if all(has(kept, decoder, condition) for condition in wanted):
        print(f"{decoder}: complete; --again repeats it", flush=True)
        return kept
    with tempfile.TemporaryDirectory() as folder:
        record = run(decoder, wanted[0], Path(folder))
    plain, protocol = figures(record), record.protocol_hash
    kept = [row for row in kept if row.decoder != decoder or (row.protocol_hash == protocol and row.change != "plain")]
    for condition in wanted:
        if has(kept, decoder, condition):
            continue
        found = plain
        if condition.change != "plain":
            with tempfile.TemporaryDirectory() as folder:
                found = figures(run(decoder, condition, Path(folder)))
        for metric, value in found.items():
            worse = worsening(plain[metric], value, METRICS[metric].direction)
            label = (decoder, condition.change, condition.level, condition.seed)
            kept = [*kept, Row(*label, metric, plain[metric], worse, protocol, weights)]
        write_rows(kept, output)
        level = f" {condition.level} %, seed {condition.seed}" if condition.level else ""
        print(f"{decoder}: {condition.change}{level}", flush=True)
    return kept


def has(rows: Iterable[Row], decoder: str, condition: Condition) -> bool:
    """Whether a condition was run."""
    key = (decoder, condition.change, condition.level, condition.seed)
    return any((row.decoder, row.change, row.level, row.seed) == key for row in rows)


def write_rows(rows: list[Row], path: Path) -> None:
    """The file, decoders in the order of the study and conditions in the order run."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in sorted(rows, key=lambda row: ALL.index(row.decoder)))
    write_text(path, stream.getvalue())


def read_rows(path: Path) -> list[Row]:
    """The rows of an earlier study, none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return [
            Row(
                *(row["decoder"], row["change"], float(row["level"]), int(row["seed"]), row["metric"]),
                *(float(row["plain"]), float(row["worse_by"]), row["protocol_hash"], row["weights_sha256"]),
            )
            for row in csv.DictReader(stream)
        ]


def is_relative(row: Row) -> bool:
    """Whether a row's difference counts as a fraction of the plain figure; beside a figure of 0 none does."""
    return bool(tolerance_of(row.metric).relative and row.plain)


def floor_of(row: Row) -> float:
    """A row's difference in the unit of its figure's tolerance."""
    return abs(row.worse_by / row.plain) if is_relative(row) else abs(row.worse_by)


def limits(row: Row) -> float:
    """A row's worsening in units of its figure's tolerance; above 1 the gate trips."""
    if row.worse_by == 0:
        return 0.0
    amount = tolerance_of(row.metric).amount(row.plain)
    return row.worse_by / amount if amount else math.copysign(math.inf, row.worse_by)


def summary(rows: list[Row]) -> Iterator[str]:
    """The study in a page: floors and tolerances, the effect of each level of harm, and what trips the gate."""
    benign = [row for row in rows if row.change not in ("plain", "noise")]
    harmed = [row for row in rows if row.change == "noise"]
    levels = sorted({row.level for row in harmed})
    yield "metric: floor = largest benign difference (where), tolerance in use; effect of harm in tolerances, median (least)"
    for metric in dict.fromkeys(row.metric for row in rows):
        tolerance = tolerance_of(metric)
        found_floors = []
        for relative, used in ((True, f"{tolerance.relative:g} of the figure"), (False, f"{tolerance.absolute:g}")):
            here = [row for row in benign if row.metric == metric and is_relative(row) == relative]
            if here:
                most = max(here, key=floor_of)
                found_floors.append(f"{floor_of(most):.2g} ({most.decoder}, {most.change}), {used}")
        effects = []
        for level in levels:
            found = [limits(row) for row in harmed if row.metric == metric and row.level == level]
            effects.append(f"{level:g} %: {statistics.median(found):.1f} ({min(found):.1f})")
        yield f"  {metric}: {'; '.join([*found_floors, *effects])}"
    tripping = sorted({f"{row.decoder} {row.change}" for row in benign if limits(row) > 1})
    yield f"benign changes that trip the gate: {', '.join(tripping) or 'none'}"
    yield "harmed checkpoints that trip the gate on any metric:"
    for decoder in dict.fromkeys(row.decoder for row in harmed):
        shares, caught = [], []
        for level in sorted({row.level for row in harmed if row.decoder == decoder}):
            here = [row for row in harmed if (row.decoder, row.level) == (decoder, level)]
            seeds, tripped = {row.seed for row in here}, {row.seed for row in here if limits(row) > 1}
            shares.append(f"{level:g} %: {len(tripped)} of {len(seeds)}")
            caught += [level] if tripped == seeds else []
        yield f"  {decoder}: {', '.join(shares)}; smallest level that trips with every seed: {min(caught, default='none')} %"


def main() -> None:
    """Run the study and print its summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decoders", default=",".join(ALL), help="names separated by commas")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the CSV file, read and completed")
    parser.add_argument("--again", action="store_true", help="run what is in the file again")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    names = [name for name in arguments.decoders.split(",") if name]
    unknown = [name for name in names if name not in ALL]
    if unknown:
        parser.error(f"--decoders: {', '.join(unknown)} not among {', '.join(ALL)}")
    rows = read_rows(arguments.output)
    if not arguments.summary:
        rows = [row for row in rows if not arguments.again or row.decoder not in names]
        for name in names:
            rows = study(name, rows, arguments.output)
        write_rows(rows, arguments.output)
    if not rows:
        parser.error(f"{arguments.output} holds no rows yet")
    for line in summary(rows):
        print(line)


if __name__ == "__main__":
    main()
