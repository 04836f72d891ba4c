"""The paper's claim on made-up runs: a teacher must qualify, what is missing is not shown, the student is held to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.compare.claim import Candidate, Claim, candidate, examine
from harness.errors import MsbenchError
from harness.record.record import write_record
from tests.harness.conftest import PROTOCOL, MakeRun

Runs = dict[str, Candidate]
# Made-up features lie (0.3 + shift) · noise away from the reference: a larger shift is a larger rFID.
SHIFTS = {"teacher-10": 0.0, "teacher-50": 0.0, "direct": 0.5, "student": 0.01, "poor": 0.3, "earlier": 0.0}


TEACHER = "a" * 64


@pytest.fixture
def runs(tmp_path: Path, make_run: MakeRun) -> Runs:
    """Candidates of one protocol; both teachers are decoder "t" with the same weights."""
    return {name: made(make_run, tmp_path / name, name, shift) for name, shift in SHIFTS.items()}


def made(make_run: MakeRun, folder: Path, name: str, shift: float, octave: float = 0.1, n: int = 200, **spec: Any) -> Candidate:
    """A run of one decoder with octaves and a median time; `spec` changes what the decoder says of itself."""
    decoder = "t" if name.startswith(("teacher", "earlier")) else name
    steps = 10 if name == "teacher-10" else 50 if decoder == "t" else 1
    times = [100.0, 101.0, 99.0] if decoder == "t" else [2.0, 2.1, 1.9]
    usual = {"steps": steps, "weights_sha256": TEACHER if decoder == "t" else "b" * 64}
    usual |= {"teacher_sha256": TEACHER} if name == "student" else {}
    run = make_run(folder, {decoder: shift}, n=n, spec={decoder: {**usual, **spec}}, calls={decoder: times})
    row = replace(run.data.results[0], octaves_db={"0": octave, "1": 0.0}, ms_per_image={"1": float(np.median(times))})
    run = write_record(folder, replace(run.data, results=(row,)))
    return candidate(run, decoder)


def outcome(claim: Claim, words: str) -> str:
    (finding,) = [one for one in (*claim.qualification, *claim.findings) if words in one.condition]
    return finding.outcome


def test_a_good_teacher_qualifies_and_a_faithful_student_passes(runs: Runs) -> None:
    claim = examine(
        [runs["teacher-50"], runs["teacher-10"]], runs["direct"], runs["student"], [runs["poor"]], runs["earlier"], 600.0
    )
    assert [finding.outcome for finding in claim.qualification] == ["passed"] * 5
    assert claim.qualified
    assert [finding.outcome for finding in claim.findings] == ["passed"] * 5
    assert claim.verdict == "the claim holds here"
    # 600 s at 98 ms saved on each image.
    assert claim.findings[-1].evidence.startswith("6,123 images")


def test_what_was_not_measured_is_not_shown(runs: Runs) -> None:
    claim = examine([runs["teacher-50"]], runs["direct"], runs["student"])
    assert outcome(claim, "not worse than") == outcome(claim, "last quarter") == "not shown"
    assert claim.verdict.startswith("no distillation claim")
    assert claim.findings == ()
    # Weights of another number of steps say nothing of this teacher's training.
    other = examine([runs["teacher-50"]], runs["direct"], runs["student"], earlier=runs["teacher-10"])
    assert outcome(other, "last quarter") == "not shown"


@pytest.mark.parametrize(("octave", "expected"), [(0.78, "passed"), (0.81, "failed"), (-0.95, "passed"), (-0.99, "failed")])
def test_grain_and_blur_disqualify(octave: float, expected: str, runs: Runs, make_run: MakeRun, tmp_path: Path) -> None:
    """± 20 % of the power is +0.79 and -0.97 dB."""
    loud = made(make_run, tmp_path / "loud", "teacher-50", 0.0, octave)
    assert outcome(examine([loud], runs["direct"], runs["student"]), "finest octave") == expected


def test_a_teacher_that_direct_equals_or_that_moved_late_does_not_qualify(
    runs: Runs, make_run: MakeRun, tmp_path: Path
) -> None:
    direct = replace(runs["direct"], measured=runs["teacher-10"].measured)
    claim = examine([runs["teacher-50"], runs["teacher-10"]], direct, runs["student"])
    assert outcome(claim, "on rfid") == "not shown"
    better = made(make_run, tmp_path / "better", "direct", -0.2)
    assert outcome(examine([runs["poor"]], better, runs["student"]), "on rfid") == "failed"
    young = made(make_run, tmp_path / "young", "teacher-50", 0.2)
    teachers = [runs["teacher-50"]]
    assert outcome(examine(teachers, runs["direct"], runs["student"], earlier=young), "last quarter") == "failed"


def test_more_steps_that_harm_disqualify(runs: Runs, make_run: MakeRun, tmp_path: Path) -> None:
    worse = made(make_run, tmp_path / "worse", "teacher-50", 0.3)
    claim = examine([runs["teacher-10"], worse], runs["direct"], runs["student"])
    assert claim.teacher.spec.steps == 10
    assert outcome(claim, "not worse than") == "failed"


def test_few_images_do_not_show_that_more_steps_are_no_worse(make_run: MakeRun, tmp_path: Path) -> None:
    """A difference of about nothing with a wide interval: a loss beyond the margin of 5 % is not excluded."""
    few, many = (
        made(make_run, tmp_path / name, name, shift, n=24) for name, shift in (("teacher-10", 0.5), ("teacher-50", 0.52))
    )
    finding = next(one for one in examine([few, many], few, few).qualification if "not worse than" in one.condition)
    assert finding.outcome == "not shown"
    assert "a loss of 5% counts as none" in finding.evidence


def test_more_steps_of_another_training_say_nothing(runs: Runs, make_run: MakeRun, tmp_path: Path) -> None:
    other = made(make_run, tmp_path / "other", "teacher-50", 0.3, weights_sha256="f" * 64)
    claim = examine([runs["teacher-10"], other], runs["direct"], runs["student"])
    assert claim.teacher.spec.steps == 10
    assert outcome(claim, "not worse than") == "not shown"


@pytest.mark.parametrize(("teacher", "expected"), [(TEACHER, "passed"), ("c" * 64, "failed"), (None, "not shown")])
def test_the_student_must_descend_from_the_teacher(
    runs: Runs, make_run: MakeRun, tmp_path: Path, teacher: str | None, expected: str
) -> None:
    student = made(make_run, tmp_path / "s", "student", 0.01, teacher_sha256=teacher)
    teachers = [runs["teacher-50"], runs["teacher-10"]]
    claim = examine(teachers, runs["direct"], student, earlier=runs["earlier"], distillation_seconds=600.0)
    assert outcome(claim, "was distilled from") == expected
    assert (claim.verdict == "the claim holds here") == (expected == "passed")


def test_disturbed_times_pay_for_nothing(runs: Runs) -> None:
    student = replace(runs["student"], result=replace(runs["student"].result, disturbed=True))
    teachers = [runs["teacher-50"], runs["teacher-10"]]
    claim = examine(teachers, runs["direct"], student, earlier=runs["earlier"], distillation_seconds=600.0)
    assert outcome(claim, "paid for itself") == "not shown"


def test_a_poor_student_fails(runs: Runs) -> None:
    teachers = [runs["teacher-50"], runs["teacher-10"]]
    claim = examine(teachers, runs["direct"], runs["poor"], [runs["student"]], runs["earlier"])
    assert outcome(claim, "at most 1.15") == "failed"
    assert outcome(claim, "poor beats student") == "failed"
    assert outcome(claim, "poor beats direct") == "passed"
    assert outcome(claim, "paid for itself") == "not shown"
    assert claim.verdict == "the claim is not shown: 4 condition(s) not passed"


def test_runs_of_other_protocols_and_without_features_are_refused(runs: Runs, make_run: Any, tmp_path: Path) -> None:
    other = make_run(
        tmp_path / "other", {"s": 0.0}, n=200, protocol=replace(PROTOCOL, resolution=128), spec={"s": {"steps": 1}}
    )
    with pytest.raises(MsbenchError, match="protocol field resolution"):
        examine([runs["teacher-50"]], runs["direct"], candidate(other, "s"))
    bare = make_run(tmp_path / "bare", {"s": 0.0}, features=False)
    with pytest.raises(MsbenchError, match="keeps no features"):
        candidate(bare, "s")
    with pytest.raises(MsbenchError, match=r"unknown decoder of .* 'x'"):
        candidate(other, "x")
    with pytest.raises(MsbenchError, match="no teacher given"):
        examine([], runs["direct"], runs["student"])


def test_the_command_says_so(runs: Runs) -> None:
    where = {name: f"{one.record.folder}:{one.result.label}" for name, one in runs.items()}
    arguments = ["claim", "--teacher", where["teacher-50"], "--direct", where["direct"], "--student", where["student"]]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 1
    assert "no distillation claim" in shown.output
    whole = [*arguments, "--teacher", where["teacher-10"], "--earlier", where["earlier"], "--distillation-minutes", "10"]
    passed = CliRunner().invoke(app, [*whole, "--json"])
    assert passed.exit_code == 0
    assert json.loads(passed.stdout)["verdict"] == "the claim holds here"
    assert CliRunner().invoke(app, [*arguments[:-1], "nowhere"]).exit_code == 2
