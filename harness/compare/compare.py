"""Putting runs side by side and saying what differs: only runs of one protocol and one set of source files compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.compare.comparison import Compared, Comparison, CostRatio, SeedSpread
from harness.compare.compatible import incompatibility, pixel_warning, time_incompatibility
from harness.errors import MsbenchError, UnknownNameError
from harness.metrics.registry import METRICS
from harness.record.measured import Measured, average, difference, read_measured
from harness.record.record import Record
from harness.record.run import Run, open_run
from harness.record.schema import Details
from harness.stats.estimate import Estimate
from harness.stats.ratio import median_ratio
from harness.stats.verdict import Corrected, Direction, Margin, decide, holm, merge_margins, parse_margins

LEVEL = 0.95
Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A decoder of a run, or several training seeds of one as one."""

    label: str
    """unique among the rows"""
    position: int
    """which of the runs given it belongs to, from 0"""
    record: Record
    """where it was measured"""
    result: dict[str, Any]
    """its row of results"""
    details: Details
    """its entry under `decoders`"""
    measured: Measured
    """its values"""


def compare(
    runs: Sequence[tuple[Record, str | None]],
    force: bool = False,
    baseline: str | None = None,
    margins: str = "",
    progress: Progress | None = None,
) -> Comparison:
    """Gather the rows of runs and hold each against a baseline.

    The baseline is the row named; without a name, decoders of later runs are held against the decoder of the same name in the
    first run, or else against the first row; within a single run all are held against its first row.

    Args:
        runs: record and, where only one of its decoders is wanted, that decoder's name.
        force: show runs of different protocols or sources side by side all the same, without any test, with a warning.
        baseline: a row's label or a decoder's name (the first of that name).
        margins: losses that count as none, beside those the runs' protocol states; marked as chosen after the runs.
        progress: told how many comparisons are done.

    Raises:
        MsbenchError: no run, or runs that do not compare (the message names the first differing field), or a bad margin.
        UnknownNameError: a decoder or a baseline that is not there.
    """
    if not runs:
        raise MsbenchError("nothing to compare: give at least one run folder")
    first = runs[0][0]
    warnings: list[str] = []
    forced = False
    for record, _ in runs:
        problem = incompatibility(first, record)
        if problem and not force:
            raise MsbenchError(
                f"{first.folder} and {record.folder} do not compare: {problem} (--force shows them all the same)"
            )
        if problem:
            forced = True
            warnings.append(f"forced: {record.folder} differs from {first.folder} in {problem}; nothing is tested")
        elif line := pixel_warning(first, record):
            warnings.append(line)
    opened = [open_run(record) for record, _ in runs]
    chosen = _chosen(runs)
    results = [{**result, "label": label, "run": str(runs[position][0].folder)} for label, position, result in chosen]
    stated = first.data.protocol.margins
    merged = merge_margins(stated, margins, METRICS)
    after = parse_margins(merged, METRICS) != parse_margins(stated, METRICS)
    if after:
        warnings.append(f"margins chosen after the runs (the protocol states {stated}): verdicts on them are exploratory")
    comparisons: tuple[Compared, ...] = ()
    costs: tuple[CostRatio, ...] = ()
    seeds: tuple[SeedSpread, ...] = ()
    if not forced:
        rows = [_row(label, position, opened[position], result) for label, position, result in chosen]
        groups = _training_groups(rows)
        seeds = tuple(spread for members in groups.values() for spread in _seed_spread(members))
        everything = rows + [_group_row(label, members) for label, members in groups.items()]
        pairs = _pairs(everything, rows, baseline)
        comparisons = _compared(pairs, parse_margins(merged, METRICS), progress or (lambda stage, done, total: None))
        costs, refused = _cost_ratios([pair for pair in pairs if pair[0] in rows])
        warnings += refused
        if any(not row.measured.wholes for row in rows):
            warnings.append("some runs kept no Inception features: their rFID and KID are not tested")
    return Comparison(
        tuple(record for record, _ in runs),
        tuple(results),
        comparisons,
        costs,
        seeds,
        merged,
        after,
        tuple(dict.fromkeys(warnings)),
        forced,
    )


