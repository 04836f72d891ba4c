"""What a reader must know of a row of results: every table marks it, and --json carries it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from harness.record.schema import DatasetFacts, Details, Result

CLAMPED = 0.01
"""Share of output values outside [-1, 1] from which a row says so."""

RATE_WITHIN = 0.01
"""Relative difference of two rates up to which they count as equal."""


def rate_ratio(result: Result, baseline: Result) -> float | None:
    """Bits an image over the baseline's; None where either is unknown."""
    return _ratio(*(asdict(one.rate) if one.rate else None for one in (result, baseline)))


def with_ratios(rows: Iterable[Mapping[str, Any]], baseline: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Rows as in `--json` with `rate_ratio`, bits an image over the baseline's or None, and `rate_baseline`, its label."""
    rate, label = (baseline.get("rate"), baseline["label"]) if baseline else (None, None)
    return [{**row, "rate_ratio": _ratio(row.get("rate"), rate), "rate_baseline": label} for row in rows]


def _ratio(rate: Mapping[str, Any] | None, baseline: Mapping[str, Any] | None) -> float | None:
    """Of effective bits, which those of files and tokens are anyway; of nominal ones where a side has no others."""
    if not rate or not baseline:
        return None
    sides = rate, baseline
    real = [one.get("effective_bits_per_image") or one["bits_per_image"] * (one["kind"] != "nominal") for one in sides]
    bits, whole = real if all(real) else [one["bits_per_image"] for one in sides]
    return bits / whole if whole else None


def other_rate(ratio: float | None) -> bool:
    """The two rates are known to differ: neither is called better or worse in bold."""
    return ratio is not None and abs(ratio - 1.0) > RATE_WITHIN


def row_marks(result: Result, details: Details, dataset: DatasetFacts) -> list[str]:
    """What a reader must know of one row before quoting it, a few words each; empty for most."""
    noise, marks = details.noise, [*details.notes]
    if noise.global_draws:
        marks.append("draws its own random numbers")
    if (noise.batch_dependence or 0.0) > 1.0:  # one level is rounding
        marks.append(f"depends on its batch: up to {noise.batch_dependence:.3g} levels of 255 between batches of other sizes")
    if details.clamped > CLAMPED:
        marks.append(f"{100 * details.clamped:.3g} % of its values lay outside [-1, 1] and were clamped")
    cells = details.cost.cells if details.cost else ()
    if result.disturbed:
        seen = "; ".join(dict.fromkeys(cell.reason for cell in cells if cell.disturbed and cell.reason))
        marks.append("timed while other work ran on the machine: its times say nothing" + (f" ({seen})" if seen else ""))
    for cell in cells:
        if cell.estimated:
            marks.append(f"its time at batch {cell.batch_size} is estimated {cell.estimated}")
        elif cell.status == "skipped_budget":
            marks.append(f"not timed at batch {cell.batch_size}: {cell.reason}")
    if details.cost and details.cost.uncounted:
        marks.append(f"not counted in its GFLOPs: {', '.join(details.cost.uncounted)}")
    if dataset.excluded:
        marks.append(f"{len(dataset.excluded)} images left out: a decoder failed on them or has none of them")
    if dataset.info.partial:
        marks.append(f"a partial data set of {dataset.n_samples.original:,} images")
    if dataset.info.subset == "unlabelled":
        marks.append("a subset drawn without labels, so not by class")
    return marks
