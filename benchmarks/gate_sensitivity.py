"""What the regression gate can tell apart: differences that mean nothing against checkpoints that were harmed a little.

    python benchmarks/gate_sensitivity.py [--decoders direct] [--output FILE.csv]

Each shipped decoder on `photos`: a plain run (batch 8, one thread), then the same under benign changes (a second run, other
batch sizes, two threads, older instruction sets as stand-ins for other machines), then with weights harmed by Gaussian noise of
p % of each tensor's standard deviation. Decoders of many steps get fewer conditions, those without weights are not harmed. Rows
hold a condition and a metric; then each metric's floor is printed, its largest benign difference: the tolerances of metrics
hold ten times that, rounded up.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.plumbing import options, run_script, write_csv
from decoders.checkpoint import load_autoencoder, load_denoiser, read_checkpoint, save_checkpoint, shipped_path
from harness.compare.gate import gated_figures, tolerance_of, worsening
from harness.files import sha256_file
from harness.metrics.registry import METRICS
from harness.record.record import read_record

ROOT = Path(__file__).resolve().parent.parent
FAST, SLOW = ("vae", "onestep", "ms-onestep", "direct"), ("diffusion", "ms-diffusion", "ms-diffusion-cascade")
UNTRAINED = ("bicubic", "jpeg", "identity")
SSE41 = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
TWO = {"OMP_NUM_THREADS": "2"}
BENIGN: tuple[tuple[str, int, dict[str, str]], ...] = (
    ("plain", 8, {}), ("second run", 8, {}), ("batch 7", 7, {}), ("2 threads", 8, TWO), ("sse41", 8, SSE41),
    ("batch 1", 1, {}), ("batch 32", 32, {}), ("sse41, batch 1, 2 threads", 1, SSE41 | TWO), ("avx2", 8, AVX2),
)  # fmt: skip
"""change, images per call, environment of the process; decoders of many steps get the first five"""


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


def figures(
    decoder: str, batch: int = 8, environment: dict[str, str] | None = None, level: float = 0.0, seed: int = 0
) -> tuple[dict[str, float], str]:
    """The gated figures that were measured rather than counted, of one run in a process of its own, and its protocol hash."""
    with tempfile.TemporaryDirectory() as place:
        spec = decoder
        if level:
            harm(shipped_path(decoder), Path(place) / "harmed.safetensors", level, seed)
            spec += f"@checkpoint={place}/harmed.safetensors"
        command = [sys.executable, str(ROOT / "msbench.py"), "run", "--decoder", f"{decoder}={spec}", "--no-cost"]
        own = {"MSBENCH_FEATURES": "off", "OMP_NUM_THREADS": "1", **(environment or {})}
        command += ["--batch-size", str(batch), "--output-dir", f"{place}/run"]
        subprocess.run(command, env=os.environ | own, check=True, capture_output=True, cwd=ROOT)
        record = read_record(Path(place) / "run")
    found = gated_figures(record, record.data.results[0])
    return {name: value for name, value in found.items() if name in METRICS and value is not None}, record.protocol_hash


def study(decoder: str) -> list[dict[str, Any]]:
    """The rows of one decoder."""
    levels = () if decoder in UNTRAINED else (1.0,) if decoder in SLOW else (0.1, 0.2, 0.5, 1.0, 2.0)
    runs = [(change, 0.0, 0, figures(decoder, *how)) for change, *how in (BENIGN[:5] if decoder in SLOW else BENIGN)]
    runs += [("noise", level, seed, figures(decoder, level=level, seed=seed)) for level in levels for seed in range(3)]
    (plain, protocol), rows = runs[0][3], []
    known = {"protocol_hash": protocol, "weights_sha256": "" if decoder in UNTRAINED else sha256_file(shipped_path(decoder))}
    for change, level, seed, (found, _) in runs:
        for metric, value in found.items():
            who = {"decoder": decoder, "change": change, "level": level, "seed": seed, "metric": metric, "plain": plain[metric]}
            rows.append(who | {"worse_by": worsening(plain[metric], value, METRICS[metric].direction)} | known)
    return rows


def main() -> None:
    """Run the study and print the floors, and which share of harmed runs each level trips the gate with."""
    parser = options(__doc__)
    parser.add_argument("--decoders", default=",".join((*FAST, *UNTRAINED, *SLOW)), help="names separated by commas")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "regression" / "sensitivity.csv", help="the CSV file")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in given.decoders.split(","):
        rows += study(name)
        write_csv(rows, given.output)
    frame = pd.DataFrame(rows)
    pairs = zip(frame["metric"], frame["plain"], strict=True)
    frame["trips"] = frame["worse_by"] > [tolerance_of(metric).amount(plain) for metric, plain in pairs]
    benign, harmed = (frame[(frame["change"] == "noise") == noisy] for noisy in (False, True))
    print(benign.groupby("metric")["worse_by"].agg(lambda worse: worse.abs().max()).rename("floor").to_string())
    print(f"benign runs that trip the gate: {int(benign.groupby(['decoder', 'change'])['trips'].any().sum())}")
    if len(harmed):
        print(harmed.groupby(["decoder", "level", "seed"])["trips"].any().groupby(["decoder", "level"]).mean().to_string())


if __name__ == "__main__":
    sys.exit(run_script(main))
