"""The paper's claim on made-up runs: a teacher must qualify, what is missing is not shown, the student is held to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.compare.claim import Candidate, Claim, candidate, examine
from harness.errors import MsbenchError
from harness.record.record import Record, read_record
from tests.harness.conftest import PROTOCOL

Runs = dict[str, Candidate]
# Made-up features lie (0.3 + shift) · noise away from the reference: a larger shift is a larger rFID.
SHIFTS = {"teacher-10": 0.0, "teacher-50": 0.0, "direct": 0.5, "student": 0.01, "poor": 0.3, "earlier": 0.0}


@pytest.fixture
def runs(tmp_path: Path, make_run: Callable[..., Record]) -> Runs:
    """Candidates of one protocol; both teachers are decoder "t"."""
    found = {}
    for name, shift in SHIFTS.items():
        decoder = "t" if name.startswith(("teacher", "earlier")) else name
        steps = 10 if name == "teacher-10" else 50 if decoder == "t" else 1
        folder = tmp_path / name
        times = [100.0, 101.0, 99.0] if decoder == "t" else [2.0, 2.1, 1.9]
        record = make_run(folder, {decoder: shift}, n=200, spec={decoder: {"steps": steps}}, calls={decoder: times})
        found[name] = candidate(_with(record, decoder, octaves_db={"0": 0.1, "1": 0.0}), decoder)
    return found


def _with(record: Record, decoder: str, octaves_db: dict[str, float]) -> Record:
    """The record with octaves and a median time, as runs have them."""
    path = record.folder / "record.json"
    data = json.loads(path.read_text())
    data["results"][0]["octaves_db"] = octaves_db
    samples = data["decoders"][decoder]["cost"]["cells"][0]["latency"]["samples_ms"]
    data["results"][0]["ms_per_image"] = {"1": float(np.median(samples))}
    path.write_text(json.dumps(data))
    return read_record(record.folder)


def outcome(claim: Claim, words: str) -> str:
    (finding,) = [one for one in (*claim.qualification, *claim.findings) if words in one.condition]
    return finding.outcome


def test_a_good_teacher_qualifies_and_a_faithful_student_passes(runs: Runs) -> None:
    claim = examine(
        [runs["teacher-50"], runs["teacher-10"]], runs["direct"], runs["student"], [runs["poor"]], runs["earlier"], 600.0
    )
    assert [finding.outcome for finding in claim.qualification[:4]] == ["passed"] * 4
    assert claim.qualified == (outcome(claim, "last quarter") == "passed")
    assert claim.qualified
    assert [finding.outcome for finding in claim.findings] == ["passed"] * 4
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
def test_grain_and_blur_disqualify(octave: float, expected: str, runs: Runs) -> None:
    """± 20 % of the power is +0.79 and -0.97 dB."""
    teacher = runs["teacher-50"]
    loud = candidate(_with(teacher.record, "t", {"0": octave, "1": 0.0}), "t")
    assert outcome(examine([loud], runs["direct"], runs["student"]), "finest octave") == expected


def test_a_teacher_that_direct_equals_or_that_moved_late_does_not_qualify(runs: Runs, make_run: Any, tmp_path: Path) -> None:
    direct = replace(runs["direct"], measured=runs["teacher-10"].measured)
    claim = examine([runs["teacher-50"], runs["teacher-10"]], direct, runs["student"])
    assert outcome(claim, "on rfid") == "failed"
    record = make_run(tmp_path / "young", {"t": 0.2}, n=200, spec={"t": {"steps": 50}}, calls={"t": [100.0]})
    young = candidate(_with(record, "t", {"0": 0.0}), "t")
    teachers = [runs["teacher-50"]]
    assert outcome(examine(teachers, runs["direct"], runs["student"], earlier=young), "last quarter") == "failed"


def test_more_steps_that_harm_disqualify(runs: Runs, make_run: Any, tmp_path: Path) -> None:
    record = make_run(tmp_path / "worse", {"t": 0.3}, n=200, spec={"t": {"steps": 50}}, calls={"t": [100.0]})
    worse = candidate(_with(record, "t", {"0": 0.0}), "t")
    claim = examine([runs["teacher-10"], worse], runs["direct"], runs["student"])
    assert claim.teacher.steps == 10
    assert outcome(claim, "not worse than") == "failed"


def test_more_steps_of_another_training_say_nothing(runs: Runs, make_run: Any, tmp_path: Path) -> None:
    spec = {"t": {"steps": 50, "weights_sha256": "f" * 64}}
    record = make_run(tmp_path / "other", {"t": 0.3}, n=200, spec=spec, calls={"t": [100.0]})
    other = candidate(_with(record, "t", {"0": 0.0}), "t")
    claim = examine([runs["teacher-10"], other], runs["direct"], runs["student"])
    assert claim.teacher.steps == 10
    assert outcome(claim, "not worse than") == "not shown"


def test_a_poor_student_fails(runs: Runs) -> None:
    teachers = [runs["teacher-50"], runs["teacher-10"]]
    claim = examine(teachers, runs["direct"], runs["poor"], [runs["student"]], runs["earlier"])
    assert outcome(claim, "at most 1.15") == "failed"
    assert outcome(claim, "poor beats student") == "failed"
    assert outcome(claim, "poor beats direct") == "passed"
    assert outcome(claim, "paid for itself") == "not shown"
    assert claim.verdict == "the claim is not shown: 3 condition(s) not passed"


def test_runs_of_other_protocols_and_without_features_are_refused(runs: Runs, make_run: Any, tmp_path: Path) -> None:
    other = make_run(
        tmp_path / "other", {"s": 0.0}, n=200, protocol=replace(PROTOCOL, resolution=128), spec={"s": {"steps": 1}}
    )
    with pytest.raises(MsbenchError, match="protocol field resolution"):
        examine([runs["teacher-50"]], runs["direct"], candidate(other, "s"))
    bare = make_run(tmp_path / "bare", {"s": 0.0}, features=False)
    with pytest.raises(MsbenchError, match="keeps no features"):
        candidate(bare, "s")
    with pytest.raises(MsbenchError, match="has no decoder 'x'"):
        candidate(other, "x")
    with pytest.raises(MsbenchError, match="no teacher given"):
        examine([], runs["direct"], runs["student"])


def test_the_command_says_so(runs: Runs) -> None:
    where = {name: f"{one.record.folder}:{one.decoder}" for name, one in runs.items()}
    arguments = ["claim", "--teacher", where["teacher-50"], "--direct", where["direct"], "--student", where["student"]]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 1
    assert "no distillation claim" in shown.output
    whole = [*arguments, "--teacher", where["teacher-10"], "--earlier", where["earlier"], "--distillation-minutes", "10"]
    passed = CliRunner().invoke(app, [*whole, "--json"])
    assert passed.exit_code == 0
    assert json.loads(passed.stdout)["verdict"] == "the claim holds here"
    assert CliRunner().invoke(app, [*arguments[:-1], "nowhere"]).exit_code == 2
