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

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.plumbing import options, run_script, write_csv
from decoders.checkpoint import load_autoencoder, load_denoiser, read_checkpoint, save_checkpoint, shipped_path
from harness.compare.gate import gated_figures, tolerance_of, worsening
from harness.errors import UnknownNameError
from harness.files import sha256_file
from harness.metrics.registry import METRICS
from harness.record.record import Record, read_record

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "results" / "regression" / "sensitivity.csv"
FAST = ("vae", "onestep", "ms-onestep", "direct")
SLOW = ("diffusion", "ms-diffusion", "ms-diffusion-cascade")
UNTRAINED = ("bicubic", "jpeg", "identity")
ALL = (*FAST, *UNTRAINED, *SLOW)
INSTRUCTIONS = {
    "": {},
    "sse41": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}
COLUMNS = ("decoder", "change", "level", "seed", "metric", "plain", "worse_by", "protocol_hash", "weights_sha256")
"""of a row, one metric of one condition: the plain run's figure, and how much worse this one is (negative = better)"""


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


def conditions(decoder: str) -> list[Condition]:
    """The plain run first, then what the decoder's speed allows."""
    benign = [
        Condition("plain"),
        Condition("second run"),
        Condition("batch 7", batch_size=7),
        Condition("2 threads", threads=2),
        Condition("sse41", instructions="sse41"),
    ]
    if decoder in SLOW:
        return [*benign, *(Condition("noise", 1.0, seed) for seed in range(3))]
    benign += [
        Condition("batch 1", batch_size=1),
        Condition("batch 32", batch_size=32),
        Condition("sse41, batch 1, 2 threads", batch_size=1, threads=2, instructions="sse41"),
        Condition("avx2", instructions="avx2"),
    ]
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
    """One run without cost, in a process of its own.

    Its features of the reference are its own, or those of a run before it where the condition says so.
    """
    if condition.cached:
        run("identity", replace(condition, cached=False), folder)
        condition = Condition("plain")
    command = [sys.executable, str(ROOT / "msbench.py"), "run", "--decoder", decoder, "--no-cost"]
    command += ["--batch-size", str(condition.batch_size), "--output-dir", str(folder / decoder)]
    if condition.change == "noise":
        checkpoint = folder / f"{decoder}.safetensors"
        harm(shipped_path(decoder), checkpoint, condition.level, condition.seed)
        command += ["--checkpoint", str(checkpoint)]
    own = {"MSBENCH_FEATURES": str(folder / "features"), "OMP_NUM_THREADS": str(condition.threads)}
    environment = {**os.environ, **INSTRUCTIONS[condition.instructions], **own}
    subprocess.run(command, env=environment, check=True, capture_output=True, cwd=ROOT)
    return read_record(folder / decoder)


def figures(decoder: str, condition: Condition) -> tuple[dict[str, float], str]:
    """The gated figures of a run that were measured rather than counted, and its protocol hash."""
    with tempfile.TemporaryDirectory() as folder:
        record = run(decoder, condition, Path(folder))
    found = gated_figures(record, record.data.results[0])
    return {name: value for name, value in found.items() if name in METRICS and value is not None}, record.protocol_hash


def study(decoder: str, kept: list[dict[str, Any]], output: Path) -> list[dict[str, Any]]:
    """Run what `kept` lacks of one decoder, writing the file after every condition.

    Rows of other weights or of another protocol are dropped, and their conditions run again.
    """
    weights = "" if decoder in UNTRAINED else sha256_file(shipped_path(decoder))
    kept = [row for row in kept if row["decoder"] != decoder or row["weights_sha256"] == weights]

    def lacking() -> list[Condition]:
        done = {(row["change"], row["level"], row["seed"]) for row in kept if row["decoder"] == decoder}
        return [one for one in conditions(decoder) if (one.change, one.level, one.seed) not in done]

    if not lacking():
        print(f"{decoder}: complete; --again repeats it", flush=True)
        return kept
    plain, protocol = figures(decoder, Condition("plain"))
    kept = [row for row in kept if row["decoder"] != decoder or (row["protocol_hash"] == protocol and row["change"] != "plain")]
    for one in lacking():
        found = plain if one.change == "plain" else figures(decoder, one)[0]
        for metric, value in found.items():
            worse = worsening(plain[metric], value, METRICS[metric].direction)
            label = (decoder, one.change, one.level, one.seed)
            row = (*label, metric, plain[metric], worse, protocol, weights)
            kept.append(dict(zip(COLUMNS, row, strict=True)))
        write_csv(sorted(kept, key=lambda row: ALL.index(row["decoder"])), output)
        print(f"{decoder}: {one.change}" + (f" {one.level} %, seed {one.seed}" if one.level else ""), flush=True)
    return kept


