"""The paper's claim as a test: does a one-step student keep the quality of a teacher that is worth distilling?

A teacher that is no good proves nothing, so it must qualify first, on the runs given: it beats the regression control on KID
and rFID; more steps do not make it worse; it has neither grain nor blur in the finest octave; and its training had come to
rest. Only then is the student held against it. Whatever was not measured counts as not shown, never as passed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.compare.compatible import incompatibility, time_incompatibility
from harness.errors import MsbenchError
from harness.record.measured import Measured, difference, read_measured
from harness.record.record import Record
from harness.record.run import open_run
from harness.record.schema import Result
from harness.stats.sets import set_ratio

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
    decoder: str
    """its name in the run"""
    measured: Measured
    """its values and features"""

    @property
    def steps(self) -> int:
        """Network calls per image."""
        return self.record.data.decoders[self.decoder].spec.steps

    @property
    def weights(self) -> str | None:
        """SHA-256 of its weights; None where it has none."""
        return self.record.data.decoders[self.decoder].spec.weights_sha256

    @property
    def label(self) -> str:
        """Name and steps."""
        return f"{self.decoder} ({self.steps} steps)" if self.steps > 1 else self.decoder

    @property
    def finest_octave_db(self) -> float:
        """Mean over images of the finest octave's difference, in dB."""
        finest = self._row().octaves_db.get("0")
        return math.nan if finest is None else finest

    def ms_per_image(self) -> float | None:
        """Median time at the largest batch that was measured; None without cost."""
        found = [(int(batch), value) for batch, value in self._row().ms_per_image.items()]
        return max(found)[1] if found else None

    def _row(self) -> Result:
        return next(row for row in self.record.data.results if row.label == self.decoder)


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
        MsbenchError: no such decoder in the run, or its features were not kept.
    """
    names = [row.label for row in record.data.results]
    if decoder not in names:
        raise MsbenchError(f"{record.folder} has no decoder {decoder!r}; it has {', '.join(names)}")
    measured = read_measured(open_run(record), decoder, decoder)
    if not measured.has("rfid"):
        raise MsbenchError(f"{record.folder} keeps no features of {decoder}: rFID cannot be compared without them")
    return Candidate(record, decoder, measured)


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
        MsbenchError: no teacher, or runs of different protocols or images.
    """
    if not teachers:
        raise MsbenchError("no teacher given")
    everyone = [*teachers, direct, student, *controls, *([earlier] if earlier else [])]
    for other in everyone[1:]:
        if why := incompatibility(everyone[0].record, other.record):
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
    findings = [_ratio(student, teacher), *(_better(student, control, "rfid") for control in (direct, *controls))]
    findings.append(_break_even(student, teacher, distillation_seconds))
    return Claim(teacher, qualification, tuple(findings))


def _better(one: Candidate, other: Candidate, metric: str) -> Finding:
    """Lower by more than the 95 % interval of the paired difference."""
    estimate = difference(one.measured, other.measured.reordered(one.measured.keys), metric)
    interval = estimate.interval(0.95)
    text = f"{metric} {estimate.value:+.4g} [{interval.low:+.4g}, {interval.high:+.4g}]"
    return Finding(f"{one.label} beats {other.label} on {metric}", "passed" if interval.high < 0 else "failed", text)


def _more_steps(teacher: Candidate, teachers: Sequence[Candidate]) -> Finding:
    condition = f"{MANY_STEPS} steps are not worse than {FEW_STEPS}"
    # The same weights: other trainings of the decoder say nothing of what more steps do to this one.
    own = {one.steps: one for one in teachers if (one.decoder, one.weights) == (teacher.decoder, teacher.weights)}
    if not {FEW_STEPS, MANY_STEPS} <= own.keys():
        return Finding(condition, "not shown", f"{teacher.decoder} was measured with {sorted(own)} steps")
    few = own[FEW_STEPS].measured
    estimate = difference(own[MANY_STEPS].measured, few.reordered(own[MANY_STEPS].measured.keys), "rfid")
    interval = estimate.interval(0.95)
    text = f"rfid {estimate.value:+.4g} [{interval.low:+.4g}, {interval.high:+.4g}]"
    return Finding(condition, "failed" if interval.low > 0 else "passed", text)


def _finest_octave(teacher: Candidate) -> Finding:
    power = 10.0 ** (teacher.finest_octave_db / 10.0)
    low, high = TOP_OCTAVE_POWER
    condition = f"power in the finest octave within {low:g} to {high:g} of the reference's"
    if math.isnan(power):
        return Finding(condition, "not shown", "images too small for this octave")
    return Finding(condition, "passed" if low <= power <= high else "failed", f"{power:.3g}")


def _at_rest(teacher: Candidate, earlier: Candidate | None) -> Finding:
    condition = f"the last quarter of training moved rFID by less than {MAX_LATE_CHANGE:.0%}"
    if earlier is None:
        return Finding(condition, "not shown", "no run of the teacher's earlier weights was given")
    if (earlier.decoder, earlier.steps) != (teacher.decoder, teacher.steps):
        return Finding(condition, "not shown", f"the earlier weights are of {earlier.label}, the teacher is {teacher.label}")
    change = teacher.measured.value("rfid") / earlier.measured.value("rfid") - 1.0
    return Finding(condition, "passed" if abs(change) < MAX_LATE_CHANGE else "failed", f"{change:+.2%}")


def _ratio(student: Candidate, teacher: Candidate) -> Finding:
    own = student.measured
    interval = set_ratio(own.statistic("rfid"), teacher.measured.reordered(own.keys).statistic("rfid"))
    value = own.value("rfid") / teacher.measured.value("rfid")
    return Finding(
        f"upper 95 % bound of rFID({student.label}) / rFID({teacher.label}) at most {MAX_RFID_RATIO}",
        "passed" if interval.high <= MAX_RFID_RATIO else "failed",
        f"{value:.3f} [{interval.low:.3f}, {interval.high:.3f}]",
    )


def _break_even(student: Candidate, teacher: Candidate, seconds: float | None) -> Finding:
    condition = "images after which the distillation has paid for itself"
    times = student.ms_per_image(), teacher.ms_per_image()
    if seconds is None or times[0] is None or times[1] is None:
        return Finding(condition, "not shown", "needs the cost of the distillation and times of both decoders")
    if why := time_incompatibility(student.record, teacher.record):
        return Finding(condition, "not shown", f"times of other machines or settings: {why}")
    saved = (times[1] - times[0]) / 1000.0
    if saved <= 0.0:
        return Finding(condition, "failed", f"the student is not faster: {times[0]:.3g} against {times[1]:.3g} ms an image")
    return Finding(condition, "passed", f"{math.ceil(seconds / saved):,} images ({saved:.3g} s saved on each)")
