"""Pages for people: one HTML file that fetches nothing, drawn by its own script from one JSON; and that of a report."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from harness.compare.compare import compare, labelled_rows
from harness.environment import msbench_version
from harness.errors import MsbenchError
from harness.metrics.registry import METRICS
from harness.record.images import find_images
from harness.record.marks import other_rate
from harness.record.record import Record, plain
from harness.record.run import open_run
from harness.record.schema import Result
from harness.report.comparison import comparison_tables, sentence
from harness.report.results import results_table
from harness.report.table import MISSING, Cell, Table, listing, visible
from harness.report.tiles import Row, image_document
from harness.stopwatch import Progress

ASSETS = Path(__file__).with_name("assets")
Labelled = tuple[str, int, Result]
"""a row: its label on the page, which run it belongs to, its figures"""


def table_document(table: Table) -> dict[str, Any]:
    """A table as `makeTable` of assets/table.js takes it: every text on one line, infinities as the largest finite number.

    Columns that a terminal leaves out, or that hold no value, have no header, as those of the CSV alone: data, not shown.
    """

    def value(held: str | float | None) -> str | float | None:
        if isinstance(held, str):
            return visible(held)
        if held is None or math.isnan(held):
            return None
        return min(max(held, -sys.float_info.max), sys.float_info.max)

    columns = [
        {
            "header": visible(one.header.replace("\n", " ")) * (one.block is not None and _filled(table, at)),
            "key": visible(one.key),
        }
        | {name: getattr(one, name) for name in ("numeric", "code", "wrap")}
        for at, one in enumerate(table.columns)
    ]
    rows = [
        [{"value": value(one.value), "shown": [visible(part) for part in one.parts()], "bold": one.bold} for one in row]
        for row in table.rows
    ]
    return {"title": visible(table.title), "notes": [visible(note) for note in table.notes], "columns": columns, "rows": rows}


def render(title: str, data: Any, scripts: Sequence[str]) -> str:
    """The page: `data` (JSON types) in one <script type="application/json" id="data">, drawn into <main id="page">.

    Args:
        title: of the browser's tab.
        data: what the scripts read; texts from outside have passed `visible`.
        scripts: names in assets/, in order; together one script.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    script = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in scripts)
    text = json.dumps(plain(data), allow_nan=False, separators=(",", ":"))  # ASCII: U+2028 and U+2029 are escapes already
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    own = f"style-src {_source(style)}; script-src {_source(script)}"
    environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.jinja").render(
        title=visible(title),
        generator=f"msbench {msbench_version() or 'unknown'}",
        policy=f"default-src 'none'; img-src data:; {own}; base-uri 'none'; form-action 'none'",
        style=Markup(style),
        script=Markup(script),
        data=Markup(text),
    )


