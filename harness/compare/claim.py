"""The paper's claim on runs of one set of images, as three answers that stay apart.

1. Its own words: a one-step student against its multi-step teacher and against full resolution, at 50 steps each. Margins are
   shares of what `direct` reaches, so that a bad teacher does not widen its own.
2. At equal quality: the cheapest setting of any teacher that is no worse than the student, of a grid fixed beforehand; it is
   chosen on one half of the images and tested on the other.
3. Whether a teacher is worth it: against regression, `direct`, at equal compute.

A condition on a difference has passed, or failed, where its 95 % interval lies wholly on that side; compute and power in the
finest octave are held by their value. What was not measured, or is not resolved, is not shown. Settings of many
steps may have fewer noise seeds than others: two rows compare on those that both have.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from harness.compare.compare import Row, cost_ratios, read_rows
from harness.compare.comparison import CostRatio, basis, side_by_side
from harness.cost.cost import Cost, CostCell
from harness.cost.latency import latency_of
from harness.decoder import DecoderSpec
from harness.errors import MsbenchError
from harness.metrics.registry import METRICS
from harness.record.marks import other_rate, rate_ratio
from harness.record.measured import Measured, difference, mean_columns
from harness.record.record import Record
from harness.record.run import open_run
from harness.stats.estimate import Interval
from harness.stats.verdict import parse_margins

FEW, MANY = 10, 50
"""steps that are compared to see whether more steps harm; with MANY a student is held against teachers"""
GRID = (1, 2, 4, FEW, 25, MANY)
"""steps of a teacher among which the cheapest is chosen"""
MARGINS = parse_margins("lpips=0.01,psnr=0.2,kid=5%,rfid=5%", METRICS)
"""losses that count as none; shares are of `direct`'s value on the same images"""
EQUAL = ("lpips", "kid", "rfid")
"""metrics of equal quality, the quickest first"""
TOP_OCTAVE_POWER = (0.8, 1.2)
"""power in the finest octave over the reference's, within which a teacher has neither blur nor grain"""
MAX_LATE_CHANGE = 0.03
"""share of rFID that the last quarter of a teacher's training may still move"""
SAME_COMPUTE = 0.05
"""relative difference up to which trainings had equal compute"""
SEEDS = ("noise_seeds",)
"""fields of the protocol in which rows may differ"""
WHOLE, CHOOSE, TEST = "all images", "chosen on one half", "tested on the other half"
"""which images a figure is of"""

Outcome = Literal["passed", "failed", "not shown"]


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
class Difference:
    """One metric of a decoder against a baseline, paired by image."""

    metric: str
    """key of `MARGINS`"""
    value: float
    """decoder minus baseline"""
    ci: tuple[float, float]
    """its 95 % interval"""
    margin: float
    """the loss that counts as none, in the metric's unit"""
    outcome: Outcome
    """passed: the interval leaves out a loss beyond the margin; failed: it holds nothing else"""

    def __str__(self) -> str:
        low, high = self.ci
        return f"{self.metric} {self.value:+.4g} [{low:+.4g}, {high:+.4g}]"


@dataclass(frozen=True, slots=True)
class Pair:
    """What a decoder saves against a baseline, and what it loses."""

    what: str
    """what is held against what"""
    decoder: str
    """label of the row"""
    baseline: str
    """label of the row it is held against"""
    costs: tuple[CostRatio, ...]
    """GFLOPs where counted, time at each batch size where measured"""
    differences: tuple[Difference, ...]
    """every metric of `MARGINS`"""
    notes: tuple[str, ...]
    """why times are absent"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer."""

    question: str
    """what is asked"""
    verdict: str
    """holds, does not hold, not shown; of equal quality: reached by which setting, or not"""
    findings: tuple[Finding, ...]
    """conditions, in the order looked at"""
    pairs: tuple[Pair, ...]
    """what is held against what"""


@dataclass(frozen=True, slots=True)
class Claim:
    """The answers."""

    answers: tuple[Answer, ...]
    """the three"""
    stages: tuple[Pair, ...]
    """what scales give, what one step gives, and both"""
    rows: tuple[Row, ...]
    """the decoders in question, the student first"""
    warnings: tuple[str, ...]
    """what keeps rows apart from the student's, one line each"""


