"""Putting runs side by side: only runs of one protocol and one set of source files compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import MsbenchError, UnknownNameError
from harness.record import Record


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows of several runs, and what a reader must know before reading across them."""

    records: tuple[Record, ...]
    """the runs, in the order given"""
    results: tuple[dict[str, Any], ...]
    """one row per decoder and run, keys as in `--json`"""
    warnings: tuple[str, ...]
    """one line each"""


def compare(runs: Sequence[tuple[Record, str | None]], force: bool = False) -> Comparison:
    """Gather the rows of runs.

    Args:
        runs: record and, where only one of its decoders is wanted, that decoder's name.
        force: put runs of different protocols or sources side by side all the same, with a warning.

    Raises:
        MsbenchError: no run, or runs that do not compare (the message names the first differing field).
        UnknownNameError: a decoder the run does not have.
    """
    if not runs:
        raise MsbenchError("nothing to compare: give at least one run folder")
    first = runs[0][0]
    warnings: list[str] = []
    rows: list[dict[str, Any]] = []
    for record, decoder in runs:
        problem = _difference(first, record)
        if problem and not force:
            raise MsbenchError(
                f"{first.folder} and {record.folder} do not compare: {problem} (--force shows them all the same)"
            )
        if problem:
            warnings.append(f"forced: {record.folder} differs from {first.folder} in {problem}")
        if record.data["dataset"]["reference_sha256"] != first.data["dataset"]["reference_sha256"] and not problem:
            warnings.append(f"{record.folder}: same files, other pixels (another image library version?)")
        names = [row["decoder"] for row in record.results]
        if decoder is not None and decoder not in names:
            raise UnknownNameError(f"decoder of {record.folder}", decoder, names)
        rows += [row for row in record.rows_for_people() if decoder in (None, row["decoder"])]
    return Comparison(tuple(record for record, _ in runs), tuple(rows), tuple(dict.fromkeys(warnings)))


def _difference(first: Record, other: Record) -> str | None:
    """The first field that keeps two runs apart, None where they compare."""
    if first.protocol_hash != other.protocol_hash:
        a, b = first.data["protocol"], other.data["protocol"]
        fields = [key for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
        return "; ".join(f"protocol field {key}: {a.get(key)!r} against {b.get(key)!r}" for key in fields) or "protocol hash"
    if first.data["dataset"]["source_sha256"] != other.data["dataset"]["source_sha256"]:
        return "the source files (source_sha256)"
    return None
