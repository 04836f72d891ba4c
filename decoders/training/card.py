"""The model card beside a checkpoint: NAME.json for machines, NAME.md for people, both from the same facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.files import write_text

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
        "hardware": f"{processor}, {hardware['threads']} threads, torch {hardware['torch']}",
        "seed": facts["optimiser"]["seed"],
        "date": facts["date"],
    }
    if facts.get("flow"):
        rows["flow"] = f"{facts['flow']}, {facts['architecture']['scales']} scale(s)"
        rows["encoder sha256"] = f"`{facts['encoder_sha256']}`"
    if facts.get("teacher_sha256"):
        rows["teacher sha256"] = f"`{facts['teacher_sha256']}`"
    lines = [f"# {facts['decoder']} ({facts['preset']})", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows.items()]
    curve = facts["loss_curve"]
    if curve:
        lines += ["", f"Training loss, step {curve[0][0]} to {curve[-1][0]}: `{sparkline([loss for _, loss in curve])}`", ""]
        shown = curve[:: max(1, len(curve) // 10)]
        lines += ["| step | " + " | ".join(str(step) for step, _ in shown) + " |", "|---|" + "---|" * len(shown)]
        lines += ["| loss | " + " | ".join(f"{loss:.4g}" for _, loss in shown) + " |"]
    return "\n".join(lines) + "\n"


def sparkline(values: list[float]) -> str:
    """One block character per value, scaled between the smallest and the largest."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BARS[min(7, int(8 * (value - low) / span))] for value in values)
