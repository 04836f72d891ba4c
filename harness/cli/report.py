"""The command `msbench report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.shared import JsonFlag, print_json, progress_bar, read_run, say
from harness.errors import MsbenchError


def report_command(
    runs: list[str],
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("report.html"),
    baseline: str | None = None,
    images: Annotated[list[Path] | None, typer.Option()] = None,
    redo: Annotated[bool, typer.Option("--redo")] = False,
    as_json: JsonFlag = False,
) -> None:
    """One HTML file of finished runs, to look at and hand on: verdict, tables, plots, images, provenance; it fetches nothing.

    \b
    Examples:
      msbench report runs/my-run -o report.html
      msbench report RUN-A RUN-B:ms-onestep --baseline vae --redo
    """
    if output.is_dir() or not output.parent.is_dir():
        what = "is a folder" if output.is_dir() else f"no folder {output.parent}"
        raise MsbenchError(f"--output {output}: {what}; name a file in a folder that is there, as report.html")
    chosen = [read_run(run) for run in runs]
    if images and len(images) > len(chosen):
        raise MsbenchError(f"--images is given {len(images)} times for {len(chosen)} runs: once a run, in their order")
    from harness.files import write_text
    from harness.report.page import render, report_document

    with progress_bar() as progress:
        document = report_document(chosen, baseline, images or (), redo, progress)
    write_text(output, render(document["about"], document, ("table.js", "report.js")))
    pictures, size, verdict = document["images"], output.stat().st_size, "".join(document["verdict"])
    shown = f"{len(pictures['keys'])} of {pictures['n']:,} images" if "keys" in pictures else "no images"
    for warning in document["warnings"]:
        say(f"warning: {warning}", stderr=True)
    say(verdict, as_json)
    say(f"{output}: {size / 1e6:.1f} MB, {shown}", as_json)
    if as_json:
        print_json({"output": output, "bytes": size, "verdict": verdict, "images": shown})
