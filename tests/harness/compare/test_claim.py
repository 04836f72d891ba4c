"""The paper's claim on made-up rows: each verdict of each answer, the hash check, what is missing, the stages, other seeds."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.compare.claim import TEST, Answer, Claim, Pair, Roles, claim_rows, examine, grid, halves, with_speed
from harness.compare.compare import Row
from harness.compare.comparison import basis
from harness.environment import Start
from harness.errors import MsbenchError
from harness.metrics.metric import Whole
from harness.record.measured import Measured, mean_columns
from harness.record.record import Record
from harness.record.schema import Rate
from harness.report.claim import claim_tables
from harness.request.requests import DecoderRequest
from harness.speed.cells import SpeedRow
from harness.speed.protocol import SpeedProtocol
from harness.speed.record import document, write_speed
from harness.speed.run import Results
from harness.stats import sets
from harness.stats.rfid import rfid_value
from tests.harness.conftest import MakeRun
from tests.harness.records import PROTOCOL, details, result, run_data

N = 60
KEYS = tuple(f"image-{index:03d}" for index in range(N))
FULL, MULTI = "f" * 64, "a" * 64
REFERENCE = np.random.default_rng(2).standard_normal((N, 8)).astype(np.float32)
ROLES = Roles("student", "control", "direct", ("full", "multi"))
TIMES = {"full": [100.0, 101.0, 99.0], "student": [2.0, 2.1, 1.9]}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of set metrics without the interactions of units, which take most of the time."""
    monkeypatch.setattr(sets, "_INTERACTING", N + 1)


def made(
    decoder: str,
    shift: float = 0.0,
    steps: int = 1,
    scales: int = 1,
    gflops: float | None = None,
    psnr: float = 0.0,
    jitter: float = 0.0,
    octave: float | None = 0.1,
    seeds: int = 1,
    label: str = "",
    protocol: Any = PROTOCOL,
    **spec: Any,
) -> Row:
    """A row whose LPIPS lies `shift` above an image's own and whose features lie (0.3 + shift) · noise off the reference.

    That noise is the same for all, so that differences are sharp; `jitter` is each row's own. Each further seed adds 1.
    """
    label = label or (f"{decoder}@steps={steps}" if decoder in ROLES.teachers else decoder)
    own = np.random.default_rng(zlib.crc32(label.encode())).standard_normal((N, 8))
    noise, common = np.random.default_rng(3).standard_normal((N, 8)), np.random.default_rng(1).gamma(2.0, 0.2, N)
    features = (REFERENCE + (0.3 + shift) * noise + jitter * own).astype(np.float32)
    parts = []
    for seed in range(seeds):
        columns = {"lpips": common + shift + jitter * own[:, 0] + seed, "psnr": 24.0 + common + psnr + jitter * own[:, 1]}
        parts.append(Whole(REFERENCE, features + np.float32(seed), columns))
    spec = {"training_seed": 0, "recipe_sha256": "7" * 64} | spec
    measured = Measured(label, KEYS, None, mean_columns([one.columns for one in parts]), tuple(parts))
    row = result(
        label,
        decoder=decoder,
        n=N,
        gflops=float(steps) if gflops is None else gflops,
        octaves_db={"0": octave},
        rfid=rfid_value(REFERENCE, features),
        kid=0.0,
    )
    weights = {"full": FULL, "multi": MULTI}.get(decoder, zlib.crc32(decoder.encode()).__format__("064x"))
    rest = details(times=TIMES.get(decoder), **{"steps": steps, "scales": scales, "weights_sha256": weights, **spec})
    its_basis = basis(Record(Path(label), run_data([(row, rest)], replace(protocol, noise_seeds=seeds))))
    return Row(label, 0, its_basis, row, rest, measured, frozenset([label]))


def teachers(kept: Sequence[int] = (), **changes: Any) -> list[Row]:
    """Every setting of both, or those of `kept` steps: a multi-scale step costs less; `changes` go to all of them."""
    rows = [made("full", steps=steps, **changes) for steps in grid(1)]
    rows += [made("multi", steps=steps, scales=3, **{"gflops": 0.4 * steps, **changes}) for steps in grid(3)]
    return [row for row in rows if not kept or row.details.spec.steps in kept]


