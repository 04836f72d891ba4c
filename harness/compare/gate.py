"""The regression gate: a run's figures against a reference, each with the tolerance that this project measured for it.

Quality and what follows from the architecture (parameters, FLOPs) are gated. Times and memory never are: they belong to the
machine. A worsening beyond the tolerance is a regression; so is a figure that the reference has and the run lost. A metric that
the run computes by another definition is left out, with a remark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.compare.comparison import basis, chosen_rows, side_by_side
from harness.compare.reference import COUNTS, Expected, GateReference, direction, merge, read_reference, reference_path
from harness.errors import MsbenchError
from harness.metrics.metric import Tolerance
from harness.metrics.registry import METRICS
from harness.record.record import Record
from harness.record.schema import Result
from harness.stats.verdict import Direction

_COUNTED = {
    "parameters": Tolerance(0.0, 0.0, "exact: a count"),
    "gflops": Tolerance(0.0, 1e-9, "exact: a count, up to float rounding"),
}
DEFAULT_TOLERANCE = Tolerance(0.0, 1e-3, "a choice: 0.1 %, since no floor has been measured for this metric")
"""of a metric whose entry states none"""


@dataclass(frozen=True, slots=True)
class Deviation:
    """One figure that moved beyond its tolerance, or was lost."""

    expected: Expected
    """the reference's figure"""
    got: float | None
    """the run's; None where the run has no such number"""

    @property
    def worse_by(self) -> float:
        """How much worse, in the metric's unit; negative = better; `inf` where there is no number."""
        return math.inf if self.got is None else worsening(self.expected.value, self.got, self.expected.better)

    def line(self) -> str:
        """One line for people."""
        figure = self.expected
        start = f"{figure.decoder} {figure.metric}: expected {_show(figure.value, figure.tolerance)}, got "
        if self.got is None:
            return f"{start}no number"
        by = self.worse_by
        change = f"{'worse' if by > 0 else 'better'} by {_show(abs(by), figure.tolerance)}"
        limit = f"tolerance {_show(figure.tolerance, figure.tolerance)} ({figure.tolerance_from})"
        return f"{start}{_show(self.got, figure.tolerance)}, {change}; {limit}"


@dataclass(frozen=True, slots=True)
class GateReport:
    """What a check found."""

    reference: str
    """name or path of the reference"""
    checked: int
    """figures held against the reference"""
    regressions: tuple[Deviation, ...]
    """beyond the tolerance on the bad side, or lost"""
    improvements: tuple[Deviation, ...]
    """beyond the tolerance on the good side"""
    missing: tuple[str, ...]
    """one line each: what only one of run and reference has"""
    remarks: tuple[str, ...]
    """one line each: other weights, other pixels, metrics of another definition"""

    @property
    def passed(self) -> bool:
        """True where nothing regressed."""
        return not self.regressions

    def lines(self) -> list[str]:
        """For people: one line a regression, improvement, absence and remark, and a summary."""
        lines = [f"regression: {deviation.line()}" for deviation in self.regressions]
        lines += [f"better than the reference: {one.line()}: update it on purpose (--update)" for one in self.improvements]
        lines += [*self.missing, *(f"remark: {remark}" for remark in self.remarks)]
        count, better = len(self.regressions), len(self.improvements)
        found = f"{count} regression{'' if count == 1 else 's'}" if count else "no regression"
        found += f", {better} better" if better else ""
        verdict = "passed" if self.passed else "failed"
        return [*lines, f"gate {verdict}: {self.checked} figures against {self.reference}, {found}"]

    def document(self) -> dict[str, Any]:
        """For `--json`; infinite differences are left to the writer (null)."""

        def rows(deviations: Sequence[Deviation]) -> list[dict[str, Any]]:
            return [
                {**asdict(one.expected), "expected": one.expected.value, "got": one.got, "worse_by": one.worse_by}
                for one in deviations
            ]

        found = {"regressions": rows(self.regressions), "improvements": rows(self.improvements)}
        status = {"schema_version": 1, "status": "passed" if self.passed else "failed", "passed": self.passed}
        return {**status, **asdict(self), **found}


