"""A static page over many records: a table a protocol, published figures apart, and where each row comes from.

Rows share a table, and so are ranked, only where `compare` would take their runs without a warning. Records are data of others:
nothing of them is run, links are not followed, and one that cannot be read is listed with its reason.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.compare.comparison import Basis, basis, side_by_side
from harness.errors import MsbenchError, plugin_boundary
from harness.files import sha256_file, write_text
from harness.record.marks import with_ratios
from harness.record.record import RECORD, Record, read_record
from harness.report.page import render, table_document
from harness.report.published import published_rows, published_table
from harness.report.results import results_table, shown_dataset
from harness.report.table import Cell, Column, listing, visible

PAGE = "index.html"
VERIFIED = "verify.json"
"""beside a record: what `msbench verify RUN --json` printed of it"""
_CHECKS = {"verified": "self-consistent", "disagrees": "disagrees with itself"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One record."""

    record: Record
    """its content"""
    basis: Basis
    """what its figures rest on"""
    number: int
    """its place among the entries of a board"""
    place: str
    """its folder, from the name of the folder that was searched on"""
    sha256: str
    """of its record.json"""
    check: str
    """what `msbench verify` said of this very file: "self-consistent", "disagrees with itself" or "not checked\""""


@dataclass(frozen=True, slots=True)
class Board:
    """What the page shows."""

    entries: tuple[Entry, ...]
    """in the order of their places"""
    unread: tuple[tuple[str, str], ...]
    """place and reason of each record that could not be read"""


def read_board(folders: Sequence[Path]) -> Board:
    """Every record below the folders, each once.

    Raises:
        MsbenchError: one is no folder, or there is no record at all.
    """
    found: dict[Path, str] = {}
    unread: list[tuple[str, str]] = []
    for folder in folders:
        if not folder.is_dir():
            raise MsbenchError(f"{folder} is no folder: give folders with records of `msbench run` in them")

        def told(error: OSError) -> None:
            unread.append((str(error.filename), error.strerror or str(error)))

        for root, names, _ in os.walk(folder, onerror=told):
            names.sort()
            path = Path(root) / RECORD
            if path.is_file() and not path.is_symlink():
                found.setdefault(path.resolve(), str(Path(folder.resolve().name) / path.parent.relative_to(folder)))
    entries = []
    for path, place in found.items():
        try:
            with plugin_boundary(place, "reading it"):
                entries.append(_entry(path, len(entries), place))
        except MsbenchError as error:
            unread.append((place, str(error).replace(str(path.parent), place)))
    if not (entries or unread):
        raise MsbenchError(
            f"no {RECORD} below {', '.join(map(str, folders))}: give folders with records of `msbench run` in them"
        )
    return Board(tuple(entries), tuple(unread))


def _entry(path: Path, number: int, place: str) -> Entry:
    """Read one; whatever the page takes from it is taken once here, since an environment may hold anything."""
    record, sha256 = read_record(path), sha256_file(path)
    if record.data.status != "complete":
        raise MsbenchError(f"{place}: its status is {record.data.status}, not complete")
    entry = Entry(record, basis(record), number, place, sha256, _check(path.with_name(VERIFIED), sha256))
    _facts(entry)
    _table([entry])
    return entry


def _check(path: Path, sha256: str) -> str:
    try:
        told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and not path.is_symlink() else None
    except (OSError, ValueError, RecursionError):
        told = None
    of_this = isinstance(told, dict) and told.get("record_sha256") == sha256
    return _CHECKS.get(str(told["status"]) if of_this and "status" in told else "", "not checked")