def student(shift: float = 0.005, **changes: Any) -> Row:
    usual = {"scales": 3, "steps": 3, "gflops": 1.3, "teacher_sha256": MULTI, "objective": "paired", "flow": "pyramid"}
    return made("student", shift, **{**usual, **changes})


def others(**changes: Any) -> list[Row]:
    return [made("control", 0.004, gflops=1.0), made("direct", 0.5, gflops=1.0, **changes)]


def answer(claim: Claim, place: int) -> Answer:
    return claim.answers[place - 1]


def outcome(found: Answer, words: str) -> str:
    (one,) = [one for one in found.findings if words in one.condition]
    return one.outcome


def literal(one: Row, *more: Row) -> Answer:
    return answer(examine([one, *(more or teachers((50,))), *others()], ROLES), 1)


def test_the_grid_was_fixed_beforehand() -> None:
    assert (grid(1), grid(3)) == ([1, 2, 4, 10, 25, 50], [3, 4, 10, 25, 50])


# Answer 1


def test_a_student_within_every_margin_of_both_holds() -> None:
    found = literal(student())
    assert found.verdict == "holds"
    assert [(one.what, one.baseline) for one in found.pairs] == [
        ("its teacher", "multi@steps=50"),
        ("full resolution", "full@steps=50"),
    ]
    costs = {cost.quantity: cost.value for cost in found.pairs[1].costs}
    assert costs == {"GFLOPs": pytest.approx(50 / 1.3), "time, batch 1": pytest.approx(50.0)}
    assert found.pairs[1].costs[1].ci is not None
    assert found.pairs[0].notes == ("times of student or multi@steps=50 were not measured",)
    assert {one.metric for one in found.pairs[0].differences} == {"lpips", "psnr", "kid", "rfid"}


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (student(0.02), "does not hold"),  # LPIPS, by more than .01
        (student(psnr=-0.3), "does not hold"),
        (student(psnr=-0.1), "holds"),
        (student(psnr=3.0), "holds"),
        (student(jitter=0.2), "not shown"),
    ],
)
def test_a_loss_beyond_a_margin_does_not_hold_and_a_wide_interval_shows_nothing(one: Row, expected: str) -> None:
    assert literal(one).verdict == expected


def test_direct_fixes_the_margins_and_a_bad_teacher_does_not_widen_them() -> None:
    bad = literal(student(1.05), *teachers((50,), shift=1.0))
    assert bad.verdict == "does not hold"  # LPIPS; rFID is lost by more than 5 % of direct's, though not of the teacher's
    value = rfid_value(REFERENCE, others()[1].measured.wholes[0].features)
    rfid = next(one for one in bad.pairs[0].differences if one.metric == "rfid")
    assert rfid.margin == pytest.approx(0.05 * value)
    assert rfid.outcome == "failed"
    assert next(one for one in bad.pairs[0].differences if one.metric == "lpips").margin == 0.01


@pytest.mark.parametrize(("known", "words"), [("c" * 64, "the weights cccccccccccc…"), (None, "do not name its teacher")])
def test_the_student_descends_from_its_teacher_by_hash(known: str | None, words: str) -> None:
    found = literal(student(teacher_sha256=known))
    assert found.verdict == outcome(found, "its teacher") == "not shown"
    assert words in found.findings[0].evidence
    assert [one.what for one in found.pairs] == ["full resolution"]
    # What is lost against full resolution alone is lost.
    assert literal(student(0.02, teacher_sha256=known)).verdict == "does not hold"


def test_teachers_of_few_steps_answer_nothing() -> None:
    found = literal(student(), *teachers((10, 25)))
    assert (found.verdict, found.pairs) == ("not shown", ())