def _chosen(runs: Sequence[tuple[Record, str | None]]) -> list[tuple[str, int, dict[str, Any]]]:
    """(label, which run, result) of every row; a label is the name alone where one row has it, else with its run's folder.

    A name says how many steps were asked for, where a run asked: `diffusion@steps=4`.
    """
    found = []
    for position, (record, decoder) in enumerate(runs):
        names = [row["label"] for row in record.results]
        if decoder is not None and decoder not in names:
            raise UnknownNameError(f"decoder of {record.folder}", decoder, names)
        found += [(position, row) for row in record.rows_for_people() if decoder in (None, row["label"])]
    asked = [row["options"].get("steps") for _, row in found]
    names = [row["decoder"] + (f"@steps={steps}" if steps else "") for (_, row), steps in zip(found, asked, strict=True)]
    counts = Counter(names)
    labels: list[str] = []
    for (position, _), asked_for in zip(found, names, strict=True):
        folder = runs[position][0].folder.name
        label = name = asked_for if counts[asked_for] == 1 else f"{folder}:{asked_for}"
        repeat = 1
        while label in labels:
            repeat += 1
            label = f"{name}#{repeat}"
        labels.append(label)
    return [(label, position, row) for label, (position, row) in zip(labels, found, strict=True)]


def _row(label: str, position: int, run: Run, result: dict[str, Any]) -> _Row:
    name = result["label"]
    return _Row(label, position, run.record, result, run.record.data.decoders[name], read_measured(run, name, label))


def _pairs(everything: Sequence[_Row], rows: Sequence[_Row], baseline: str | None) -> list[tuple[_Row, _Row]]:
    """(row, its baseline); the rule is `compare`'s."""
    first_run = [row for row in rows if row.position == 0]
    if baseline is not None:
        named = [row for row in everything if baseline in (row.label, row.result["decoder"])]
        if not named:
            raise UnknownNameError("baseline", baseline, [row.label for row in everything])
        return [(row, named[0]) for row in everything if row is not named[0]]
    if len(first_run) == len(rows):
        return [(row, rows[0]) for row in everything if row is not rows[0]]
    names = {row.result["decoder"]: row for row in first_run}
    return [(row, names.get(row.result["decoder"], rows[0])) for row in everything if row not in first_run]


def _compared(pairs: Sequence[tuple[_Row, _Row]], margins: dict[str, Margin], report: Progress) -> tuple[Compared, ...]:
    wanted = [
        (metric, row, base)
        for metric in METRICS
        for row, base in pairs
        if row.measured.has(metric) and base.measured.has(metric) and _same_meaning(metric, row, base)
    ]
    estimates: list[Estimate] = []
    for done, (metric, row, base) in enumerate(wanted):
        report(f"comparing {metric}", done, len(wanted))
        estimates.append(difference(row.measured.reordered(base.measured.keys), base.measured, metric))
    report("comparing", len(wanted), len(wanted))
    corrected = holm([estimate.p_value(0.0) for estimate in estimates])
    values = [(row.measured.value(metric), base.measured.value(metric)) for metric, row, base in wanted]
    absolute = [
        margins[metric].absolute(value) if metric in margins and np.isfinite(value) and value != 0.0 else None
        for (metric, _, _), (_, value) in zip(wanted, values, strict=True)
    ]
    inferiority = _inferiority([METRICS[metric].direction for metric, _, _ in wanted], estimates, absolute)
    found = []
    for (metric, row, base), estimate, outcome, (own, other), margin, excluded in zip(
        wanted, estimates, corrected, values, absolute, inferiority, strict=True
    ):
        interval = estimate.interval(LEVEL)
        decision = decide(
            interval,
            METRICS[metric].direction,
            value=estimate.value,
            rejected=outcome.rejected,
            margin=margin,
            margin_interval=estimate.interval(excluded.level) if excluded else None,
        )
        found.append(
            Compared(
                metric,
                row.label,
                base.label,
                own,
                other,
                estimate.value,
                (interval.low, interval.high),
                LEVEL,
                outcome.p_value,
                str(decision.verdict),
                str(decision.difference),
                margin,
                decision.non_inferior,
                estimate.n,
                estimate.units,
                estimate.method,
                estimate.note,
            )
        )
    return tuple(found)


