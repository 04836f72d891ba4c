"""A static page over many records: a table a protocol, published figures apart, and where each row comes from.

Rows share a table, and so are ranked, only where `compare` would take their runs without a warning. Records are data of others:
nothing of them is run, links are not followed, and one that cannot be read is listed with its reason.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.compare.comparison import Basis, basis, side_by_side
from harness.errors import MsbenchError, plugin_boundary
from harness.files import sha256_file, write_text
from harness.record.marks import with_ratios
from harness.record.record import RECORD, Record, read_record
from harness.report.page import provenance_tables, render, table_document
from harness.report.published import published_rows, published_table
from harness.report.results import results_table, shown_dataset
from harness.report.table import Cell, Column, Table, listing, visible

PAGE, VERIFIED = "index.html", "verify.json"
"""what is written; and, beside a record, what `msbench verify RUN --json` printed of it"""
_CHECKS = {"verified": "self-consistent", "disagrees": "disagrees with itself"}
_SUMMARY = re.compile(r"\d+ numbers agree, \d+ disagree, \d+ not checked", re.ASCII)
Unread = list[tuple[str, str]]
"""place and reason of each record that could not be read"""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One record."""

    record: Record
    """its content, of the data set's place the last part alone"""
    basis: Basis
    """what its figures rest on"""
    place: str
    """its folder, from the name of the folder that was searched on"""
    check: str
    """what `msbench verify` said of this very file, in words and counts; "not checked" where it said nothing"""
    provenance: tuple[Table, ...]
    """where its rows come from"""
    sha256: str
    """of its file"""


def read_entries(folders: Sequence[Path]) -> tuple[list[Entry], Unread]:
    """Every record below the folders, each once, and those that could not be read.

    Raises:
        MsbenchError: one is no folder, or there is no record at all.
    """
    found, entries, unread = dict[Path, str](), list[Entry](), Unread()
    for folder in folders:
        if not folder.is_dir():
            raise MsbenchError(f"{folder} is no folder: give folders with records of `msbench run` in them")
        for root, names, _ in os.walk(folder, onerror=lambda error: unread.append((str(error.filename), str(error.strerror)))):
            names.sort()
            path = Path(root, RECORD)
            if path.is_file() and not path.is_symlink():
                found.setdefault(path.resolve(), str(Path(folder.resolve().name) / path.parent.relative_to(folder)))
    for path, place in found.items():
        try:
            with plugin_boundary(place, "reading it"):
                entry = _entry(path, place)
                if same := next((one.place for one in entries if one.sha256 == entry.sha256), None):
                    raise MsbenchError(f"{place} is the same record as {same}")
                entries.append(entry)
        except MsbenchError as error:
            unread.append((place, str(error).replace(str(path.parent), place)))
    if not (entries or unread):
        raise MsbenchError(
            f"no {RECORD} below {', '.join(map(str, folders))}: give folders with records of `msbench run` in them"
        )
    return entries, unread


def _entry(path: Path, place: str) -> Entry:
    """Read one; whatever the page takes from it is taken once here, since an environment may hold anything."""
    record, sha256 = read_record(path), sha256_file(path)
    data = record.data
    if data.status != "complete":
        raise MsbenchError(f"{place}: its status is {data.status}, not complete")
    for one, name in ((row, metric) for row in data.results for metric in row.intervals):
        (low, high), value = one.intervals[name], one.metrics[name]
        if value is None or not low - 1e-6 <= value <= high + 1e-6:
            raise MsbenchError(f"{place}: {name} of {one.label} lies outside its own interval: the record was edited")
    name = shown_dataset(data.dataset.info.name)
    facts = replace(data.dataset, info=replace(data.dataset.info, name=name))
    results = tuple(replace(row, dataset=name) for row in data.results)
    record = replace(record, data=replace(data, dataset=facts, results=results))
    check = _check(path.with_name(VERIFIED), sha256)
    told = [("check", check), ("record.json, SHA-256", sha256), ("made by", record.provenance().replace("`", ""))]
    own = listing(("fact", "value"), told, place, wrap=("value",))
    rows = [(row.label, 0, row) for row in results]
    entry = Entry(record, basis(record), place, check, (own, *provenance_tables([(record, None)], rows)), sha256)
    _table([entry], [entry])
    return entry


