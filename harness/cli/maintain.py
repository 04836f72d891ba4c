"""The commands that look after an installation: ls and weights."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Any

import typer

from harness.cli.shared import JsonFlag, Offline, print_json, say, show
from harness.errors import UnknownNameError
from harness.report.table import listing


def ls_command(what: str, as_json: JsonFlag = False) -> None:
    """List what there is: decoders, datasets or metrics.

    \b
    Example:
      msbench ls decoders
    """
    rows = _listing(what)
    if as_json:
        print_json({"schema_version": 1, "status": "complete", "results": rows})
    else:
        show(listing(list(rows[0]), [[str(value) for value in row.values()] for row in rows], wrap=("description",)))


def weights_fetch_command(names: Annotated[list[str] | None, typer.Argument()] = None, offline: Offline = False) -> None:
    """Bring the metric networks' weights into the cache, checked.

    \b
    Example:
      msbench weights fetch inception lpips-alex
    """
    from harness import weights

    for fetched in weights.fetch(names or None, offline=offline, report=lambda line: say(line, stderr=True)):
        say(f"{fetched.name}: {fetched.source} ({fetched.path})")


def weights_verify_command(as_json: JsonFlag = False) -> None:
    """Check the cached weights by content; exit 1 where one is absent or wrong.

    \b
    Example:
      msbench weights verify --json
    """
    from harness import weights

    rows = [{"name": s.name, "state": s.state, "detail": s.detail, "path": str(s.path)} for s in weights.verify()]
    for row in rows:
        say(f"{row['name']}: {row['state']} {row['detail']} ({row['path']})", as_json)
    good = all(row["state"] == "ok" for row in rows)
    if as_json:
        print_json({"schema_version": 1, "status": "complete" if good else "failed", "results": rows})
    if not good:
        raise typer.Exit(1)


def _listing(what: str) -> list[dict[str, Any]]:
    if what == "decoders":
        from harness.registry import KINDS, decoder_entries, name_clashes

        for line in name_clashes(decoder_entries()):
            say(f"warning: {line}", stderr=True)
        entries = {**decoder_entries(), **{f"{kind}:…": entry for kind, entry in KINDS.items()}}
        return [{"name": name, "from": one.origin, "description": one.description} for name, one in entries.items()]
    if what == "datasets":
        from harness.data.registry import dataset_names

        return [{"name": name, "description": description} for name, description in dataset_names().items()]
    if what == "metrics":
        from harness.metrics.registry import METRICS, origin_of, plug_ins

        shown = ("name", "origin", "direction", "per_image", "extra", "unit", "description")
        titles = ("name", "from", "better", "per image", "on request", "unit", "description")
        rows = [dict(zip(titles, attrgetter(*shown)(metric), strict=True)) for metric in METRICS.values()]
        others = [(name, origin_of(one), "", "", True, "", "plug-in, not loaded") for name, one in plug_ins().items()]
        return rows + [dict(zip(titles, one, strict=True)) for one in others]
    raise UnknownNameError("listing", what, ("decoders", "datasets", "metrics"))
