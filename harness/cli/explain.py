"""The command `msbench explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import shared
from harness.report.table import Cell, Table, listing, number

if TYPE_CHECKING:
    from harness.explain.explanation import Explanation


def explain_command(
    run: str,
    reported: Annotated[list[str] | None, typer.Option()] = None,
    reported_n: Annotated[int | None, typer.Option(min=2)] = None,
    metric: str = "",
    images: Path | None = None,
    data_dir: Path | None = None,
    statistics: Path | None = None,
    redo: Annotated[bool, typer.Option("--redo")] = False,
    as_json: shared.JsonFlag = False,
) -> None:
    """Why two numbers differ: a run's metrics under the field's conventions, and which of them a reported number fits.

    \b
    Examples:
      msbench explain runs/my-run:vae --images runs/images
      msbench explain runs/my-run:vae --reported rfid=2.2 --reported ssim=0.675
    """
    given = locals()
    from dataclasses import asdict

    from harness.explain.explanation import explain
    from harness.explain.registry import METRICS
    from harness.explain.reported import joint, match, parse_reported

    numbers = [parse_reported(text) for text in reported or ()]
    metrics = shared.parse_names(metric) or tuple(dict.fromkeys(name for name, _ in numbers)) or METRICS
    record, decoder = shared.read_run(run)
    options = {name: given[name] for name in ("images", "data_dir", "redo", "statistics")}
    with shared.progress_bar() as progress:
        found = explain(record, decoder, **options, metrics=metrics, progress=progress)
    shared.show(*explanation_tables(found), stderr=as_json)
    matches = [match(found, *one, reported_n) for one in numbers]
    for one in matches:
        shared.say(str(one), as_json)
    ways = joint(matches)
    if len(matches) > 1:
        shared.say(f"together they fit: {'; '.join(ways)}" if ways else "no way of making the images fits them all", as_json)
    if as_json:
        shared.print_json({**found.document(), "reported": [asdict(one) for one in matches], "joint": ways})


def explanation_tables(found: Explanation) -> list[Table]:
    """One table a metric, then where each user's way can be read."""
    from harness.explain.registry import USERS

    tables: list[Table] = []
    users: dict[str, str] = {}
    for metric, protocol in found.protocol.items():
        rows: list[tuple[str | Cell | None, ...]] = [("the protocol", _number(protocol), None, "run", "")]
        lacking: dict[str, list[str]] = {}
        for one in (one for one in found.findings if one.convention.metric == metric):
            if one.value is None:
                lacking.setdefault(one.source, []).append(one.convention.name)
                continue
            users |= {user: USERS[user] for user in one.convention.users}
            shift = number(one.shift, lambda shift: f"{shift:+.3g}")
            rows.append((one.convention.name, _number(one.value), shift, one.source, ", ".join(one.convention.users)))
        notes = [f"not computed: {reason}: {'; '.join(names)}" for reason, names in lacking.items()]
        title = f"{metric} of {found.label}, n = {found.n:,}, noise seed {found.noise_seed}"
        headers = ("convention", "value", "shift", "computed from", "used by")
        tables.append(listing(headers, rows, title, notes, wrap=("computed from", "used by")))
    return [*tables, listing(("used by", "where to read it"), list(users.items()))]


def _number(value: float | None) -> Cell:
    return number(value, lambda one: f"{one:.5g}")