def _check(path: Path, sha256: str) -> str:
    told: Any = None
    with suppress(OSError, ValueError, RecursionError):  # no output of `verify`: nothing was checked
        told = json.loads(path.read_bytes()) if path.is_file() and not path.is_symlink() else None
    if not isinstance(told, dict) or told.get("record_sha256") != sha256 or str(told.get("status")) not in _CHECKS:
        return "not checked"
    return _CHECKS[told["status"]] + f" ({told['summary']})" * bool(_SUMMARY.fullmatch(str(told.get("summary"))))


def write_page(entries: Sequence[Entry], unread: Unread, folder: Path) -> Path:
    """Write the page, replacing an earlier one at once; nothing else in the folder is touched. Returns its path."""
    groups: list[list[Entry]] = []
    for entry in entries:
        if (home := next((group for group in groups if _fits(group[0].basis, entry.basis)), None)) is None:
            groups.append(home := [])
        home.append(entry)
    groups.sort(key=lambda group: -group[0].record.data.dataset.n_samples.effective)
    left_out = listing(("record", "reason"), unread, "Records that could not be read", wrap=("reason",))
    data = {
        "tables": [_table(group, entries) for group in groups],
        "records": [[table_document(table) for table in entry.provenance] for entry in entries],
        "published": table_document(published_table(published_rows())),
        "unread": table_document(left_out) if unread else None,
    }
    write_text(folder / PAGE, render("Leaderboard", data, ("table.js", "leaderboard.js")))
    return folder / PAGE


def _fits(one: Basis, other: Basis) -> bool:
    fit = side_by_side(one, other)
    return one.protocol_hash == other.protocol_hash and not (fit.quality or fit.warnings)


def _table(group: Sequence[Entry], entries: Sequence[Entry]) -> dict[str, Any]:
    """The rows of records that compare, and what the page filters each by; `entries` are those it numbers."""
    data, info = group[0].record.data, group[0].record.data.dataset.info
    labels = Counter(row.label for entry in group for row in entry.record.data.results)
    apart = any(side_by_side(group[0].basis, entry.basis).times for entry in group)
    times: dict[str, Any] = {"ms_per_image": {}, "peak_memory_mb": None} if apart else {}
    size = f"{info.resolution} px" if info.resolution else "native sizes"
    title = f"{info.name}, {size}, n = {data.dataset.n_samples.effective:,}, protocol {data.protocol_hash}"
    rows, filters = list[dict[str, Any]](), list[dict[str, Any]]()
    for entry in group:
        device = visible(f"{entry.basis.timing['device']}: {entry.basis.timing['processor']}")
        for row in entry.record.rows_for_people():
            own = f"{row['label']} ({entry.place})" if labels[row["label"]] > 1 else row["label"]
            rate = f"{row['rate']['bits_per_pixel']:.3g} bits/pixel, {row['rate']['kind']}" if row["rate"] else "no code"
            rows.append({**row, "label": own, "check": entry.check, **times})
            filters.append({"protocol": visible(title), "record": entries.index(entry), "device": device, "rate": rate})
    table = results_table(with_ratios(rows, next((row for row in rows if row["rate"]), None)), title, (info.name,) * info.demo)
    columns = [table.columns[0], Column("check", "check"), *table.columns[1:]]
    checks = [Cell(row["check"], (row["check"].partition(" (")[0], f"{row['device']} {row['dtype']}")) for row in rows]
    cells = [(row[0], check, *row[1:]) for row, check in zip(table.rows, checks, strict=True)]
    notes = [*table.notes, *["Times and memory are left out: of several machines or settings."] * apart]
    return {"table": table_document(replace(table, columns=columns, rows=cells, notes=notes)), "rows": filters}
