"""The numbers of a record that no check has touched, found by walking it, so that a new metric cannot pass unseen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from harness.verify.check import Check, unchecked
from harness.verify.opened import Opened

_HASH = re.compile(r"[0-9a-f]{16,64}")
_SAMPLES = "samples_ms"
_REASONS = {
    _SAMPLES: "raw timings: what medians and percentiles are computed from",
    "warmup_calls": "a measurement of its moment: nothing in the run repeats it",
    "peak_memory_mb": "a measurement of its moment: nothing in the run repeats it",
    "seconds": "a measurement of its moment: nothing in the run repeats it",
    "n_available": "needs the dataset",
    "original": "needs the dataset",
    "classes": "needs the dataset",
}
UNKNOWN = "no check knows this number"
NO_FEATURES = "needs features.safetensors with this decoder's features: run it again with this version"


def uncovered(opened: Opened, checks: Iterable[Check]) -> list[Check]:
    """One unchecked entry for every number and hash of the record that `checks` do not name."""
    covered = {check.covers for check in checks}
    data = opened.data
    found = []
    for name in ("schema_version", "protocol_hash", "seconds", "dataset"):
        found += [("", number, value) for number, value in _numbers(data.get(name), name)]
    for decoder, row in opened.rows.items():
        found += [(decoder, number, value) for number, value in _numbers({**row, "decoder": None}, "")]
        found += [(decoder, number, value) for number, value in _numbers(opened.details(decoder), "details")]
    return [
        unchecked(decoder, number, value, _why(opened, decoder, number))
        for decoder, number, value in found
        if (decoder, number) not in covered
    ]


def _numbers(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Paths of the numbers and hashes below a node; a list of raw timings counts as one."""
    if path.endswith(_SAMPLES):
        yield path, f"{len(node)} timings"
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _numbers(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _numbers(value, f"{path}.{index}")
    elif (isinstance(node, (int, float)) and not isinstance(node, bool)) or (isinstance(node, str) and _HASH.fullmatch(node)):
        yield path, node


def _featured(opened: Opened, decoder: str) -> bool:
    return len(opened.pairs(decoder)) == len(opened.seeds(decoder))


def _why(opened: Opened, decoder: str, number: str) -> str:
    parts = number.split(".")
    if decoder and any(part in ("rfid", "kid", "rfid_infinity") for part in parts) and not _featured(opened, decoder):
        return NO_FEATURES
    return _REASONS.get(parts[-1], UNKNOWN)
