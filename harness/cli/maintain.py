"""The commands that look after an installation: ls, weights, doctor."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from harness.cli.shared import JsonFlag, Offline, console_for, print_json, user_errors
from harness.errors import UnknownNameError


def ls_command(
    what: Annotated[str, typer.Argument(help="decoders, datasets or metrics.")],
    as_json: JsonFlag = False,
) -> None:
    """List what there is: decoders, datasets or metrics."""
    with user_errors():
        from rich.table import Table

        rows = _listing(what)
        table = Table(box=None, pad_edge=False)
        for column in rows[0]:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(str(value) for value in row.values()))
        if as_json:
            print_json({"schema_version": 1, "status": "complete", "results": rows})
        else:
            console_for(False).print(table)


def weights_fetch_command(
    names: Annotated[list[str] | None, typer.Argument(help="inception, lpips-alex, lpips-vgg, dists; default: all.")] = None,
    offline: Offline = False,
) -> None:
    """Bring the metric networks' weights into the cache, checked."""
    with user_errors():
        from harness import weights

        console = console_for(True)
        for fetched in weights.fetch(names or None, offline=offline, report=lambda line: console.print(line, soft_wrap=True)):
            console_for(False).print(f"{fetched.name}: {fetched.source} ({fetched.path})", soft_wrap=True)


def weights_verify_command(as_json: JsonFlag = False) -> None:
    """Check the cached weights by content; exit 1 where one is absent or wrong."""
    with user_errors():
        from harness import weights

        rows = [{"name": s.name, "state": s.state, "detail": s.detail, "path": str(s.path)} for s in weights.verify()]
        for row in rows:
            console_for(as_json).print(f"{row['name']}: {row['state']} {row['detail']} ({row['path']})", soft_wrap=True)
        good = all(row["state"] == "ok" for row in rows)
        if as_json:
            print_json({"schema_version": 1, "status": "complete" if good else "failed", "results": rows})
        if not good:
            raise typer.Exit(1)


def doctor_command(as_json: JsonFlag = False) -> None:
    """Check this machine and installation: libraries, devices, weights, checkpoints; exit 1 where something is missing."""
    with user_errors():
        from harness.cli.doctor import examine

        checks = examine()
        for check in checks:
            console_for(as_json).print(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}", soft_wrap=True)
        good = all(check.ok for check in checks)
        if as_json:
            rows = [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks]
            print_json({"schema_version": 1, "status": "complete" if good else "failed", "results": rows})
        if not good:
            raise typer.Exit(1)


def _listing(what: str) -> list[dict[str, Any]]:
    if what == "decoders":
        from harness.registry import decoder_entries

        return [{"name": e.name, "from": e.origin, "description": e.description} for e in decoder_entries().values()]
    if what == "datasets":
        from harness.data.registry import dataset_names

        return [{"name": name, "description": description} for name, description in dataset_names().items()]
    if what == "metrics":
        from harness.metrics.registry import METRICS

        return [
            {
                "name": m.name,
                "from": m.origin,
                "better": m.direction,
                "per image": m.per_image,
                "on request": m.extra,
                "unit": m.unit,
                "description": m.description,
            }
            for m in METRICS.values()
        ]
    raise UnknownNameError("listing", what, ("decoders", "datasets", "metrics"))