def worsening(expected: float, got: float, better: Direction) -> float:
    """How much worse `got` is than `expected`, positive = worse; equal infinities differ by nothing."""
    if expected == got:
        return 0.0
    return expected - got if better == "higher" else got - expected


def tolerance_of(metric: str) -> Tolerance:
    """How much worse a figure may get: what the metric's entry states, or for counts nothing."""
    return _COUNTED.get(metric) or METRICS[metric].tolerance or DEFAULT_TOLERANCE


def gated_figures(record: Record, row: Result) -> dict[str, float | None]:
    """The figures of a row that the gate looks at, by metric; None where the run has no number.

    They are the metrics, parameters, and gflops where they were counted. Where every image is exact, PSNR is infinite.
    """
    figures = {name: row.metrics[name] for name in METRICS if name in row.metrics}
    if "psnr" in figures and record.data.decoders[row.label].psnr_exact_images == row.n:
        figures["psnr"] = math.inf
    return figures | {name: float(count) for name in COUNTS if (count := getattr(row, name)) is not None}


def make_reference(records: Sequence[Record], decoders: Sequence[str | None] | None = None, name: str = "new") -> GateReference:
    """A reference from runs of one protocol and set.

    Args:
        records: at least one run; no decoder in two of them.
        decoders: for each record the only decoder wanted, None = all; None for all of everything.
        name: what messages call it.

    Raises:
        MsbenchError: no run, runs that do not compare, or a decoder twice.
    """
    if not records:
        raise MsbenchError("nothing to make a reference of: give at least one run folder")
    first = basis(records[0])
    figures: list[Expected] = []
    metrics: dict[str, str] = {}
    commands: dict[str, str] = {}
    for record, row in _rows(records, decoders):
        fit = side_by_side(first, basis(record))
        if fit.quality or fit.definitions:
            problem = fit.quality or fit.warnings[0]
            raise MsbenchError(f"{record.folder} and {first.name} do not go into one reference: {problem}")
        commands[row.label] = record.data.command
        for metric, value in gated_figures(record, row).items():
            if value is None:
                continue
            if metric not in COUNTS:
                metrics[metric] = record.data.metrics[metric].definition
            tolerance, weights = tolerance_of(metric), record.data.decoders[row.label].spec.weights_sha256
            within = tolerance.amount(value), tolerance.source
            figures.append(Expected(row.label, metric, value, *within, direction(metric), weights))
    hashes = first.source_sha256, first.reference_sha256
    version = str(records[0].data.environment["msbench"])
    return GateReference(first.protocol, first.protocol_hash, metrics, *hashes, version, commands, tuple(figures), name)