@dataclass(frozen=True, slots=True)
class Roles:
    """Which rows are what: labels or registry names."""

    student: str
    """the one-step student"""
    control: str
    """one step at one scale, trained as the student was"""
    direct: str
    """the noise-free regression control"""
    teachers: tuple[str, ...]
    """multi-step decoders; those of one scale are full resolution"""


def grid(scales: int) -> list[int]:
    """Steps of a teacher with K scales: those of `GRID`, none below K."""
    return sorted({max(steps, scales) for steps in GRID})


def claim_rows(runs: Sequence[tuple[Record, str | None]]) -> list[Row]:
    """Rows of runs.

    Raises:
        MsbenchError: a run is damaged, or its features were not kept.
    """
    rows = read_rows(runs, [open_run(record) for record, _ in runs], [basis(record) for record, _ in runs])
    for row in rows:
        if not row.measured.has("rfid"):
            lacking = "features" if len(row.measured.keys) > 1 else "more than one image"
            raise MsbenchError(f"{row.basis.name} keeps no {lacking} of {row.label}: rFID cannot be compared without them")
    return rows


def with_speed(rows: Sequence[Row], folder: Path) -> list[Row]:
    """The rows with times of a run of `msbench speed`, taken in turns, in place of their own.

    A row has those of its decoder, steps and parameters in its run's resolution, mode and dtype, on the last number of cores;
    or none.

    Raises:
        MsbenchError: there is no such run.
    """
    try:
        found = _times(folder)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise MsbenchError(f"--speed-dir {folder} holds no run of `msbench speed` ({error})") from error
    timed_rows = []
    for row in rows:
        spec, place = _spec(row), (row.basis.protocol["resolution"], row.basis.timing["mode"], row.basis.timing["dtype"])
        cells = tuple(found.get((row.result.decoder, spec.steps, spec.parameters, *place), {}).values())
        result = replace(row.result, disturbed=any(cell.disturbed for cell in cells))
        details = replace(row.details, cost=Cost(cells, None, None, spec.parameters))
        timed_rows.append(replace(row, result=result, details=details, basis=replace(row.basis, timing={"speed": str(folder)})))
    return timed_rows


def _times(folder: Path) -> dict[tuple[Any, ...], dict[int, CostCell]]:
    """Of a run of `msbench speed`: (name, steps, parameters, resolution, mode, dtype) -> batch size -> its cell."""
    whole, calls = json.loads((folder / "speed.json").read_text()), pd.read_parquet(folder / "samples.parquet")
    names, found = {one["label"]: one["name"] for one in whole["contestants"]}, dict[tuple[Any, ...], dict[int, CostCell]]()
    calls = calls[(calls["scope"] == "decode") & ~calls["final"]]
    for cell in whole["cells"]:
        if (cell["scope"], cell["status"]) == ("decode", "ok") and cell["batch"] != "max":
            setting = {name: str(cell[name]) for name in ("decoder", "batch", "mode", "dtype", "resolution", "cores")}
            mine = calls[(calls[list(setting)].astype(str) == pd.Series(setting)).all(axis=1)]["ms"] / 1000.0
            timed = CostCell(cell["batch"], "ok", latency_of(list(mine), 0, True), disturbed=cell["disturbed"])
            key = names[cell["decoder"]], *(cell[name] for name in ("steps", "parameters", "resolution", "mode", "dtype"))
            found.setdefault(key, {})[cell["batch"]] = timed
    return found


