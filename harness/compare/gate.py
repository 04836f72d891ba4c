"""The regression gate: a run's figures against a reference, each with the tolerance that this project measured for it.

Quality and what follows from the architecture (parameters, FLOPs) are gated. Times and memory never are: they belong to the
machine. A worsening beyond the tolerance is a regression; so is a figure that the reference has and the run lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.compare.reference import Direction, Expected, GateReference
from harness.errors import MsbenchError
from harness.metrics.registry import METRICS
from harness.record.record import Record

FLOOR_TIMES = 10
"""measured tolerance over the largest difference that batch size, threads, instruction sets or a second run made"""
_FLOOR = f"{FLOOR_TIMES} x the largest difference between batch sizes, threads and instruction sets"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much worse a figure may get: `absolute + relative · |expected|`."""

    absolute: float
    """in the metric's own unit"""
    relative: float
    """as a fraction of the expected value"""
    source: str
    """where it comes from, for the report"""

    def amount(self, expected: float) -> float:
        """The tolerance of one figure in the metric's unit; 0 beside an infinite one."""
        return self.absolute + self.relative * abs(expected) if math.isfinite(expected) else 0.0


TOLERANCES: dict[str, Tolerance] = {
    "psnr": Tolerance(6e-5, 0.0, _FLOOR),
    "ssim": Tolerance(6e-6, 0.0, _FLOOR),
    "lpips": Tolerance(3e-5, 0.0, _FLOOR),
    "rfid": Tolerance(3e-8, 5e-4, _FLOOR),
    "kid": Tolerance(2e-4, 0.0, _FLOOR),
    "spectral": Tolerance(2e-4, 0.0, _FLOOR),
    "latent_error": Tolerance(6e-6, 0.0, _FLOOR),
    "parameters": Tolerance(0.0, 0.0, "exact: a count"),
    "gflops": Tolerance(0.0, 1e-9, "exact: a count, up to float rounding"),
}
"""by metric; the measured ones are one digit, rounded up, of what benchmarks/gate_sensitivity.py finds here"""
DEFAULT_TOLERANCE = Tolerance(0.0, 1e-3, "a choice: 0.1 %, since no floor has been measured for this metric")
"""of a metric that `TOLERANCES` does not name"""
_COUNTS: dict[str, Direction] = {"parameters": "lower", "gflops": "lower"}


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
    """one line each: other weights, other pixels"""

    @property
    def passed(self) -> bool:
        """True where nothing regressed."""
        return not self.regressions


def worsening(expected: float, got: float, better: Direction) -> float:
    """How much worse `got` is than `expected`, positive = worse; equal infinities differ by nothing."""
    if expected == got:
        return 0.0
    return expected - got if better == "higher" else got - expected


