"""The paper's claim as a test: does a one-step student keep the quality of a teacher that is worth distilling?

A teacher that is no good proves nothing, so it must qualify first, on the runs given: it beats the regression control on KID
and rFID; more steps do not make it worse; it has neither grain nor blur in the finest octave; and its training had come to
rest. Only then is the student held against it, and it must descend from it. A condition has passed, or failed, where its 95 %
interval lies wholly on that side; whatever was not measured, or is not resolved, counts as not shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.compare.comparison import basis, chosen_rows, side_by_side
from harness.decoder import DecoderSpec
from harness.errors import MsbenchError
from harness.metrics.registry import METRICS
from harness.record.measured import Measured, difference, read_measured
from harness.record.record import Record
from harness.record.run import open_run
from harness.record.schema import Result
from harness.stats.estimate import Interval
from harness.stats.sets import set_ratio
from harness.stats.verdict import parse_margins

MAX_RFID_RATIO = 1.15
"""the upper 95 % bound of rFID(student) / rFID(teacher) may reach this"""
TOP_OCTAVE_POWER = (0.8, 1.2)
"""power in the finest octave over the reference's, within which a teacher has neither blur nor grain"""
MAX_LATE_CHANGE = 0.03
"""share of rFID that the last quarter of a teacher's training may still move"""
FEW_STEPS, MANY_STEPS = 10, 50
"""steps that are compared to see whether more steps harm"""