def examine(rows: Sequence[Row], roles: Roles, earlier: Row | None = None) -> Claim:
    """The three answers, and the stages apart.

    Args:
        rows: student, `direct`, control, and teachers in every setting of the grid.
        roles: which of them is what.
        earlier: the best teacher's weights after three quarters of its training.

    Raises:
        MsbenchError: no student, `direct` or teacher among the rows, one of them with several weights, or runs that do not
            compare.
    """
    student, direct, control = (_only(rows, name) for name in (roles.student, roles.direct, roles.control))
    settings = [row for row in rows if {row.result.label, row.result.decoder} & {*roles.teachers}]
    if student is None or direct is None or not settings:
        wanted = f"{roles.student}, {roles.direct} and one of {', '.join(roles.teachers)}"
        raise MsbenchError(f"a claim needs {wanted}; the runs hold {', '.join(row.label for row in rows)}")
    warnings = list[str]()
    for row in (*settings, direct, *filter(None, (control, earlier))):
        fit, ratio = side_by_side(student.basis, row.basis, SEEDS), rate_ratio(row.result, student.result)
        warnings += fit.warnings
        if other_rate(ratio):
            warnings.append(f"{row.label} has {ratio:.3g}× the bits of {student.label}: not of one rate")
        if fit.quality or MARGINS.keys() & {*fit.definitions}:
            raise MsbenchError(f"{student.basis.name} and {row.basis.name} do not compare: {fit.quality or fit.warnings[0]}")
    bench = _Bench(student, direct, settings, halves(student.measured), {})
    many, known = [row for row in settings if _spec(row).steps == MANY], _spec(student).teacher_sha256
    teacher = next((row for row in many if known and _spec(row).weights_sha256 == known), None)
    full = next((row for row in many if _spec(row).scales == 1), None)
    # One step a scale is no sampling: such a setting competes in cost, not as a teacher.
    flows = [row for row in settings if _spec(row).steps > _spec(row).scales] or settings
    best = min(flows, key=lambda row: row.result.metrics.get("rfid") or math.inf)
    scaled = None if teacher is full else teacher
    equal, found = bench.equal_quality()
    answers = bench.literal(teacher, full, scaled), equal, bench.worth(best, earlier)
    scales = ("scales, one step each", student, control), (f"scales, {MANY} steps", scaled, full)
    stages = bench.pairs(*scales, ("one step, one scale", control, full), ("both", student, full))
    shown = dict.fromkeys(row for row in (student, teacher, full, control, direct, best, found) if row is not None)
    return Claim(answers, stages, tuple(shown), tuple(dict.fromkeys(warnings)))


