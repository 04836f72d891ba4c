"""`msbench claim`: what the paper claims, as three answers, on runs that it makes or is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import shared
from harness.environment import command_line
from harness.errors import MsbenchError

if TYPE_CHECKING:
    from harness.decoder import DecoderSpec
    from harness.record.record import Record
    from harness.run.config import RunConfig


def claim_command(
    ctx: typer.Context,
    runs: Annotated[list[str] | None, typer.Argument()] = None,
    student: str = "ms-onestep",
    teacher: str = "diffusion,ms-diffusion,ms-diffusion-cascade",
    control: str = "onestep",
    direct: str = "direct",
    earlier: str | None = None,
    dataset: str = "imagenette",
    data_dir: Path | None = None,
    resolution: shared.SideIfAny = None,
    max_samples: shared.CountIfAny = None,
    batch_size: shared.Count = 8,
    noise_seeds: shared.Count = 3,
    device: str = "cpu",
    dtype: str = "fp32",
    cost_seconds: shared.Seconds = 10.0,
    speed_dir: Path | None = None,
    output_dir: Path | None = None,
    offline: shared.Offline = False,
    as_json: shared.JsonFlag = False,
) -> None:
    """The paper's claim, equal quality, and whether a teacher is worth it, apart. Resumable.

    \b
    Examples:
      msbench claim --dataset imagenette --data-dir DIR
      msbench claim RUN-A RUN-B:ms-onestep --student ms-onestep
    """
    given = locals()
    from harness.compare.claim import Roles, claim_rows, examine, with_speed
    from harness.cost.cost import CostProtocol
    from harness.files import write_text
    from harness.record.record import as_row
    from harness.registry import find_entry
    from harness.report.claim import claim_tables
    from harness.report.table import markdown
    from harness.request.requests import parse_request
    from harness.run.config import RunConfig, runs_root

    names, folder = [student, control, direct, *shared.parse_names(teacher)], output_dir
    of_runs = [name for name in (*shared.chosen(RunConfig, given), "cost_seconds") if name not in ("output_dir", "offline")]
    stated = [name for name in of_runs if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    if runs and stated:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in stated)
        raise MsbenchError(f"{options}: of runs that are made, leave them out beside RUN")
    late, *more = claim_rows([shared.read_run(earlier)]) if earlier else (None,)
    if more:
        raise MsbenchError(f"--earlier {earlier} holds several decoders: give RUN:DECODER")
    if speed_dir:
        with_speed((), speed_dir)  # refused now, not after the runs
    if runs:
        chosen = [shared.read_run(run) for run in runs]
    else:
        folder = output_dir or runs_root() / f"claim-{dataset.partition(':')[0]}-{device.replace(':', '')}"
        given |= {"data_dir": data_dir and data_dir.resolve(), "cost": CostProtocol(max_seconds=cost_seconds)}
        chosen = _make_runs(RunConfig((), **shared.chosen(RunConfig, given)), folder, names)
        names = [*(parse_request(name).label for name in names[:3]), *(parse_request(name).name for name in names[3:])]
    rows = claim_rows(chosen)
    held = {name for row in rows for name in (row.result.label, row.result.decoder)}
    for name in sorted({*names} - held - {"none"}):
        find_entry(name)  # a decoder that was not measured, or a slip
    student, control, direct, *teachers = names
    claim = examine(with_speed(rows, speed_dir) if speed_dir else rows, Roles(student, control, direct, tuple(teachers)), late)
    tables = claim_tables(claim)
    shared.show(*tables, stderr=as_json)
    if folder is not None:
        sources = dict.fromkeys(record.provenance().replace("`", "") for record, _ in chosen)
        first = replace(tables[0], notes=[*tables[0].notes, *sources])
        write_text(folder / "claim.md", "\n".join(map(markdown, [first, *tables[1:]])))
        shared.say(f"the tables are in {folder / 'claim.md'}", as_json)
    if as_json:
        results = [as_row(row.result) for row in claim.rows]
        shared.print_json({"schema_version": 1, **asdict(replace(claim, rows=())), "results": results})


def _make_runs(config: RunConfig, folder: Path, names: Sequence[str]) -> list[tuple[Record, str | None]]:
    """Runs of student, control, direct and every setting of the teachers after them, in folders named by their weights.

    A setting of many steps takes longer than a training did, and has one noise seed.
    """
    from harness.compare.claim import FEW, grid
    from harness.files import safe_name
    from harness.record.record import RECORD
    from harness.request.requests import parse_request, parse_requests
    from harness.run.config import check_device
    from harness.run.runner import evaluate

    parse_requests(dict.fromkeys(names[:3]))  # refuses two of one label
    if not names[3:]:
        raise MsbenchError("--teacher names none: give the multi-step decoders")
    for name in names[3:]:
        asked = parse_request(name)
        if asked.steps or parse_request(f"{name}@steps=1").label == asked.label:
            raise MsbenchError(f"--teacher {name}: leave label and steps out, every setting of the grid has its own")
    device = check_device(config.device)
    found: list[tuple[Record, str | None]] = []

    def spec(text: str) -> DecoderSpec:
        return parse_request(text).build(device, config.dtype, config.offline, config.resolution or 0).spec

    specs = {name: spec(name) for name in names}
    wanted = [(name, name, config.noise_seeds) for name in names[:3]]
    for name in names[3:]:
        settings = [(name, f"{name}@steps={n}", config.noise_seeds if n <= FEW else 1) for n in grid(specs[name].scales)]
        spec(settings[-1][1])  # one that takes no such steps is refused now, not after the first runs
        wanted += settings
    for place, (name, text, seeds) in enumerate(wanted, 1):
        shared.say(f"{place} of {len(wanted)}: {text}", stderr=True)
        cell = folder / f"{safe_name(parse_request(text).label)}-{(specs[name].weights_sha256 or 'none')[:8]}"
        one = replace(config, decoders=(text,), noise_seeds=seeds, output_dir=cell, resume=(cell / RECORD).is_file())
        with shared.progress_bar() as progress:
            found.append((evaluate(one, progress, command_line()), None))
    return found