def write_board(board: Board, folder: Path) -> Path:
    """Write the page, replacing an earlier one at once; nothing else in the folder is touched. Returns its path."""
    groups: list[list[Entry]] = []
    for entry in board.entries:
        fitting = (group for group in groups if _fits(group[0].basis, entry.basis))
        if (group := next(fitting, None)) is None:
            groups.append([entry])
        else:
            group.append(entry)
    groups.sort(key=lambda group: -group[0].record.data.dataset.n_samples.effective)
    unread = listing(("record", "reason"), board.unread, "Records that could not be read", wrap=("reason",))
    data = {
        "tables": [_table(group) for group in groups],
        "records": [{"place": visible(entry.place), "facts": _facts(entry)} for entry in board.entries],
        "published": table_document(published_table(published_rows())),
        "unread": table_document(unread) if board.unread else None,
    }
    write_text(folder / PAGE, render("Leaderboard", data, ("table.js", "leaderboard.js")))
    return folder / PAGE


def _fits(one: Basis, other: Basis) -> bool:
    fit = side_by_side(one, other)
    return one.protocol_hash == other.protocol_hash and not (fit.quality or fit.warnings)


def _table(group: Sequence[Entry]) -> dict[str, Any]:
    """The rows of records that compare, and of each the record, device and rate that the page filters by."""
    facts, first = group[0].record.data, group[0].basis
    name = shown_dataset(facts.dataset.info.name)
    labels = Counter(row.label for entry in group for row in entry.record.data.results)
    apart = any(side_by_side(first, entry.basis).times for entry in group)
    rows, of_rows = [], []
    for entry in group:
        device = f"{entry.basis.timing['device']}: {entry.basis.timing['processor']}"
        for row in entry.record.rows_for_people():
            own = f"{row['label']} ({entry.place})" if labels[row["label"]] > 1 else row["label"]
            times = {"ms_per_image": {}, "peak_memory_mb": None} if apart else {}
            rows.append({**row, "label": own, "dataset": name, **times})
            rate = row["rate"] and f"{row['rate']['bits_per_pixel']:.3g} bits/pixel, {row['rate']['kind']}"
            of_rows.append((entry, device, rate or "no code"))
    rows = with_ratios(rows, next((row for row in rows if row["rate"]), None))
    title = f"{name}, {facts.protocol.resolution} px, n = {facts.dataset.n_samples.effective:,}, protocol {facts.protocol_hash}"
    table = results_table(rows, title, (name,) if facts.dataset.info.demo else ())
    name_, *others = table.columns
    columns = [name_, Column("check", "check"), *others, Column("device", "on"), Column("record", "record")]
    cells = [
        [row[0], Cell(of.check), *row[1:], Cell(device, tuple(device.split(": ", 1))), Cell(of.place)]
        for row, (of, device, _) in zip(table.rows, of_rows, strict=True)
    ]
    notes = [*table.notes, *["Times and memory are left out: of several machines or settings."] * apart]
    table = replace(table, columns=columns, rows=cells, notes=notes)
    filters = [{"record": of.number, "device": visible(device), "rate": rate} for of, device, rate in of_rows]
    return {"table": table_document(table), "protocol": visible(title), "rows": filters}


def _facts(entry: Entry) -> list[tuple[str, str]]:
    """Where a record's rows come from: name and text."""
    record, setting = entry.record, asdict(entry.record.data.setting)
    packages = record.data.environment.get("packages")
    versions = packages.items() if isinstance(packages, dict) else ()
    facts = [
        ("check", entry.check),
        ("SHA-256 of record.json", entry.sha256),
        ("made by", record.provenance().replace("`", "")),
        ("setting", ", ".join(f"{name} {value}" for name, value in setting.items())),
        ("libraries", ", ".join(f"{name} {version}" for name, version in versions if version)),
        ("source files", record.data.dataset.source_sha256),
        ("reference pixels", record.data.dataset.reference_sha256),
    ]
    for label, details in record.data.decoders.items():
        spec = details.spec
        hashes = {"weights": spec.weights_sha256, "encoder": spec.encoder_sha256, "code": details.source_sha256}
        known = [f"{name} {value}" for name, value in hashes.items() if value]
        facts.append((f"row {label}", "; ".join([*known, f"trained on {spec.trained_on}"])))
    return [(visible(name), visible(value)) for name, value in facts]