@dataclass(frozen=True, slots=True)
class _Bench:
    """Where rows are held against each other; what of them is looked at is made once."""

    student: Row
    """the one-step student"""
    direct: Row
    """fixes the margins"""
    settings: Sequence[Row]
    """teachers and their steps"""
    keys: Mapping[str, Sequence[str]]
    """keys of the images, all of them and their halves"""
    views: dict[tuple[Row, int, str], Measured]
    """row, noise seeds, images -> values"""

    def literal(self, teacher: Row | None, full: Row | None, scaled: Row | None) -> Answer:
        """Answer 1; `scaled` is the teacher where it is not `full`."""
        known = _spec(self.student).teacher_sha256
        descent = f"it descends from the weights {known[:12]}…" if known else "its weights do not name its teacher"
        runs = ("its teacher", teacher, descent), ("a teacher of one scale", full, "the full resolution")
        findings = [
            Finding(f"{what} was measured with {MANY} steps", "passed" if row else "not shown", why) for what, row, why in runs
        ]
        pairs = self.pairs(("its teacher", self.student, scaled), ("full resolution", self.student, full))
        outcomes = [*(one.outcome for one in findings), *(one.outcome for pair in pairs for one in pair.differences)]
        question = f"The paper's claim, of {self.student.label} ({_training(_spec(self.student))})"
        return Answer(question, _all(outcomes), tuple(findings), pairs)

    def equal_quality(self) -> tuple[Answer, Row | None]:
        """Answer 2, and the setting found."""
        question, tried = "At equal quality", list[Finding]()
        costs = {row: row.result.gflops for row in self.settings if _spec(row).steps in grid(_spec(row).scales)}
        lacking = {f"GFLOPs of {row.label}" for row, gflops in costs.items() if gflops is None}
        every = [(row, steps) for row in self.settings for steps in grid(_spec(row).scales)]
        lacking |= {f"{row.result.decoder}@steps={steps}" for row, steps in every if steps not in self.same_weights(row)}
        if lacking:
            return Answer(question, f"not shown: the runs lack {', '.join(sorted(lacking))}", (), ()), None
        verdict, found = "not reached", None
        for row in sorted(costs, key=lambda one: costs[one] or 0.0):
            tried.append(self.no_worse(row, CHOOSE))
            if tried[-1].outcome == "passed":
                tried.append(self.no_worse(row, TEST))
                found = row if tried[-1].outcome == "passed" else None
                verdict = f"reached by {row.label}" if found else f"not reached: the other half does not confirm {row.label}"
                break
        return Answer(question, verdict, tuple(tried), self.pairs(("equal quality", self.student, found))), found

    def no_worse(self, row: Row, images: str) -> Finding:
        """A setting is non-inferior to the student; the evidence ends at the first metric where it is not."""
        seen = list[Difference]()
        while len(seen) < len(EQUAL) and all(one.outcome == "passed" for one in seen):
            seen.append(self.difference(row, self.student, EQUAL[len(seen)], images))
        figures = "; ".join(f"{one}, margin {one.margin:.3g}" for one in seen)
        return Finding(f"{row.label} is no worse, {images}", seen[-1].outcome, figures)

    def worth(self, teacher: Row, earlier: Row | None) -> Answer:
        """Answer 3, of the best teacher."""
        findings = [_equal_compute(teacher, self.student, self.direct)]
        for metric in ("rfid", "kid"):
            found = self.difference(teacher, self.direct, metric)
            outcome = _outcome(Interval(*found.ci, 0.95), -math.inf, 0.0)
            findings.append(Finding(f"{teacher.label} beats {self.direct.label} on {metric}", outcome, str(found)))
        findings += [self.more_steps(teacher), _finest_octave(teacher), self.at_rest(teacher, earlier)]
        return Answer("Is the teacher worth it", _all(one.outcome for one in findings), tuple(findings), ())

    def more_steps(self, teacher: Row) -> Finding:
        """More steps of the same weights lose no more than the margin."""
        condition, own = f"{MANY} steps are not worse than {FEW}", self.same_weights(teacher)
        if not {FEW, MANY} <= own.keys():
            return Finding(condition, "not shown", f"{teacher.result.decoder} was measured with {sorted(own)} steps")
        found = self.difference(own[MANY], own[FEW], "rfid")
        return Finding(condition, found.outcome, f"{found}, margin {found.margin:.3g}")

    def at_rest(self, teacher: Row, earlier: Row | None) -> Finding:
        """The end of its training moved rFID by little."""
        condition = f"the last quarter of training moved rFID by less than {MAX_LATE_CHANGE:.0%}"
        if earlier is None:
            return Finding(condition, "not shown", "no run of the teacher's earlier weights was given")
        if (earlier.result.decoder, _spec(earlier).steps) != (teacher.result.decoder, _spec(teacher).steps):
            return Finding(condition, "not shown", f"the earlier weights are of {earlier.label}, not of {teacher.label}")
        if _spec(earlier).weights_sha256 == _spec(teacher).weights_sha256:
            return Finding(condition, "not shown", f"{earlier.label} has the weights of {teacher.label}, not earlier ones")
        if _recipe(earlier) != _recipe(teacher) or None in _recipe(teacher):
            return Finding(condition, "not shown", f"{earlier.label} is not known to be of the training of {teacher.label}")
        found, most = self.difference(teacher, earlier, "rfid"), MAX_LATE_CHANGE * earlier.measured.value("rfid")
        return Finding(condition, _outcome(Interval(*found.ci, 0.95), -most, most), f"{found}, 3 % are {most:.3g}")

    def same_weights(self, row: Row) -> dict[int, Row]:
        """Steps -> the settings of one decoder and one training: others say nothing of what more steps do to this one."""
        weights = row.result.decoder, _spec(row).weights_sha256
        return {_spec(one).steps: one for one in self.settings if (one.result.decoder, _spec(one).weights_sha256) == weights}

    def pairs(self, *wanted: tuple[str, Row | None, Row | None]) -> tuple[Pair, ...]:
        """(what, decoder, baseline) each; those of which one is absent are left out."""
        found = []
        for what, one, other in wanted:
            if one is not None and other is not None:
                costs, refused = cost_ratios([(one, other, side_by_side(one.basis, other.basis, SEEDS))])
                absent = [] if any(cost.ci for cost in costs) else [f"times of {one.label} or {other.label} were not measured"]
                differences = tuple(self.difference(one, other, metric) for metric in MARGINS)
                found.append(Pair(what, one.label, other.label, tuple(costs), differences, tuple(refused or absent)))
        return tuple(found)

    def difference(self, one: Row, other: Row, metric: str, images: str = WHOLE) -> Difference:
        """One metric of a row against another's."""
        own, its, control = self.seen(one, other, images)
        estimate = difference(own, its, metric)
        ends = estimate.interval(0.95)
        loss = Interval(-ends.high, -ends.low, ends.level) if METRICS[metric].direction == "higher" else ends
        margin = MARGINS[metric].absolute(control.value(metric))
        return Difference(metric, estimate.value, (ends.low, ends.high), margin, _outcome(loss, -math.inf, margin))

    def seen(self, one: Row, other: Row, images: str) -> list[Measured]:
        """Values of two rows and `direct` on some images, under the noise seeds that both have."""
        found, seeds = [], min(_noise_seeds(one), _noise_seeds(other))
        for row in (one, other, self.direct):
            if (row, seeds, images) not in self.views:
                whole = row.measured
                if seeds < len(whole.wholes):
                    kept = whole.wholes[:seeds]
                    whole = replace(whole, wholes=kept, per_image=mean_columns([one.columns for one in kept]), statistics={})
                self.views[row, seeds, images] = whole.reordered(self.keys[images])
            found.append(self.views[row, seeds, images])
        return found