def check(records: Sequence[Record], reference: GateReference, decoders: Sequence[str | None] | None = None) -> GateReport:
    """Hold runs against a reference.

    Args:
        records: at least one run; no decoder in two of them.
        reference: from `read_reference` or `make_reference`.
        decoders: for each record the only decoder wanted, None = all; None for all of everything.

    Raises:
        MsbenchError: another protocol or other source files (the fields that differ are named), a decoder twice, or nothing in
            common, since a gate that checks nothing must not pass.
    """
    deviations: list[Deviation] = []
    unknown: list[str] = []
    remarks: list[str] = []
    seen: list[str] = []
    for record, row in _rows(records, decoders):
        decoder, figures = row.label, gated_figures(record, row)
        fit = side_by_side(reference.basis(), basis(record))
        if fit.quality:
            raise MsbenchError(f"{record.folder} and reference {reference.name} do not compare: {fit.quality}")
        expected = reference.of(decoder)
        if not expected:
            unknown.append(decoder)
            continue
        seen.append(decoder)
        unknown += [f"{decoder} {metric}" for metric, value in figures.items() if value is not None and metric not in expected]
        remarks += fit.warnings
        if next(iter(expected.values())).weights_sha256 != record.data.decoders[decoder].spec.weights_sha256:
            remarks.append(f"{decoder}: other weights than {reference.name}'s")
        idle = {*fit.definitions, *({"gflops"} - figures.keys())}  # a run with --no-cost counts none
        deviations += [Deviation(figure, figures.get(metric)) for metric, figure in expected.items() if metric not in idle]
    if not deviations:
        raise MsbenchError(
            f"none of the run's figures ({', '.join(seen + unknown)}) is in {reference.name} "
            f"({', '.join(reference.decoders)}): add them on purpose with --update"
        )
    absent = [decoder for decoder in reference.decoders if decoder not in seen]
    missing = [f"in the run, not in {reference.name}: {', '.join(unknown)}"] if unknown else []
    missing += [f"in {reference.name}, not in the run: {', '.join(absent)}"] if absent else []
    worse = tuple(one for one in deviations if one.worse_by > one.expected.tolerance)
    better = tuple(one for one in deviations if -one.worse_by > one.expected.tolerance)
    return GateReport(reference.name, len(deviations), worse, better, tuple(missing), tuple(dict.fromkeys(remarks)))


def update_reference(records: Sequence[Record], decoders: Sequence[str | None] | None, against: str) -> list[str]:
    """Write runs' figures into a reference, new or old, and say what changed.

    Decoders that the runs lack stay as they were. A bare name means the checkout's results/regression.

    Raises:
        MsbenchError: the file cannot be written; the runs do not compare with each other; or they are of another protocol than
            the reference and lack some of its decoders.
    """
    path = reference_path(against)
    new = make_reference(records, decoders, against)
    old = read_reference(str(path)) if path.is_file() else None
    try:
        (new if old is None else merge(old, new)).write(path)
    except OSError as error:
        why = error.strerror or error
        raise MsbenchError(f"cannot write {path} ({why}): give a file in a folder you may write to") from error
    lines = [] if old is None else list(_changes(old, new))
    return [*lines, f"{'wrote' if old is None else 'updated'} {path}: {len(new.figures)} figures of {', '.join(new.decoders)}"]


def _changes(old: GateReference, new: GateReference) -> Iterator[str]:
    """What an update by `new` does to `old`, one line a figure that moves beyond its old tolerance, comes or goes."""
    if old.protocol_hash != new.protocol_hash:
        yield f"protocol: {old.protocol_hash} -> {new.protocol_hash}"
    for decoder in new.decoders:
        before, after = old.of(decoder), new.of(decoder)
        if not before:
            yield f"{decoder}: new, {len(after)} figures"
            continue
        moved = [Deviation(figure, after[metric].value if metric in after else None) for metric, figure in before.items()]
        yield from (one.line() for one in moved if abs(one.worse_by) > one.expected.tolerance)
        yield from (f"{decoder} {metric}: new" for metric in after if metric not in before)


def _rows(records: Sequence[Record], decoders: Sequence[str | None] | None) -> Iterator[tuple[Record, Result]]:
    """Record and row of every decoder asked for; a decoder that comes twice is an error."""
    seen: dict[str, Record] = {}
    for record, only in zip(records, decoders or [None] * len(records), strict=True):
        for row in chosen_rows(record, only):
            if first := seen.get(row.label):
                raise MsbenchError(f"{row.label} is in both {first.folder} and {record.folder}; pick one with RUN:DECODER")
            seen[row.label] = record
            yield record, row


def _show(value: float, tolerance: float) -> str:
    """A figure with as many decimals as its tolerance's second digit; all of them where the tolerance is 0."""
    if not math.isfinite(value) or tolerance == 0:
        return f"{value:.10g}"
    return f"{value:.{max(0, 1 - math.floor(math.log10(tolerance)))}f}"
