"""Putting runs side by side and saying what differs: only runs of one protocol and one set of source files compare."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from operator import attrgetter
from typing import Any

import numpy as np

from harness.compare.comparison import Basis, Compared, Comparison, CostRatio, Fit, SeedSpread, basis, chosen_rows, side_by_side
from harness.errors import MsbenchError, UnknownNameError
from harness.metrics.registry import METRICS
from harness.record.marks import other_rate, rate_ratio, with_ratios
from harness.record.measured import Measured, average, difference, read_measured
from harness.record.record import Record, as_row
from harness.record.run import Run, open_run
from harness.record.schema import Details, Rate, Result
from harness.stats.estimate import Estimate
from harness.stats.ratio import median_ratio
from harness.stats.verdict import Corrected, Direction, Margin, decide, holm, merge_margins, parse_margins

LEVEL = 0.95
Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A decoder of a run, or several training seeds of one as one."""

    label: str
    """unique among the rows"""
    position: int
    """which of the runs given it belongs to, from 0"""
    basis: Basis
    """what its figures rest on"""
    result: Result
    """its row of results"""
    details: Details
    """its entry under `decoders`"""
    measured: Measured
    """its values"""
    parts: frozenset[str]
    """labels of the rows it is made of: its own, or those of the seeds"""


def compare(
    runs: Sequence[tuple[Record, str | None]],
    force: bool = False,
    baseline: str | None = None,
    margins: str = "",
    progress: Progress | None = None,
    same_rate: bool = False,
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
        same_rate: leave out rows whose code takes other bits than their baseline's, by more than `marks.RATE_WITHIN`.

    Raises:
        MsbenchError: no run, or runs that do not compare (the message names the first differing field), or a bad margin.
        UnknownNameError: a decoder or a baseline that is not there.
    """
    if not runs:
        raise MsbenchError("nothing to compare: give at least one run folder")
    opened = [open_run(record) for record, _ in runs]
    bases = [basis(record) for record, _ in runs]
    first = bases[0]
    warnings = [f"{one.name}: {line}" for (record, _), one in zip(runs, bases, strict=True) for line in _told(record)]
    forced = False
    for other in bases:
        fit = side_by_side(first, other)
        if fit.quality and not force:
            raise MsbenchError(f"{first.name} and {other.name} do not compare: {fit.quality} (--force shows them all the same)")
        if fit.quality:
            forced = True
            warnings.append(f"forced: {other.name} differs from {first.name} in {fit.quality}; nothing is tested")
        else:
            warnings += fit.warnings
    rows = read_rows(runs, opened, bases)
    people = [{row["label"]: row for row in record.rows_for_people()} for record, _ in runs]
    results = [
        people[row.position][row.result.label]
        | {"rate": as_row(row.result)["rate"], "label": row.label, "run": bases[row.position].name}
        for row in rows
    ]
    # The protocol names no metric of another package: its own default counts unless the run stated one.
    own = ",".join(f"{one.name}={one.margin}" for one in METRICS.values() if one.margin and one.origin != "msbench")
    stated = merge_margins(own, runs[0][0].data.protocol.margins, METRICS)
    merged = merge_margins(stated, margins, METRICS)
    after = parse_margins(merged, METRICS) != parse_margins(stated, METRICS)
    if after:
        warnings.append(f"margins chosen after the runs (the protocol states {stated}): verdicts on them are exploratory")
    comparisons: tuple[Compared, ...] = ()
    costs: tuple[CostRatio, ...] = ()
    seeds: tuple[SeedSpread, ...] = ()
    if not forced:
        groups = _training_groups(rows)
        seeds = tuple(spread for label, members in groups.items() for spread in _seed_spread(label, members))
        everything = rows + [_group_row(label, members) for label, members in groups.items()]
        pairs = []
        for row, base in _pairs(everything, rows, baseline):
            if row.parts & base.parts:
                warnings.append(f"{row.label} and {base.label} are not compared: one is part of the other")
            else:
                pairs.append((row, base, side_by_side(base.basis, row.basis)))
        pairs, unequal = _of_equal_rate(pairs) if same_rate else (pairs, [])
        warnings += [f"left out, of another rate than their baseline: {', '.join(unequal)}"] * bool(unequal)
        baseline_label = (pairs[0][1] if pairs else rows[0]).label
        named = next((one for one in results if one["label"] == baseline_label), None)
        results = with_ratios([one for one in results if one["label"] not in unequal], named)
        comparisons = _compared(pairs, parse_margins(merged, METRICS), progress or (lambda stage, done, total: None))
        costs, refused = cost_ratios([pair for pair in pairs if pair[0] in rows])
        warnings += [*_one_sided(pairs), *refused]
        if not all(run.has_features for run in opened):
            warnings.append("some runs kept no Inception features: their rFID and KID are not tested")
    warnings += _unlike_samples(rows, runs)
    records, told = tuple(record for record, _ in runs), tuple(dict.fromkeys(warnings))
    return Comparison(records, tuple(results), comparisons, costs, seeds, merged, after, told, forced)


def _told(record: Record) -> list[str]:
    """What a run itself warns of, that it ended early, and metrics of packages that are not installed here."""
    status, absent = record.data.status, sorted(record.data.metrics.keys() - METRICS.keys())
    early = f"the run did not finish (status {status}): `msbench run … --resume` goes on with it"
    unknown = f"{', '.join(absent)} left out: install the package that computed it"
    return [*record.data.warnings, *([early] if status != "complete" else []), *([unknown] if absent else [])]


def labelled_rows(runs: Sequence[tuple[Record, str | None]]) -> list[tuple[str, int, Result]]:
    """(label, which run, result) of every row; a label is the row's own where it is the only one, else with its run's folder.

    A label says which options the decoder was given, its checkpoint aside: `diffusion@steps=4`.
    """
    found = []
    for position, (record, decoder) in enumerate(runs):
        found += [(position, row) for row in chosen_rows(record, decoder)]
    named = [row.label if row.label != row.decoder else row.label + _asked(row) for _, row in found]
    counts = Counter(named)
    labels: list[str] = []
    for (position, _), name in zip(found, named, strict=True):
        folder = runs[position][0].folder.name
        labels.append(_unique(name if counts[name] == 1 else f"{folder}:{name}", labels))
    return [(label, position, row) for label, (position, row) in zip(labels, found, strict=True)]


def _unique(name: str, taken: Sequence[str]) -> str:
    """The name, with #2, #3, … where it is taken."""
    names = chain([name], (f"{name}#{repeat}" for repeat in count(2)))
    return next(label for label in names if label not in taken)


def _asked(row: Result) -> str:
    """The options a decoder was given, its checkpoint aside: `@steps=4`; empty for none."""
    options = ",".join(f"{key}={value}" for key, value in sorted(row.options.items()) if key != "checkpoint")
    return f"@{options}" if options else ""


def read_rows(runs: Sequence[tuple[Record, str | None]], opened: Sequence[Run], bases: Sequence[Basis]) -> list[Row]:
    """Every row of runs, with its values; rows of one encoder share the effective rate that the first of them has."""
    found, rates = [], dict[tuple[str, float], Rate]()
    for label, position, own in labelled_rows(runs):
        details, rate, result = opened[position].record.data.decoders[own.label], own.rate, own
        if (encoder := details.spec.encoder_sha256) and rate and rate.effective_bits_per_image:
            result = replace(own, rate=rates.setdefault((encoder, rate.bits_per_image), rate))
        measured = read_measured(opened[position], result.label, label)
        found.append(Row(label, position, bases[position], result, details, measured, frozenset([label])))
    return found


def _pairs(everything: Sequence[Row], rows: Sequence[Row], baseline: str | None) -> list[tuple[Row, Row]]:
    """(row, its baseline); the rule is `compare`'s."""
    first_run = [row for row in rows if row.position == 0]
    if baseline is not None:
        called = map(attrgetter, ("label", "result.label", "result.decoder"))
        named = [row for name_of in called for row in everything if name_of(row) == baseline]
        if not named:
            raise UnknownNameError("baseline", baseline, [row.label for row in everything])
        return [(row, named[0]) for row in everything if row is not named[0]]
    if len(first_run) == len(rows):
        return [(row, rows[0]) for row in everything if row is not rows[0]]
    decoders = {row.result.decoder: row for row in reversed(first_run)}
    labels = {row.result.label: row for row in first_run}
    found = [(row, labels.get(row.result.label) or decoders.get(row.result.decoder, rows[0])) for row in everything]
    return [(row, base) for row, base in found if row not in first_run]


_Pair = tuple[Row, Row, Fit]  # a row, its baseline, and what keeps the two apart


def _of_equal_rate(pairs: list[_Pair]) -> tuple[list[_Pair], list[str]]:
    """The pairs whose rates are not known to differ, and the labels of the other rows."""
    unequal = [row.label for row, base, _ in pairs if other_rate(rate_ratio(row.result, base.result))]
    return [pair for pair in pairs if pair[0].label not in unequal], unequal


def _unlike_samples(rows: Sequence[Row], runs: Sequence[tuple[Record, str | None]]) -> list[str]:
    """A line for every figure of a record that is not what its samples, or a set metric that was computed here, give."""
    found = []
    for row in rows:
        for metric, said in row.result.metrics.items():
            if said is None or metric not in row.measured.per_image.keys() | row.measured.statistics or metric not in METRICS:
                continue
            value = float(np.mean(row.measured.per_seed(metric) or [row.measured.value(metric)]))
            if not math.isclose(said, value, rel_tol=1e-6, abs_tol=1e-6):
                told = f"{row.label}: the record says {metric} {said:.6g}, its samples give {value:.6g}"
                found.append(f"{told}: see `msbench verify {runs[row.position][0].folder}`")
    return found


def _one_sided(pairs: Sequence[_Pair]) -> list[str]:
    """A line for every metric that one run of a pair computed and the other did not."""
    return [
        f"{metric} is left out: only one of {row.basis.name} and {base.basis.name} computed it"
        for row, base, _ in pairs
        for metric in sorted(row.basis.definitions.keys() ^ base.basis.definitions.keys())
    ]


def _compared(pairs: Sequence[_Pair], margins: Mapping[str, Margin], report: Progress) -> tuple[Compared, ...]:
    wanted = [
        (metric, row, base)
        for metric in METRICS
        for row, base, fit in pairs
        if row.measured.has(metric) and base.measured.has(metric)
        if metric in row.basis.definitions.keys() & base.basis.definitions.keys() - {*fit.definitions}
        if _same_meaning(metric, row, base)
    ]
    estimates: list[Estimate] = []
    for done, (metric, row, base) in enumerate(wanted):
        report(f"comparing {metric}", done, len(wanted))
        estimates.append(difference(*_alike(row.measured, base.measured), metric))
    report("comparing", len(wanted), len(wanted))
    corrected = holm([estimate.p_value(0.0) for estimate in estimates])
    values = [(row.measured.value(metric), base.measured.value(metric)) for metric, row, base in wanted]
    directions = [METRICS[metric].direction for metric, _, _ in wanted]
    amounts = [
        margins[one[0]].absolute(pair[1]) if one[0] in margins else 0.0 for one, pair in zip(wanted, values, strict=True)
    ]
    absolute = [amount if 0.0 < amount < math.inf else None for amount in amounts]
    excluded = _inferiority(directions, estimates, absolute)
    margin_intervals = [test and estimate.interval(test.level) for test, estimate in zip(excluded, estimates, strict=True)]
    found = []
    columns = zip(wanted, estimates, corrected, values, directions, absolute, margin_intervals, strict=True)
    for (metric, row, base), estimate, outcome, (own, other), better, margin, beside in columns:
        interval, value, rejected = estimate.interval(LEVEL), estimate.value, outcome.rejected
        decision = decide(interval, better, value=value, rejected=rejected, margin=margin, margin_interval=beside)
        figures = own, other, value, (interval.low, interval.high), LEVEL, outcome.p_value
        words = str(decision.verdict), str(decision.difference), margin, decision.non_inferior
        rest = estimate.n, estimate.units, estimate.method, estimate.note
        ratio = rate_ratio(row.result, base.result)
        found.append(Compared(metric, row.label, base.label, *figures, *words, *rest, rate_ratio=ratio))
    return tuple(found)


def _alike(row: Measured, base: Measured) -> tuple[Measured, Measured]:
    """Both in one order and with one clustering: that of the side that knows which images share a photograph."""
    row = row.reordered(base.keys)
    clusters = base.clusters or row.clusters
    row, base = (one if one.clusters == clusters else replace(one, clusters=clusters, statistics={}) for one in (row, base))
    return row, base


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


def _same_meaning(metric: str, row: Row, base: Row) -> bool:
    """Latent faithfulness compares within one encoder's latents only."""
    if metric not in ("latent_error", "token_agreement"):
        return True
    one, other = row.details.spec.encoder_sha256, base.details.spec.encoder_sha256
    return one is not None and one == other


def cost_ratios(pairs: Sequence[_Pair]) -> tuple[tuple[CostRatio, ...], list[str]]:
    """Ratios where both sides were measured on one machine, and a line for each pair whose times say nothing.

    Args:
        pairs: decoder, baseline, and what keeps the two apart.
    """
    found: list[CostRatio] = []
    refused: list[str] = []
    for row, base, fit in pairs:
        counts = row.result.gflops, base.result.gflops
        if counts[0] and counts[1]:
            found.append(CostRatio("GFLOPs", row.label, base.label, counts[1] / counts[0], None, "counted"))
        mine, theirs = _samples(row), _samples(base)
        if not (mine and theirs):
            continue
        if fit.times:
            refused.append(f"times of {row.basis.name} and {base.basis.name} are not compared: {fit.times}")
            continue
        if disturbed := [one.label for one in (row, base) if one.result.disturbed]:
            refused.append(
                f"times of {row.label} and {base.label} are not compared: other work disturbed {', '.join(disturbed)}"
            )
            continue
        for batch in sorted(mine.keys() & theirs.keys()):
            ratio = median_ratio(mine[batch], theirs[batch], LEVEL)
            ends = ratio.low, ratio.high
            found.append(CostRatio(f"time, batch {batch}", row.label, base.label, ratio.value, ends, ratio.method))
    return tuple(found), refused


def _samples(row: Row) -> dict[int, list[float]]:
    """Batch size -> measured milliseconds of each call; an estimate is none."""
    cells = row.details.cost.cells if row.details.cost else ()
    return {cell.batch_size: list(cell.latency.samples_ms) for cell in cells if cell.latency and not cell.estimated}


def _training_groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of one decoder, options, recipe and definitions, which differ in their training seed alone: label -> two or more."""
    groups: dict[tuple[Any, ...], dict[int, Row]] = {}
    for row in rows:
        seed, recipe = row.details.spec.training_seed, row.details.spec.recipe_sha256
        if seed is not None and recipe is not None:
            definitions = tuple(sorted(row.basis.definitions.items()))
            groups.setdefault((row.result.decoder, _asked(row.result), recipe, definitions), {}).setdefault(seed, row)
    found: dict[str, list[Row]] = {}
    several = {key: members for key, members in groups.items() if len(members) > 1}
    counts = Counter(key[:2] for key in several)
    for (name, asked, recipe, _), members in several.items():
        which = f" recipe {recipe[:8]}" if counts[name, asked] > 1 else ""
        label = _unique(f"{name}{asked}{which} (mean of {len(members)} training seeds)", list(found))
        found[label] = [members[seed] for seed in sorted(members)]
    return found


def _group_row(label: str, members: Sequence[Row]) -> Row:
    parts = frozenset(row.label for row in members)
    return replace(members[0], label=label, measured=average(label, [row.measured for row in members]), parts=parts)


def _seed_spread(label: str, members: Sequence[Row]) -> list[SeedSpread]:
    seeds = tuple(seed for row in members if (seed := row.details.spec.training_seed) is not None)
    together = average("", [row.measured for row in members])
    found = []
    for metric in METRICS:
        if all(row.measured.has(metric) for row in members):
            values = tuple(row.measured.value(metric) for row in members)
            mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
            error = together.estimate(metric).standard_error
            found.append(SeedSpread(label.partition(" (mean of")[0], metric, seeds, values, mean, deviation, error))
    return found
