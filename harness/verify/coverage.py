"""The numbers of a record that no check has touched, found by walking it, so that a new metric cannot pass unseen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from harness.record.record import Record
from harness.verify.check import Check, unchecked

_HASH = re.compile(r"(v\d+:)?[0-9a-f]{16,64}")
_SAMPLES = "samples_ms"
_OF_ITS_MOMENT = "a measurement of its moment: nothing in the run repeats it"
STATISTICS = "intervals, spreads of images and extrapolations are not computed again: msbench's own tests hold their formulas"
_REASONS = (
    (_SAMPLES, "raw timings: what medians and percentiles are computed from"),
    (r"(^|\.)(interval\w*|image_spread|rfid_infinity|rfid_warning)(\.|$)", STATISTICS),
    (r"noise\.seeds", "no run opens whose samples have other seeds"),
    (r"details\.source_sha256", "the decoder's own file, which may have changed since"),
    (r"\.cost\.|memory|seconds|timing|\.noise\.|clamped|batch_dependence", _OF_ITS_MOMENT),
    (r"original|classes|n_available|selected|label|resolution|source_sha256|keys_sha256", "needs the dataset"),
    (r"^rate|codebook", "needs the code of each image, which no run keeps"),
    (r"reference_sha256", "needs the saved reference images"),
)
UNKNOWN = "no check knows this number"


def uncovered(record: Record, checks: Iterable[Check]) -> list[Check]:
    """One unchecked entry for every number and hash of the record that `checks` do not name."""
    covered = {check.covers for check in checks}
    data = record.as_json()
    found = [("", *one) for name in ("protocol_hash", "seconds", "dataset") for one in _numbers(data[name], name)]
    for row in data["results"]:
        label = row["label"]
        own = {key: value for key, value in row.items() if key not in ("decoder", "label", "options", "dataset")}
        found += [(label, *one) for one in _numbers(own, "")]
        found += [(label, *one) for one in _numbers(data["decoders"][label], "details")]
    return [
        unchecked(label, number, value, next((why for pattern, why in _REASONS if re.search(pattern, number)), UNKNOWN))
        for label, number, value in found
        if (label, number) not in covered
    ]


def _numbers(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Paths of the numbers and hashes below a node; a list of raw timings counts as one."""
    if path.endswith(_SAMPLES):
        yield path, f"{len(node)} timings"
    elif isinstance(node, (dict, list)):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _numbers(value, f"{path}.{key}" if path else str(key))
    elif (isinstance(node, (int, float)) and not isinstance(node, bool)) or (isinstance(node, str) and _HASH.fullmatch(node)):
        yield path, node