def _spec(row: Row) -> DecoderSpec:
    return row.details.spec


def _recipe(row: Row) -> tuple[str | None, int | None]:
    """What a training shares with its own earlier weights alone."""
    return _spec(row).recipe_sha256, _spec(row).training_seed


def _noise_seeds(row: Row) -> int:
    """How many its run asked for; a decoder that draws nothing has values of one."""
    return int(row.basis.protocol["noise_seeds"])


def _only(rows: Sequence[Row], name: str) -> Row | None:
    """The row of that label, or else decoder, of several runs that with the most noise seeds; None where there is none.

    Raises:
        MsbenchError: rows of several weights or steps.
    """
    found = [row for row in rows if name == row.result.label] or [row for row in rows if name == row.result.decoder]
    if len({(_spec(row).weights_sha256, _spec(row).steps) for row in found}) > 1:
        raise MsbenchError(f"{name} stands for {', '.join(row.label for row in found)}: give RUN:DECODER of one")
    return max(found, key=_noise_seeds, default=None)


def halves(measured: Measured) -> dict[str, Sequence[str]]:
    """All images and their two halves; a hash of the photograph they were cut from decides which half images are of."""
    units = dict(zip(measured.keys, measured.clusters or measured.keys, strict=True))
    order = sorted({*units.values()}, key=lambda unit: hashlib.sha256(f"claim {unit}".encode()).digest())
    first = {*order[: len(order) // 2]}
    one, other = ([key for key, unit in units.items() if (unit in first) == own] for own in (True, False))
    return {WHOLE: measured.keys, CHOOSE: one, TEST: other}


def _outcome(interval: Interval, low: float, high: float) -> Outcome:
    """Passed where the interval lies between the bounds, failed where it lies outside them."""
    if low <= interval.low and interval.high < high:
        return "passed"
    return "failed" if interval.high < low or interval.low > high else "not shown"


def _all(outcomes: Iterable[Outcome]) -> str:
    """Of conditions that must all hold."""
    seen = {*outcomes}
    return "does not hold" if "failed" in seen else "holds" if seen == {"passed"} else "not shown"


def _training(spec: DecoderSpec) -> str:
    """How a student was trained, in a few words; a loss without its teacher's end distils nothing."""
    kinds = {"direct": "teacher-initialised regression", None: "trained on an objective that its weights do not name"}
    kind = kinds.get(spec.objective, f"distilled ({spec.objective})")
    return f"{kind}, cascade variant" if spec.flow == "cascade" and spec.scales > 1 else kind


def _equal_compute(teacher: Row, student: Row, direct: Row) -> Finding:
    """Teacher and student together against `direct` and what it started from."""
    condition = f"{direct.label} had the training compute of teacher and student, within {SAME_COMPUTE:.0%}"
    theirs = _spec(teacher).start_pflops, _spec(teacher).training_pflops, _spec(student).training_pflops
    its = _spec(direct).start_pflops, _spec(direct).training_pflops
    known = [sum(one for one in parts if one is not None) for parts in (theirs, its) if None not in parts]
    if len(known) < 2:
        return Finding(condition, "not shown", "a card does not say what a training, or the one that it started from, took")
    same = abs(known[1] - known[0]) <= SAME_COMPUTE * known[0]
    return Finding(condition, "passed" if same else "failed", f"{known[1]:.3g} against {known[0]:.3g} PFLOPs")


def _finest_octave(teacher: Row) -> Finding:
    low, high = TOP_OCTAVE_POWER
    condition = f"power in the finest octave within {low:g} to {high:g} of the reference's"
    finest = teacher.result.octaves_db.get("0")
    power = math.nan if finest is None else 10.0 ** (finest / 10.0)
    outcome: Outcome = "not shown" if finest is None else "passed" if low <= power <= high else "failed"
    return Finding(condition, outcome, f"{power:.3g}")