def test_a_student_of_one_scale_has_one_teacher() -> None:
    found = literal(student(scales=1, steps=1, teacher_sha256=FULL), *teachers((50,))[:1])
    assert (found.verdict, len(found.pairs)) == ("holds", 1)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "(distilled (paired))"),
        ({"objective": "paired+direct", "flow": "cascade"}, "(distilled (paired+direct), cascade variant)"),
        ({"objective": "direct"}, "(teacher-initialised regression)"),
        ({"objective": "direct", "flow": "cascade"}, "(teacher-initialised regression, cascade variant)"),
        ({"objective": None, "flow": None}, "objective that its weights do not name"),
    ],
)
def test_only_a_loss_with_the_teachers_end_is_called_distilled(spec: dict[str, Any], words: str) -> None:
    assert words in literal(student(**spec)).question


# Answer 2


def equal(settings: list[Row], one: Row | None = None) -> tuple[Answer, Claim]:
    claim = examine([one or student(), *settings, *others()], ROLES)
    return answer(claim, 2), claim


def test_the_cheapest_setting_that_is_no_worse_is_chosen_and_tested() -> None:
    settings = [
        made(row.result.decoder, 0.3, row.details.spec.steps, row.details.spec.scales, row.result.gflops)
        if row.label in ("full@steps=1", "multi@steps=3")
        else row
        for row in teachers()
    ]
    found, claim = equal(settings)
    assert found.verdict == "reached by multi@steps=4"  # 1.6 GFLOPs; 2 steps at full resolution take 2
    assert [(one.condition.split()[0], one.outcome) for one in found.findings] == [
        ("full@steps=1", "failed"),
        ("multi@steps=3", "failed"),
        ("multi@steps=4", "passed"),
        ("multi@steps=4", "passed"),
    ]
    (pair,) = found.pairs
    assert pair.costs[0].value == pytest.approx(1.6 / 1.3)
    assert settings[7] in claim.rows


def test_no_setting_as_good_is_not_reached_and_has_no_ratio() -> None:
    found, _ = equal(teachers(shift=0.3))
    assert (found.verdict, found.pairs, len(found.findings)) == ("not reached", (), 11)
    assert equal(teachers(jitter=0.2))[0].verdict == "not reached"  # not shown to be as good


def test_the_other_half_of_the_images_must_confirm_it() -> None:
    settings = teachers()
    cheapest = settings[0]
    other = {*halves(cheapest.measured)[TEST]}
    columns = dict(cheapest.measured.per_image)
    columns["lpips"] = columns["lpips"] + [0.1 * (key in other) for key in KEYS]
    settings[0] = replace(cheapest, measured=replace(cheapest.measured, per_image=columns))
    found, _ = equal(settings)
    assert found.verdict == "not reached: the other half does not confirm full@steps=1"
    assert (found.pairs, [one.outcome for one in found.findings]) == ((), ["passed", "failed"])