def _inferiority(
    directions: Sequence[Direction], estimates: Sequence[Estimate], margins: Sequence[float | None]
) -> list[Corrected | None]:
    """Holm over the tests of "the loss is the margin or more", one-sided at half of 1 - `LEVEL`; None without a margin."""
    values: dict[int, float] = {}
    for index, (direction, estimate, margin) in enumerate(zip(directions, estimates, margins, strict=True)):
        if margin is not None:
            null = -margin if direction == "higher" else margin
            good = estimate.value > null if direction == "higher" else estimate.value < null
            values[index] = estimate.p_value(null) if good else 1.0
    outcomes = dict(zip(values, holm(list(values.values())), strict=True)) if values else {}
    return [outcomes.get(index) for index in range(len(estimates))]


def _same_meaning(metric: str, row: _Row, base: _Row) -> bool:
    """Latent faithfulness compares within one encoder's latents only."""
    if metric != "latent_error":
        return True
    one, other = row.details.spec.encoder_sha256, base.details.spec.encoder_sha256
    return one is not None and one == other


def _cost_ratios(pairs: Sequence[tuple[_Row, _Row]]) -> tuple[tuple[CostRatio, ...], list[str]]:
    """Ratios where both sides were measured on one machine, and a line for each pair of runs that was not."""
    found: list[CostRatio] = []
    refused: list[str] = []
    for row, base in pairs:
        counts = row.result.get("gflops"), base.result.get("gflops")
        if counts[0] and counts[1]:
            found.append(CostRatio("GFLOPs", row.label, base.label, counts[1] / counts[0], None, "counted"))
        mine, theirs = _samples(row), _samples(base)
        problem = time_incompatibility(base.record, row.record) if mine and theirs else None
        if problem:
            refused.append(f"times of {row.record.folder} and {base.record.folder} are not compared: {problem}")
            continue
        for batch in sorted(mine.keys() & theirs.keys()):
            ratio = median_ratio(mine[batch], theirs[batch], LEVEL)
            found.append(
                CostRatio(f"time, batch {batch}", row.label, base.label, ratio.value, (ratio.low, ratio.high), ratio.method)
            )
    return tuple(found), refused


def _samples(row: _Row) -> dict[int, list[float]]:
    """Batch size -> measured milliseconds of each call."""
    cells = row.details.cost.cells if row.details.cost else ()
    return {cell.batch_size: list(cell.latency.samples_ms) for cell in cells if cell.latency}


def _training_groups(rows: Sequence[_Row]) -> dict[str, list[_Row]]:
    """Rows that differ in their training seed alone: label -> rows of two seeds or more."""
    groups: dict[tuple[str, str], dict[int, _Row]] = {}
    for row in rows:
        seed, recipe = row.details.spec.training_seed, row.details.spec.recipe_sha256
        if seed is not None and recipe is not None:
            groups.setdefault((row.result["decoder"], recipe), {}).setdefault(seed, row)
    return {
        f"{name} (mean of {len(members)} training seeds)": [members[seed] for seed in sorted(members)]
        for (name, _), members in groups.items()
        if len(members) > 1
    }


def _group_row(label: str, members: Sequence[_Row]) -> _Row:
    first = members[0]
    return _Row(
        label, first.position, first.record, first.result, first.details, average(label, [row.measured for row in members])
    )


def _seed_spread(members: Sequence[_Row]) -> list[SeedSpread]:
    seeds = tuple(seed for row in members if (seed := row.details.spec.training_seed) is not None)
    together = average("", [row.measured for row in members])
    found = []
    for metric in METRICS:
        if not all(row.measured.has(metric) for row in members):
            continue
        values = tuple(row.measured.value(metric) for row in members)
        found.append(
            SeedSpread(
                members[0].result["decoder"],
                metric,
                seeds,
                values,
                float(np.mean(values)),
                float(np.std(values, ddof=1)),
                together.estimate(metric).standard_error,
            )
        )
    return found
