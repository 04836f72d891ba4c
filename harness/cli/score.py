"""The command that scores finished reconstructions: score."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import shared
from harness.cli.run import show_record
from harness.environment import command_line
from harness.errors import MsbenchError


def score_command(
    reference: Path,
    reconstructions: list[str],
    match: str = "name",
    preprocess: Annotated[bool, typer.Option("--preprocess")] = False,
    resolution: shared.SideIfAny = None,
    margin: str = "",
    extra_metrics: str = "",
    batch_size: shared.Count = 8,
    device: str = "cpu",
    output_dir: Path | None = None,
    save_images: Path | None = None,
    resume: shared.Resume = False,
    columns: str = "",
    offline: shared.Offline = False,
    as_json: shared.JsonFlag = False,
) -> None:
    """Score finished reconstructions of anything against their originals, into a record as `run` writes it.

    \b
    Examples:
      msbench score originals/ mine=reconstructed/ theirs=samples.npz
      msbench score val/ out/ --preprocess --resolution 256
    """
    given = locals()
    from harness.report.results import check_columns
    from harness.run.config import RunConfig
    from harness.run.runner import evaluate

    if resolution is not None and not preprocess:
        raise MsbenchError("--resolution goes with --preprocess: without it every original keeps its own size")
    by_order = "@match=order" if match == "name" and reference.suffix == ".npz" else f"@match={match}" * (match != "name")
    decoders = {label: f"images:{path}{by_order}" for label, path in _labelled(reconstructions).items()}
    asked = {**given, "decoders": decoders, "margins": margin, "cost": None}
    config = RunConfig(**shared.chosen(RunConfig, {**asked, "dataset": f"folder:{reference}", "as_given": not preprocess}))
    names = shared.parse_names(columns)
    check_columns(names, config.extra_metrics, ())
    with shared.progress_bar() as progress:
        record = evaluate(config, progress, command_line())
    show_record(record, str(reference), names, save_images, as_json)


def _labelled(texts: Sequence[str]) -> dict[str, str]:
    """Label -> path from DIR, labelled by its last part, or LABEL=DIR.

    Raises:
        MsbenchError: an empty label or one given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        label, equals, path = text.partition("=")
        if not equals or os.path.exists(text):
            label, path = os.path.basename(os.path.abspath(text)), text
        if not label or label in found:
            raise MsbenchError(f"{text}: every row needs a label of its own, not {label!r} again or none: LABEL=DIR")
        found[label] = path
    return found