def test_halves_are_seeded_by_key_and_keep_photographs_together() -> None:
    measured = student().measured
    whole, first, second = halves(measured).values()
    assert whole == KEYS
    assert sorted([*first, *second]) == sorted(KEYS)
    assert (len(first), tuple(first) != KEYS[: N // 2]) == (N // 2, True)
    backwards = halves(measured.reordered(KEYS[::-1])).values()
    assert [{*part} for part in backwards] == [{*whole}, {*first}, {*second}]
    photos = tuple(f"photo-{index % 7}" for index in range(N))
    _, left, right = halves(replace(measured, clusters=photos)).values()
    of = dict(zip(KEYS, photos, strict=True))
    assert not {of[key] for key in left} & {of[key] for key in right}


def test_a_grid_with_gaps_or_without_flops_shows_nothing() -> None:
    gaps = [row for row in teachers() if row.label not in ("full@steps=2", "multi@steps=25")]
    found, _ = equal(gaps)
    assert found.verdict == "not shown: the runs lack full@steps=2, multi@steps=25"
    assert (found.pairs, found.findings) == ((), ())
    uncounted = teachers()
    uncounted[0] = replace(uncounted[0], result=replace(uncounted[0].result, gflops=None))
    assert equal(uncounted)[0].verdict == "not shown: the runs lack GFLOPs of full@steps=1"


def test_settings_outside_the_grid_are_not_chosen() -> None:
    found, _ = equal([*teachers(), made("full", steps=5, gflops=0.1)])
    assert found.verdict == "reached by full@steps=1"


# Answer 3

COMPUTE = {"training_pflops": 0.4, "start_pflops": 0.0}


def worth(settings: list[Row], direct: Row | None = None, earlier: Row | None = None) -> Answer:
    one = student(training_pflops=0.2)
    direct = direct or made("direct", 0.5, training_pflops=0.2, start_pflops=0.4)
    return answer(examine([one, *settings, direct], ROLES, earlier), 3)


def worthy(shift: float = 0.0, **changes: Any) -> list[Row]:
    return [made("full", shift, steps=steps, **{**COMPUTE, **changes}) for steps in grid(1)]


def test_a_good_teacher_is_worth_it() -> None:
    found = worth(worthy(), earlier=made("full", steps=2, label="earlier", weights_sha256="e" * 64))
    assert [one.outcome for one in found.findings] == ["passed"] * 6
    assert found.verdict == "holds"


def test_absent_evidence_is_not_shown_and_never_passed() -> None:
    found = worth([made("full", steps=50)])
    assert {one.outcome for one in found.findings if " beats " not in one.condition and "octave" not in one.condition} == {
        "not shown"
    }
    assert found.verdict == "not shown"
    # Weights of another number of steps, of another training, or its own say nothing of this teacher's training.
    for unlike in ({"steps": 10}, {"training_seed": 9}, {"recipe_sha256": "0" * 64}, {"weights_sha256": FULL}):
        earlier = made("full", label="earlier", **{"steps": 2, "weights_sha256": "e" * 64, **unlike})
        assert outcome(worth(worthy(), earlier=earlier), "last quarter") == "not shown", unlike
    unknown = made("full", steps=2, label="earlier", weights_sha256="e" * 64, recipe_sha256=None)
    assert outcome(worth(worthy(recipe_sha256=None), earlier=unknown), "last quarter") == "not shown"
    assert outcome(worth([made("full", steps=50, octave=None)]), "octave") == "not shown"


@pytest.mark.parametrize(("its", "expected"), [(0.39, "passed"), (0.5, "failed"), (0.2, "failed"), (None, "not shown")])
def test_direct_had_the_compute_of_teacher_and_student(its: float | None, expected: str) -> None:
    direct = made("direct", 0.5, training_pflops=0.2, start_pflops=its)
    assert outcome(worth(worthy(), direct), "compute") == expected


@pytest.mark.parametrize(("octave", "expected"), [(0.78, "passed"), (0.81, "failed"), (-0.95, "passed"), (-0.99, "failed")])
def test_grain_and_blur_disqualify(octave: float, expected: str) -> None:
    """± 20 % of the power is +0.79 and -0.97 dB."""
    assert outcome(worth(worthy(octave=octave)), "finest octave") == expected


def test_a_teacher_must_beat_direct() -> None:
    for metric in ("rfid", "kid"):
        assert outcome(worth(worthy(), made("direct")), f"beats direct on {metric}") == "not shown"
        assert outcome(worth(worthy(0.5), made("direct")), f"beats direct on {metric}") == "failed"


def test_more_steps_that_harm_and_late_changes_disqualify() -> None:
    settings = [*worthy()[:-1], made("full", 0.4, steps=50)]
    assert outcome(worth(settings), "50 steps are not worse") == "failed"
    young = made("full", 0.2, steps=2, label="earlier", weights_sha256="e" * 64)
    found = worth(worthy(), earlier=young)
    assert (outcome(found, "last quarter"), found.verdict) == ("failed", "does not hold")


def test_one_step_a_scale_is_no_teacher() -> None:
    settings = [*worthy(0.1)[1:], made("full", steps=1), made("multi", steps=3, scales=3)]
    assert {one.condition for one in worth(settings).findings} >= {"full@steps=2 beats direct on rfid"}


def test_more_steps_of_another_training_say_nothing() -> None:
    settings = [made("full", steps=10), made("full", 0.3, steps=50, weights_sha256="e" * 64)]
    assert outcome(worth(settings), "50 steps are not worse") == "not shown"


# Stages, seeds, refusals


def test_stages_stand_apart() -> None:
    claim = examine([student(), *teachers((50,)), *others()], ROLES)
    ratios = {one.what: one.costs[0].value for one in claim.stages}
    assert ratios == {
        "scales, one step each": pytest.approx(1 / 1.3),
        "scales, 50 steps": pytest.approx(2.5),
        "one step, one scale": pytest.approx(50.0),
        "both": pytest.approx(50 / 1.3),
    }
    alone = examine([student(), *teachers((50,)), others()[1]], ROLES)
    assert [one.what for one in alone.stages] == ["scales, 50 steps", "both"]


def test_rows_compare_on_the_noise_seeds_that_both_have() -> None:
    """The student's further seeds are 1 and 2 worse in LPIPS; a teacher of 50 steps has the first alone."""
    three = student(seeds=3)
    assert three.measured.value("lpips") - student().measured.value("lpips") == pytest.approx(1.0)
    rows = [three, *teachers((50,)), made("control", 0.004, seeds=3), made("direct", 0.5, seeds=3)]
    claim = examine(rows, ROLES)
    assert answer(claim, 1) == literal(student())
    control = next(one for one in claim.stages if one.what == "scales, one step each").differences[0]
    assert control.value == pytest.approx(0.001)


def test_the_run_with_most_noise_seeds_is_taken() -> None:
    rows = [student(), replace(student(seeds=3), label="run-b:student"), *teachers((50,)), *others()]
    assert examine(rows, ROLES).rows[0].label == "run-b:student"


def test_a_label_goes_before_a_decoder_of_that_name() -> None:
    """A student of its own weights beside the control that ships: `onestep@checkpoint=FILE` and `onestep`."""
    own = student()
    own = replace(own, result=replace(own.result, label="student@checkpoint=file", decoder="control"))
    claim = examine([own, *teachers((50,)), *others()], replace(ROLES, student="student@checkpoint=file"))
    assert [one.decoder for one in claim.stages][:2] == ["student", "multi@steps=50"]
    assert claim.stages[0].baseline == "control"


def test_other_pixels_and_other_rates_are_told() -> None:
    assert examine([student(), *teachers((50,)), *others()], ROLES).warnings == ()
    rows = [replace(row, result=replace(row.result, rate=Rate(8.0, 1.0, "files"))) for row in (student(), *others())]
    other = made("full", steps=50)
    its_basis, rate = replace(other.basis, reference_sha256="other"), Rate(12.0, 1.5, "files")
    claim = examine([*rows, replace(other, basis=its_basis, result=replace(other.result, rate=rate))], ROLES)
    assert [line.partition(": ")[2] for line in claim.warnings] == [
        "same files, other pixels than student (another image library version?)",
        "not of one rate",
    ]
    assert claim.warnings[1].startswith("full@steps=50 has 1.5× the bits of student")
    assert {*(f"{line}." for line in claim.warnings)} < {*claim_tables(claim)[0].notes}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [student(), *others()],
            "a claim needs student, direct and one of full, multi; the runs hold student, control, direct",
        ),
        ([student(), *teachers(), made("control")], "a claim needs"),
        ([*teachers(), *others()], "a claim needs"),
        ([student(), student(weights_sha256="0" * 64), *teachers(), *others()], "student stands for student, student"),
        (
            [student(protocol=replace(PROTOCOL, resolution=128)), *teachers(), *others()],
            "do not compare: protocol field resolution",
        ),
    ],
)
def test_what_is_missing_or_does_not_compare_is_refused(rows: list[Row], words: str) -> None:
    with pytest.raises(MsbenchError, match=words):
        examine(rows, ROLES)


