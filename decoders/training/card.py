"""The model card beside a checkpoint: NAME.json for machines, NAME.md for people, NAME.png with a few of its images."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from decoders.models import build
from decoders.presets import DIFFUSION
from decoders.training.data import TrainingImages, trim
from harness.decoder import DecoderOptions
from harness.files import write_text
from harness.noise import SampleNoise
from harness.report.sheet import write_sheet
from harness.run.reconstruct import reconstruct

COUNT = 6
"""images on the sheet"""
STEPS_PER_SCALE = 4
"""network calls a scale of a multi-step decoder: enough to look at, an eighth of the time"""

_NOT_CURVES = ("grad_norm", "skipped", "seconds", "samples_per_s", "gflops_per_s", "mfu")
_BARS = "▁▂▃▄▅▆▇█"


def write_card(stem: Path, facts: dict[str, Any]) -> None:
    """Write STEM.json and STEM.md."""
    write_text(stem.with_suffix(".json"), json.dumps(facts, indent=1, sort_keys=True) + "\n")
    write_text(stem.with_suffix(".md"), render_card(facts))


def render_card(facts: dict[str, Any]) -> str:
    """The card as Markdown."""
    data, hardware, objective = facts["data"], facts["hardware"], facts["objective"]
    processor = ", ".join(hardware["gpus"]) or hardware["cpu"]
    rows = {
        "weights": f"`{facts['decoder']}.safetensors`, fp16, {facts['parameters']:,} parameters",
        "sha256": f"`{facts['sha256']}`",
        "trained on": f"{data['name']}, {data['images']:,} images at {data['resolution']} px",
        "training pixels sha256": f"`{data['pixels_sha256']}`",
        "objective": ", ".join(f"{key} {value}" for key, value in objective.items()),
        "perceptual network": facts["perceptual_network"],
        "steps": f"{facts['steps']:,}{'' if facts['finished'] else ' (stopped early)'}",
        "time": f"{facts['seconds'] / 60:.1f} min",
        "throughput": _throughput(facts.get("throughput")),
        "hardware": f"{processor}, {hardware['threads']} threads, torch {hardware['torch']}",
        "seed": facts["optimiser"]["seed"],
        "date": facts["date"],
    }
    if facts.get("flow"):
        rows["flow"] = f"{facts['flow']}, {facts['architecture']['scales']} scale(s)"
        if facts.get("encoder"):
            rows["latents of"] = f"`{facts['encoder']}`"
        rows["encoder sha256"] = f"`{facts['encoder_sha256']}`"
    for origin in ("start", "teacher"):
        if facts.get(f"{origin}_sha256"):
            rows[f"{origin} sha256"] = f"`{facts[f'{origin}_sha256']}`"
    lines = [f"# {facts['decoder']} ({facts['preset']})", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows.items()]
    curves = facts["loss_curves"]
    steps = curves.get("step", [])
    if steps:
        shown = range(0, len(steps), -(-len(steps) // 10))
        lines += ["", "Training curves, each point the mean of its stretch of the log:", ""]
        lines += ["| step | | " + " | ".join(f"{steps[i]:g}" for i in shown) + " |", "|---|---|" + "--:|" * len(shown)]
        for name, values in curves.items():
            if name != "step":
                numbers = ["–" if values[i] is None else f"{values[i]:.3g}" for i in shown]
                lines.append(f"| {name} | `{sparkline(values)}` | " + " | ".join(numbers) + " |")
    return "\n".join(lines) + "\n"


def _throughput(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not measured"
    speed = "" if found["samples_per_s"] is None else f"{found['samples_per_s']:.3g} samples/s, "
    return (
        f"{speed}{found['training_pflops']:.3g} PFLOPs in all, {found['mfu']:.0%} of the "
        f"{found['peak_gflops_per_s']:,.0f} GFLOP/s of a large matrix product"
    )


def read_curves(log: Path, points: int = 40) -> dict[str, list[float | None]]:
    """Columns of a run's log.csv, thinned to at most `points` values: "step", the loss and its parts; None where all are NaN.

    A flow's total is divided by its own running mean and says little; its parts are what a reader wants.
    """
    if not log.is_file():
        return {}
    with log.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    size = max(1, -(-len(rows) // points))
    chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
    names = [name for name in (rows[0] if rows else {}) if name not in _NOT_CURVES]
    curves: dict[str, list[float | None]] = {}
    for name in names:
        stretches = [[float(row[name]) for row in chunk if not math.isnan(float(row[name]))] for chunk in chunks]
        means = [sum(values) / len(values) if values else None for values in stretches]
        curves[name] = [float(chunk[-1]["step"]) for chunk in chunks] if name == "step" else [_short(mean) for mean in means]
    return curves


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def sparkline(values: Sequence[float | None]) -> str:
    """One block character per value, scaled between the smallest and the largest; a blank where there is none."""
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    span = (high - low) or 1.0
    return "".join(" " if value is None else _BARS[min(7, int(8 * (value - low) / span))] for value in values)


def write_samples(path: Path, checkpoint: Path, name: str, scales: int | None, data: TrainingImages, offline: bool) -> None:
    """Decode `COUNT` images spread over `data` with the weights in `checkpoint` and draw them beside the originals.

    Args:
        path: where the PNG goes.
        name: registry name the checkpoint was trained as.
        scales: K of a denoiser.
        offline: never touch the network.
    """
    preset, steps = DIFFUSION.get(name), None
    if preset is not None:
        scales = scales or preset.scales
        steps = scales * (STEPS_PER_SCALE if preset.objective == "flow" else 1)
    decoder = build(DecoderOptions(checkpoint=checkpoint, steps=steps, scales=scales, name=name, offline=offline))
    picks = torch.linspace(0, len(data.images) - 1, min(COUNT, len(data.images))).long()
    originals = trim(data.images[picks], decoder.spec.down_factor)
    keys = [f"training image {int(index)}" for index in picks]
    # The arrangement every decoder shows the harness: uint8 in, uint8 out, rounded once.
    decoded = reconstruct(decoder, originals, SampleNoise.for_samples(0, keys)).pixels
    error = (decoded.double() - originals.double()).square().mean(dim=(1, 2, 3)).clamp(min=1e-9)
    captions = [f"{float(10 * torch.log10(255**2 / value)):.1f} dB" for value in error]
    pictures = {name: [image.permute(1, 2, 0).numpy() for image in decoded]}
    write_sheet(path, [image.permute(1, 2, 0).numpy() for image in originals], pictures, keys, {name: captions}, COUNT)