def gated_figures(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of a results row that the gate looks at, by metric; None where the run has no number (NaN included).

    They are those of the metric registry, parameters, and gflops where they were counted.
    """
    figures = {name: _number(row[name]) for name in METRICS if name in row}
    return figures | {name: _number(row[name]) for name in _COUNTS if row.get(name) is not None}


def make_reference(
    records: Sequence[Record],
    tolerances: Mapping[str, Tolerance] | None = None,
    decoders: Sequence[str | None] | None = None,
    name: str = "new",
) -> GateReference:
    """A reference from runs of one protocol and set.

    Args:
        records: at least one run; no decoder in two of them.
        tolerances: by metric; None = `TOLERANCES`. A metric that is not in it gets `DEFAULT_TOLERANCE`.
        decoders: for each record the only decoder wanted, None = all; None for all of everything.
        name: what messages call it.

    Raises:
        MsbenchError: no run, runs that do not compare, or a decoder twice.
    """
    table = TOLERANCES if tolerances is None else tolerances
    if not records:
        raise MsbenchError("nothing to make a reference of: give at least one run folder")
    first = records[0]
    reference = GateReference(
        name,
        (),
        asdict(first.data.protocol),
        first.protocol_hash,
        first.data.results[0].n,
        first.data.results[0].dataset,
        first.data.dataset.source_sha256,
        first.data.dataset.reference_sha256,
    )
    figures: list[Expected] = []
    for record, row in _rows(records, decoders):
        refuse_other_protocol(record, reference)
        for metric, value in gated_figures(row).items():
            if value is None:
                continue
            tolerance = table.get(metric, DEFAULT_TOLERANCE)
            figures.append(
                Expected(
                    row["decoder"],
                    metric,
                    value,
                    tolerance.amount(value),
                    tolerance.source,
                    _COUNTS[metric] if metric in _COUNTS else METRICS[metric].direction,
                    _weights(record, row["decoder"]),
                    str(record.data.environment["msbench"]),
                    record.data.command,
                )
            )
    return replace(reference, figures=tuple(figures))


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
    regressions: list[Deviation] = []
    improvements: list[Deviation] = []
    unknown: list[str] = []
    remarks: list[str] = []
    checked, seen = 0, []
    for record, row in _rows(records, decoders):
        refuse_other_protocol(record, reference)
        decoder, figures = str(row["decoder"]), gated_figures(row)
        expected = reference.of(decoder)
        if not expected:
            unknown.append(decoder)
            continue
        seen.append(decoder)
        unknown += [f"{decoder} {metric}" for metric, value in figures.items() if value is not None and metric not in expected]
        if record.data.dataset.reference_sha256 != reference.reference_sha256:
            remarks.append(f"{record.folder}: same files, other pixels than {reference.name} (another image library version?)")
        if next(iter(expected.values())).weights_sha256 != _weights(record, decoder):
            remarks.append(f"{decoder}: other weights than {reference.name}'s")
        for metric, figure in expected.items():
            if metric == "gflops" and metric not in figures:
                continue  # a run with --no-cost counts none
            checked += 1
            deviation = Deviation(figure, figures.get(metric))
            if deviation.worse_by > figure.tolerance:
                regressions.append(deviation)
            elif -deviation.worse_by > figure.tolerance:
                improvements.append(deviation)
    if not seen:
        raise MsbenchError(
            f"none of the run's decoders ({', '.join(unknown)}) is in {reference.name} ({', '.join(reference.decoders)}): "
            "add them on purpose with --update"
        )
    absent = [decoder for decoder in reference.decoders if decoder not in seen]
    missing = [f"in the run, not in {reference.name}: {', '.join(unknown)}"] if unknown else []
    missing += [f"in {reference.name}, not in the run: {', '.join(absent)}"] if absent else []
    return GateReport(
        reference.name, checked, tuple(regressions), tuple(improvements), tuple(missing), tuple(dict.fromkeys(remarks))
    )


def changes(old: GateReference, new: GateReference) -> Iterator[str]:
    """What an update by `new` does to `old`, one line a figure that moves beyond its old tolerance, comes or goes."""
    if old.protocol_hash != new.protocol_hash:
        yield f"protocol: {old.protocol_hash} -> {new.protocol_hash}"
    for decoder in new.decoders:
        before, after = old.of(decoder), new.of(decoder)
        if not before:
            yield f"{decoder}: new, {len(after)} figures"
            continue
        for metric in dict.fromkeys((*before, *after)):
            first, then = before.get(metric), after.get(metric)
            if first is None or then is None:
                yield f"{decoder} {metric}: {'new' if first is None else 'gone, the run has no such number'}"
                continue
            worse = worsening(first.value, then.value, first.better)
            if abs(worse) > first.tolerance:
                direction = "worse" if worse > 0 else "better"
                shown = [_show(value, first.tolerance) for value in (first.value, then.value, abs(worse))]
                yield f"{decoder} {metric}: {shown[0]} -> {shown[1]} ({direction} by {shown[2]})"


def refuse_other_protocol(record: Record, reference: GateReference) -> None:
    """Raise `MsbenchError` that names the fields in which a run and a reference differ, where they do."""
    problem = None
    if record.protocol_hash != reference.protocol_hash:
        theirs, ours = reference.protocol, asdict(record.data.protocol)
        fields = [key for key in sorted({*theirs, *ours}) if theirs.get(key) != ours.get(key)]
        named = "; ".join(f"protocol field {key}: {ours.get(key)!r} against {theirs.get(key)!r}" for key in fields)
        problem = named or f"protocol hash: {record.protocol_hash} against {reference.protocol_hash}"
    elif record.data.dataset.source_sha256 != reference.source_sha256:
        problem = "the source files (source_sha256)"
    if problem:
        raise MsbenchError(f"{record.folder} and reference {reference.name} do not compare: {problem}")


def _rows(records: Sequence[Record], decoders: Sequence[str | None] | None) -> Iterator[tuple[Record, dict[str, Any]]]:
    """Record and results row of every decoder asked for; a decoder that comes twice is an error."""
    seen: dict[str, Record] = {}
    for record, only in zip(records, decoders or [None] * len(records), strict=True):
        for row in record.rows_for_people():
            name = str(row["label"])
            if only not in (None, name):
                continue
            if name in seen:
                raise MsbenchError(f"{name} is in both {seen[name].folder} and {record.folder}; pick one with RUN:DECODER")
            seen[name] = record
            yield record, row


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not math.isnan(value) else None


def _weights(record: Record, decoder: str) -> str | None:
    return record.data.decoders[decoder].spec.weights_sha256


def _show(value: float, tolerance: float) -> str:
    """A figure with as many decimals as its tolerance's second digit; all of them where the tolerance is 0."""
    if not math.isfinite(value) or tolerance == 0:
        return f"{value:.10g}"
    return f"{value:.{max(0, 1 - math.floor(math.log10(tolerance)))}f}"