def test_a_run_without_features_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    bare = make_run(tmp_path / "bare", {"s": 0.0}, features=False)
    with pytest.raises(MsbenchError, match="keeps no features of s"):
        claim_rows([(bare, "s")])
    with pytest.raises(MsbenchError, match=r"unknown decoder of .* 'x'"):
        claim_rows([(bare, "x")])
    single = make_run(tmp_path / "single", {"s": 0.0}, n=1)
    with pytest.raises(MsbenchError, match="keeps no more than one image of s"):
        claim_rows([(single, "s")])


# Times of `msbench speed`


def speed(folder: Path, *timed: tuple[str, int, list[float]], scope: str = "decode", **changes: Any) -> Path:
    """A run of `msbench speed`: (decoder, steps, ms of each call) each, on 1 core half as fast as on all of them."""
    cells, calls = [], []
    for decoder, steps, times in timed:
        for batch, cores in itertools.product((1, "max"), (1, "all")):
            usual = {"resolution": 256, "mode": "eager", "batch": batch, "dtype": "fp32", "cores": cores}
            row = SpeedRow(
                **{
                    **usual,
                    "decoder": f"the {decoder}",
                    "scope": scope,
                    "status": "ok",
                    "steps": steps,
                    "parameters": 1,
                    **changes,
                }
            )
            cells.append(row)
            setting = str(row.batch), row.mode, row.dtype, row.scope, row.resolution, str(row.cores)
            slower = 2.0 if cores == 1 else 1.0
            calls += [(row.decoder, *setting, 0, False, slower * one) for one in times]
            calls += [(f"{row.decoder} (again)", *setting, 0, False, 7.0), (row.decoder, *setting, 0, True, 9.0)]
    contestants = [DecoderRequest(f"the {decoder}", decoder) for decoder, _, _ in timed]
    results = Results(cells=cells, samples=calls)
    write_speed(folder, document(contestants, "cpu", SpeedProtocol(), results, Start()), calls)
    return folder