def report_document(
    runs: Sequence[tuple[Record, str | None]], baseline: str | None, images: Sequence[Path], redo: bool, progress: Progress
) -> dict[str, Any]:
    """What report.js draws of finished runs, in JSON types; texts from outside are made visible.

    Args:
        runs: as `harness.compare.compare.compare` takes them, as is `baseline`.
        images: folders of saved images, one a run; for runs beyond them, where their records say.
        redo: build the decoders again, for latents and the ends of scales.
        progress: called with (stage, done, total).

    Raises:
        MsbenchError: runs that do not compare, or images that were named and are not theirs.
    """
    comparison = compare(runs, baseline=baseline, progress=progress)
    results, rows = comparison.table_rows(), labelled_rows(runs)
    table = results_table(results, "Quality, rate and cost", comparison.demo_sets)
    axes = [one.key for at, one in enumerate(table.columns) if one.numeric and one.block and _filled(table, at)]
    points, told = [], "\n".join(comparison.warnings)
    for (label, place, result), row in zip(rows, results, strict=True):
        spec, ratio = runs[place][0].data.decoders[result.label].spec, row["rate_ratio"]
        ranked = row["psnr"] != math.inf and not other_rate(ratio) and (ratio is not None or row["rate_baseline"] is None)
        names = {"name": visible(label), "family": visible(result.decoder)}
        points.append({**names, "ranked": ranked, "K": spec.scales, "N": spec.steps})
    for record in comparison.records:
        told = told.replace(str(record.folder), record.folder.name)  # where a run lies is nobody else's matter
    first = comparison.records[0].data
    return {
        "about": visible(f"msbench report · {first.dataset.info.name} · {first.protocol_hash} · {first.date[:10]}"),
        "verdict": sentence(comparison),
        "tables": [table_document(one) for one in (table, *comparison_tables(comparison))],
        "points": points,
        "quality": [key for key in axes if key in METRICS],
        "cost": [key for key in axes if key not in (*METRICS, "rfid_infinity", "top_octave_db")],
        "images": _images(runs, rows, images, redo, progress),
        "warnings": [visible(line) for line in told.splitlines()],
        "provenance": [table_document(one) for one in provenance_tables(runs, rows)],
        "made": f"msbench {msbench_version() or 'unknown'}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def _filled(table: Table, place: int) -> bool:
    return any(row[place].value is not None for row in table.rows)


def _images(
    runs: Sequence[tuple[Record, str | None]], rows: Sequence[Labelled], images: Sequence[Path], redo: bool, progress: Progress
) -> dict[str, Any]:
    """The saved images of all runs that have some, or why there are none."""
    opened = [open_run(record) for record, _ in runs]
    folders = [find_images(run, given) for run, given in zip_longest(opened, images)]
    having = [Row(label, opened[at], result, folder) for label, at, result in rows if (folder := folders[at]) is not None]
    if not having:
        return {"reason": "No images were saved. Run again with --save-images DIR, or name their folder by --images DIR."}
    try:
        return image_document(having, redo, progress)
    except MsbenchError as error:
        if images:
            raise
        return {"reason": visible(str(error))}


def provenance_tables(runs: Sequence[tuple[Record, str | None]], rows: Sequence[Labelled]) -> list[Table]:
    """What the figures rest on: the decoders' weights; then how to run again, protocol, images, machine, a column a run."""
    records = [record for record, _ in runs]
    facts = []
    for whole in (record.as_json() for record in records):
        own = {key: value for key, value in whole["dataset"].items() if key not in whole["protocol"]}
        parts = {key: whole[key] for key in ("protocol_hash", "date", "seconds", "protocol", "setting", "environment")}
        facts.append(dict(_flat("", {**parts, "dataset": own})))
    keys = dict.fromkeys(key for one in facts for key in one)
    lines = [["again", *(record.provenance().replace("`", "") for record in records)]]
    lines += [[key, *(one.get(key, MISSING) for one in facts)] for key in keys]
    headers = ("decoder", "parameters", "scales K", "steps N", "weights SHA-256", "encoder SHA-256", "trained on")
    weights: list[list[str | Cell | None]] = []
    for label, place, result in rows:
        spec = records[place].data.decoders[result.label].spec
        sizes = [Cell(size, (f"{size:,}",)) for size in (spec.parameters, spec.scales, spec.steps)]
        weights.append([label, *sizes, spec.weights_sha256, spec.encoder_sha256, spec.trained_on])
    named = [record.folder.name + f" ({place})" * (len(records) > 1) for place, record in enumerate(records, 1)]
    return [
        listing(headers, weights, "Decoders", wrap=headers[4:]),
        listing(("fact", *named), lines, "Protocol, images, machine", wrap=named),
    ]


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """What is known, one text a key: {"a": {"b": 1}} -> ("a.b", "1")."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}" if name else key, item)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        yield from _flat(name, dict(enumerate(value[:8])))
    elif value not in (None, "", []):
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _source(text: str) -> str:
    """How a Content-Security-Policy names one inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