Outcome = Literal["passed", "failed", "not shown"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One decoder of one run."""

    record: Record
    """the run"""
    result: Result
    """its row in the run"""
    measured: Measured
    """its values and features"""

    @property
    def spec(self) -> DecoderSpec:
        """What it says of itself."""
        return self.record.data.decoders[self.result.label].spec

    @property
    def label(self) -> str:
        """Name and steps."""
        return f"{self.result.decoder} ({self.spec.steps} steps)" if self.spec.steps > 1 else self.result.decoder

    def ms_per_image(self) -> float | None:
        """Median time at the largest batch that was measured; None without cost, or where other work disturbed it."""
        times = {int(batch): value for batch, value in self.result.ms_per_image.items()}
        return times[max(times)] if times and not self.result.disturbed else None


@dataclass(frozen=True, slots=True)
class Finding:
    """One condition and how it turned out."""

    condition: str
    """what must hold"""
    outcome: Outcome
    """whether it does"""
    evidence: str
    """the figures"""


@dataclass(frozen=True, slots=True)
class Claim:
    """The teacher chosen, its qualification, and the student's test."""

    teacher: Candidate
    """the best of the candidates, by rFID"""
    qualification: tuple[Finding, ...]
    """every condition on the teacher"""
    findings: tuple[Finding, ...]
    """every condition on the student; empty where the teacher does not qualify"""

    @property
    def qualified(self) -> bool:
        """Every condition on the teacher passed."""
        return all(finding.outcome == "passed" for finding in self.qualification)

    @property
    def verdict(self) -> str:
        """One line."""
        if not self.qualified:
            return "no distillation claim: the best teacher does not qualify"
        failed = [finding for finding in self.findings if finding.outcome != "passed"]
        return "the claim holds here" if not failed else f"the claim is not shown: {len(failed)} condition(s) not passed"


def candidate(record: Record, decoder: str) -> Candidate:
    """One decoder of a run.

    Raises:
        MsbenchError: no such decoder in the run, its features were not kept, or the run is damaged.
    """
    run = open_run(record)
    result = chosen_rows(record, decoder)[0]
    measured = read_measured(run, result.label, result.label)
    if not measured.has("rfid"):
        raise MsbenchError(f"{record.folder} keeps no features of {decoder}: rFID cannot be compared without them")
    return Candidate(record, result, measured)


def examine(
    teachers: Sequence[Candidate],
    direct: Candidate,
    student: Candidate,
    controls: Sequence[Candidate] = (),
    earlier: Candidate | None = None,
    distillation_seconds: float | None = None,
) -> Claim:
    """Choose the teacher, ask whether it qualifies, and hold the student against it.

    Args:
        teachers: multi-step decoders at one or more numbers of steps.
        direct: the noise-free regression control.
        student: the one-step student.
        controls: what the student must beat beside `direct`.
        earlier: the chosen teacher's weights after three quarters of its training.
        distillation_seconds: cost of the distillation, for the break-even.

    Raises:
        MsbenchError: no teacher, or runs of different protocols, images or definitions of rFID or KID.
    """
    if not teachers:
        raise MsbenchError("no teacher given")
    everyone = [*teachers, direct, student, *controls, *([earlier] if earlier else [])]
    for other in everyone[1:]:
        fit = side_by_side(basis(everyone[0].record), basis(other.record))
        if fit.quality or {"rfid", "kid"} & {*fit.definitions}:
            why = fit.quality or fit.warnings[0]
            raise MsbenchError(f"{everyone[0].record.folder} and {other.record.folder} do not compare: {why}")
    teacher = min(teachers, key=lambda one: one.measured.value("rfid"))
    qualification = (
        _better(teacher, direct, "rfid"),
        _better(teacher, direct, "kid"),
        _more_steps(teacher, teachers),
        _finest_octave(teacher),
        _at_rest(teacher, earlier),
    )
    claim = Claim(teacher, qualification, ())
    if not claim.qualified:
        return claim
    findings = [_descends(student, teacher), _ratio(student, teacher)]
    findings += [_better(student, control, "rfid") for control in (direct, *controls)]
    findings.append(_break_even(student, teacher, distillation_seconds))
    return Claim(teacher, qualification, tuple(findings))


def _outcome(interval: Interval, low: float, high: float) -> Outcome:
    """Passed where the interval lies between the bounds, failed where it lies outside them."""
    if low <= interval.low and interval.high <= high:
        return "passed"
    return "failed" if interval.high < low or interval.low > high else "not shown"


def _better(one: Candidate, other: Candidate, metric: str) -> Finding:
    """Lower by more than the 95 % interval of the paired difference."""
    condition = f"{one.label} beats {other.label} on {metric}"
    interval, text = _difference(one, other, metric)
    outcome: Outcome = "passed" if interval.high < 0.0 else "failed" if interval.low > 0.0 else "not shown"
    return Finding(condition, outcome, text)


def _difference(one: Candidate, other: Candidate, metric: str) -> tuple[Interval, str]:
    """The paired difference's interval, and value and interval in words."""
    estimate = difference(one.measured, other.measured.reordered(one.measured.keys), metric)
    interval = estimate.interval(0.95)
    return interval, f"{metric} {estimate.value:+.4g} [{interval.low:+.4g}, {interval.high:+.4g}]"


def _more_steps(teacher: Candidate, teachers: Sequence[Candidate]) -> Finding:
    """Not worse: the interval leaves out a loss beyond the margin that the runs' protocol states for rFID."""
    condition = f"{MANY_STEPS} steps are not worse than {FEW_STEPS}"
    # The same weights: other trainings of the decoder say nothing of what more steps do to this one.
    weights = teacher.result.decoder, teacher.spec.weights_sha256
    own = {one.spec.steps: one for one in teachers if (one.result.decoder, one.spec.weights_sha256) == weights}
    if not {FEW_STEPS, MANY_STEPS} <= own.keys():
        return Finding(condition, "not shown", f"{teacher.result.decoder} was measured with {sorted(own)} steps")
    margin = parse_margins(teacher.record.data.protocol.margins, METRICS).get("rfid")
    interval, text = _difference(own[MANY_STEPS], own[FEW_STEPS], "rfid")
    loss = margin.absolute(own[FEW_STEPS].measured.value("rfid")) if margin else 0.0
    return Finding(condition, _outcome(interval, -math.inf, loss), f"{text}, a loss of {margin or 0} counts as none")


def _finest_octave(teacher: Candidate) -> Finding:
    low, high = TOP_OCTAVE_POWER
    condition = f"power in the finest octave within {low:g} to {high:g} of the reference's"
    finest = teacher.result.octaves_db.get("0")
    if finest is None:
        return Finding(condition, "not shown", "images too small for this octave")
    power = 10.0 ** (finest / 10.0)
    return Finding(condition, "passed" if low <= power <= high else "failed", f"{power:.3g}")


def _at_rest(teacher: Candidate, earlier: Candidate | None) -> Finding:
    condition = f"the last quarter of training moved rFID by less than {MAX_LATE_CHANGE:.0%}"
    if earlier is None:
        return Finding(condition, "not shown", "no run of the teacher's earlier weights was given")
    if (earlier.result.decoder, earlier.spec.steps) != (teacher.result.decoder, teacher.spec.steps):
        return Finding(condition, "not shown", f"the earlier weights are of {earlier.label}, the teacher is {teacher.label}")
    interval, text = _rfid_ratio(teacher, earlier)
    return Finding(condition, _outcome(interval, 1.0 - MAX_LATE_CHANGE, 1.0 + MAX_LATE_CHANGE), text)


def _descends(student: Candidate, teacher: Candidate) -> Finding:
    condition = f"{student.label} was distilled from {teacher.label}"
    known, weights = student.spec.teacher_sha256, teacher.spec.weights_sha256
    if known is None or weights is None:
        return Finding(condition, "not shown", "the student's weights do not say what their teacher was")
    return Finding(condition, "passed" if known == weights else "failed", f"its teacher's weights are {known[:12]}…")


def _ratio(student: Candidate, teacher: Candidate) -> Finding:
    condition = f"upper 95 % bound of rFID({student.label}) / rFID({teacher.label}) at most {MAX_RFID_RATIO}"
    interval, text = _rfid_ratio(student, teacher)
    return Finding(condition, _outcome(interval, -math.inf, MAX_RFID_RATIO), text)


def _rfid_ratio(one: Candidate, other: Candidate) -> tuple[Interval, str]:
    """The ratio's interval, and value and interval in words."""
    own, its = one.measured, other.measured.reordered(one.measured.keys)
    interval = set_ratio(own.statistic("rfid"), its.statistic("rfid"))
    return interval, f"{own.value('rfid') / its.value('rfid'):.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _break_even(student: Candidate, teacher: Candidate, seconds: float | None) -> Finding:
    condition = "images after which the distillation has paid for itself"
    own, its = student.ms_per_image(), teacher.ms_per_image()
    if seconds is None or own is None or its is None:
        return Finding(condition, "not shown", "needs the cost of the distillation and undisturbed times of both decoders")
    if why := side_by_side(basis(student.record), basis(teacher.record)).times:
        return Finding(condition, "not shown", f"times of other machines or settings: {why}")
    saved = (its - own) / 1000.0
    if saved <= 0.0:
        return Finding(condition, "failed", f"the student is not faster: {own:.3g} against {its:.3g} ms an image")
    return Finding(condition, "passed", f"{math.ceil(seconds / saved):,} images ({saved:.3g} s saved on each)")