TIMED = ("full", 50, [80.0, 81.0, 79.0]), ("student", 3, [2.0, 2.1, 1.9])


def timed_pair(folder: Path) -> Pair:
    rows = with_speed([student(), *teachers((50,)), *others()], folder)
    return answer(examine(rows, ROLES), 1).pairs[1]


def test_times_of_a_speed_run_go_before_those_of_the_runs(tmp_path: Path) -> None:
    folder = speed(tmp_path / "speed", *TIMED)
    gflops, time = timed_pair(folder).costs
    assert (gflops.quantity, time.quantity) == ("GFLOPs", "time, batch 1")
    assert time.value == pytest.approx(40.0)  # on all cores; the runs themselves say 50
    assert time.ci is not None
    assert time.ci[0] < 40.0 < time.ci[1]
    rows = with_speed([student(), *teachers((50,)), *others()], folder)
    assert answer(examine(rows, ROLES), 1).pairs[0].notes == ("times of student or multi@steps=50 were not measured",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"disturbed": True}, "other work disturbed"),
        ({"resolution": 128}, "not measured"),
        ({"dtype": "bf16"}, "not measured"),
        ({"parameters": 2}, "not measured"),
        ({"scope": "end-to-end"}, "not measured"),
        ({"status": "out_of_memory"}, "not measured"),
    ],
)
def test_disturbed_times_and_those_of_other_settings_say_nothing(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    found = timed_pair(speed(tmp_path / "speed", *TIMED, **changes))
    assert [cost.quantity for cost in found.costs] == ["GFLOPs"]
    assert words in found.notes[0]


def test_a_folder_without_a_speed_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MsbenchError, match=r"--speed-dir .*nothing holds no run of `msbench speed`"):
        with_speed([student()], tmp_path / "nothing")


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"contestants": [], "cells": [{}]}'])
def test_a_damaged_speed_run_is_refused(tmp_path: Path, text: str) -> None:
    folder = speed(tmp_path / "speed", *TIMED)
    (folder / "speed.json").write_text(text)
    with pytest.raises(MsbenchError, match=r"--speed-dir .*speed holds no run of `msbench speed`"):
        with_speed([student()], folder)
