"""Pages for people: one HTML file that fetches nothing, drawn by its own script from one JSON."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.environment import msbench_version
from harness.record.record import plain
from harness.report.table import Table, visible

ASSETS = Path(__file__).with_name("assets")


def table_document(table: Table) -> dict[str, Any]:
    """A table as `makeTable` of assets/table.js takes it: every text on one line, infinities as the largest finite number.

    Columns that a terminal leaves out have no header, as those of the CSV alone: they are data, not shown.
    """

    def value(held: str | float | None) -> str | float | None:
        if isinstance(held, str):
            return visible(held)
        if held is None or math.isnan(held):
            return None
        return min(max(held, -sys.float_info.max), sys.float_info.max)

    columns = [
        {"header": "" if one.block is None else visible(one.header.replace("\n", " ")), "key": visible(one.key)}
        | {name: getattr(one, name) for name in ("numeric", "code", "wrap")}
        for one in table.columns
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


def _source(text: str) -> str:
    """How a Content-Security-Policy names one inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