def summary(rows: pd.DataFrame) -> Iterator[str]:
    """The study in a page: floors and tolerances, the effect of each level of harm, and what trips the gate."""
    tolerances = [tolerance_of(metric) for metric in rows["metric"]]
    amounts = [tolerance.amount(plain) for tolerance, plain in zip(tolerances, rows["plain"], strict=True)]
    # Worsening in units of the figure's tolerance: above 1 the gate trips, and a figure without tolerance on any.
    rows = rows.assign(limits=(rows["worse_by"] / amounts).fillna(0.0))
    # Beside a figure of 0 no difference counts as a fraction of it.
    rows["relative"] = [bool(tolerance.relative and plain) for tolerance, plain in zip(tolerances, rows["plain"], strict=True)]
    rows["floor"] = (rows["worse_by"] / rows["plain"].where(rows["relative"], 1.0)).abs()
    benign, harmed = rows[~rows["change"].isin(["plain", "noise"])], rows[rows["change"] == "noise"]
    yield "metric: floor = largest benign difference (where), tolerance in use; effect of harm in tolerances, median (least)"
    for metric in rows["metric"].unique():
        tolerance, parts = tolerance_of(metric), []
        for relative, here in benign[benign["metric"] == metric].groupby("relative", sort=False):
            most = here.loc[here["floor"].idxmax()]
            used = f"{tolerance.relative:g} of the figure" if relative else f"{tolerance.absolute:g}"
            parts.append(f"{most['floor']:.2g} ({most['decoder']}, {most['change']}), {used}")
        for level, here in harmed[harmed["metric"] == metric].groupby("level"):
            parts.append(f"{level:g} %: {here['limits'].median():.1f} ({here['limits'].min():.1f})")
        yield f"  {metric}: {'; '.join(parts)}"
    tripping = benign[benign["limits"] > 1]
    names = sorted({f"{decoder} {change}" for decoder, change in zip(tripping["decoder"], tripping["change"], strict=True)})
    yield f"benign changes that trip the gate: {', '.join(names) or 'none'}"
    yield "harmed checkpoints that trip the gate on any metric:"
    for decoder, mine in harmed.groupby("decoder", sort=False):
        worst = mine.groupby(["level", "seed"])["limits"].max() > 1
        shares = worst.groupby("level").agg(["sum", "size"])
        told = [f"{level:g} %: {tripped} of {seeds}" for level, (tripped, seeds) in shares.iterrows()]
        caught = shares.index[shares["sum"] == shares["size"]]
        least = f"{caught.min():g}" if len(caught) else "none"
        yield f"  {decoder}: {', '.join(told)}; smallest level that trips with every seed: {least} %"


def main() -> None:
    """Run the study and print its summary."""
    parser = options(__doc__)
    parser.add_argument("--decoders", default=",".join(ALL), help="names separated by commas")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the CSV file, read and completed")
    parser.add_argument("--again", action="store_true", help="run what is in the file again")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    given = parser.parse_args()
    rows = pd.read_csv(given.output, keep_default_na=False).to_dict("records") if given.output.is_file() else []
    for name in [] if given.summary else given.decoders.split(","):
        if name not in ALL:
            raise UnknownNameError("decoder", name, ALL)
        rows = study(name, [row for row in rows if not given.again or row["decoder"] != name], given.output)
    for line in summary(pd.DataFrame(rows, columns=list(COLUMNS))):
        print(line)


if __name__ == "__main__":
    sys.exit(run_script(main))
