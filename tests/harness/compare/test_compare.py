"""Comparisons of made-up runs whose differences are known: baselines, verdicts, margins, clusters, seeds, cost, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.compare.compare import compare
from harness.compare.comparison import Compared, Comparison
from harness.errors import MsbenchError, UnknownNameError
from harness.metrics.registry import EXTRA, METRICS
from harness.record.measured import read_measured
from harness.record.run import open_run
from harness.stats.rfid import rfid_value
from tests.harness.conftest import PROTOCOL, MakeRun

USUAL = set(METRICS) - set(EXTRA)


def found(comparison: Comparison, metric: str, decoder: str) -> Compared:
    (one,) = [one for one in comparison.comparisons if (one.metric, one.decoder) == (metric, decoder)]
    return one


def test_known_shifts_are_found_and_nothing_else(tmp_path: Path, make_run: MakeRun) -> None:
    comparison = compare([(make_run(tmp_path / "a", {"vae": 0.0, "worse": 0.1, "same": 0.0}), None)])
    lpips = found(comparison, "lpips", "worse")
    assert (lpips.baseline, lpips.verdict, lpips.n) == ("vae", "worse", 60)
    assert lpips.ci[0] < 0.1 < lpips.ci[1]
    assert lpips.diff == pytest.approx(lpips.value - lpips.baseline_value)
    assert found(comparison, "psnr", "worse").verdict == "better"
    assert found(comparison, "lpips", "same").difference == "no difference shown"
    assert {one.metric for one in comparison.comparisons} == USUAL


def test_rfid_difference_is_that_of_the_features(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a", {"vae": 0.0, "other": 0.6})
    one = found(compare([(run, None)]), "rfid", "other")
    pairs = {name: open_run(run).features(name) for name in ("vae", "other")}
    values = {name: rfid_value(pair[0], pair[1][0]) for name, pair in pairs.items() if pair}
    assert one.diff == pytest.approx(values["other"] - values["vae"])
    assert one.verdict == "worse"


def test_a_run_against_itself_is_never_better_or_worse(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a", {"vae": 0.0, "other": 0.5})
    comparison = compare([(run, None), (run, None)])
    assert len(comparison.comparisons) == 2 * len(USUAL)
    for one in comparison.comparisons:
        assert one.decoder == one.baseline + "#2"
        assert one.difference == "no difference shown"
        assert one.diff == 0.0


def test_a_label_says_how_many_steps_were_asked_for(tmp_path: Path, make_run: MakeRun) -> None:
    runs = []
    for steps, shift in ((4, 0.0), (10, 0.1), (None, 0.2)):
        run = make_run(tmp_path / f"steps-{steps}", {"diffusion": shift})
        asked = tuple(replace(row, options={"steps": steps} if steps else {}) for row in run.data.results)
        runs.append((replace(run, data=replace(run.data, results=asked)), None))
    comparison = compare(runs, baseline="diffusion@steps=10")
    labels = [row["label"] for row in comparison.table_rows()]
    assert labels == ["diffusion@steps=4", "diffusion@steps=10", "diffusion"]
    assert {one.decoder for one in comparison.comparisons} == {"diffusion@steps=4", "diffusion"}
    assert found(comparison, "lpips", "diffusion").difference == "worse"


def test_images_are_paired_by_key_not_by_order(tmp_path: Path, make_run: MakeRun) -> None:
    runs = [make_run(tmp_path / "a", {"vae": 0.0}), make_run(tmp_path / "b", {"vae": 0.0}, order=-1)]
    comparison = compare([(run, None) for run in runs])
    for one in comparison.comparisons:
        assert one.diff == pytest.approx(0.0, abs=1e-9), one.metric
    assert found(comparison, "lpips", "b:vae").p_holm == 1.0


def test_baseline_may_be_named(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a", {"vae": 0.0, "mid": 0.1, "far": 0.2})
    comparison = compare([(run, None)], baseline="far")
    assert {one.baseline for one in comparison.comparisons} == {"far"}
    assert found(comparison, "lpips", "vae").verdict == "better"
    with pytest.raises(UnknownNameError, match="Did you mean 'far'"):
        compare([(run, None)], baseline="fra")


def test_later_runs_are_held_against_their_namesake_or_the_first_row(tmp_path: Path, make_run: MakeRun) -> None:
    first = make_run(tmp_path / "a", {"vae": 0.0, "other": 0.1})
    second = make_run(tmp_path / "b", {"other": 0.1, "new": 0.3}, seed=9)
    pairs = {(one.decoder, one.baseline) for one in compare([(first, None), (second, None)]).comparisons}
    assert pairs == {("b:other", "a:other"), ("new", "vae")}


def test_margins_come_from_the_protocol_or_are_marked(tmp_path: Path, make_run: MakeRun) -> None:
    stated = replace(PROTOCOL, margins="lpips=0.2")
    run = make_run(tmp_path / "a", {"vae": 0.0, "near": 0.05}, protocol=stated)
    one = found(compare([(run, None)]), "lpips", "near")
    assert (one.verdict, one.difference, one.margin) == ("non-inferior within the margin", "worse", 0.2)
    assert not compare([(run, None)], margins="lpips=0.2").margins_after
    after = compare([(run, None)], margins="lpips=0.01,ssim=3%")
    assert after.margins_after
    assert any("after the runs" in warning for warning in after.warnings)
    assert found(after, "lpips", "near").verdict == "worse"
    ssim = found(after, "ssim", "near")
    assert ssim.margin == pytest.approx(0.03 * ssim.baseline_value)
    with pytest.raises(UnknownNameError, match="lpips"):
        compare([(run, None)], margins="lpisp=1")


def test_margins_differ_so_do_protocols(tmp_path: Path, make_run: MakeRun) -> None:
    first = make_run(tmp_path / "a", {"vae": 0.0})
    second = make_run(tmp_path / "b", {"vae": 0.0}, protocol=replace(PROTOCOL, margins="lpips=0.5"))
    with pytest.raises(MsbenchError, match="protocol field margins"):
        compare([(first, None), (second, None)])


def test_a_margin_needs_evidence(tmp_path: Path, make_run: MakeRun) -> None:
    stated = replace(PROTOCOL, margins="lpips=0.001")
    run = make_run(tmp_path / "a", {"vae": 0.0, "same": 0.0}, protocol=stated, noise=0.3)
    one = found(compare([(run, None)]), "lpips", "same")
    assert (one.verdict, one.non_inferior) == ("no difference shown", False)


def test_photographs_are_the_units(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a", {"vae": 0.0, "other": 0.1}, photographs=20)
    one = found(compare([(run, None)]), "lpips", "other")
    assert (one.n, one.units) == (60, 20)
    assert "20 independent photographs" in one.note


def test_holm_counts_every_comparison(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a", {"vae": 0.0, "slight": 0.025})
    many = make_run(tmp_path / "b", {"vae": 0.0, "slight": 0.025, **{f"same-{i}": 0.0 for i in range(8)}})
    few_p, many_p = (found(compare([(one, None)]), "ssim", "slight").p_holm for one in (run, many))
    assert many_p > few_p


def test_latents_of_other_encoders_do_not_compare(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a", {"vae": 0.0, "other": 0.1}, spec={"other": {"encoder_sha256": "f"}})
    assert "latent_error" not in {one.metric for one in compare([(run, None)]).comparisons}


def test_forced_comparisons_test_nothing(tmp_path: Path, make_run: MakeRun) -> None:
    first = make_run(tmp_path / "a", {"vae": 0.0})
    second = make_run(tmp_path / "b", {"vae": 0.3}, protocol=replace(PROTOCOL, resolution=64))
    comparison = compare([(first, None), (second, None)], force=True)
    assert comparison.comparisons == ()
    assert any("nothing is tested" in warning for warning in comparison.warnings)
    assert [row["label"] for row in comparison.table_rows()] == ["a:vae [forced]", "b:vae [forced]"]


def test_runs_without_features_still_compare_per_image(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a", {"vae": 0.0, "other": 0.1}, features=False)
    comparison = compare([(run, None)])
    assert {one.metric for one in comparison.comparisons} == USUAL - {"rfid", "kid"}
    assert any("Inception features" in warning for warning in comparison.warnings)


def test_cost_ratios_have_intervals_on_one_machine_only(tmp_path: Path, make_run: MakeRun) -> None:
    calls = {"vae": [30.0, 31.0, 29.0] * 5, "fast": [10.0, 10.1, 9.9] * 5}
    run = make_run(tmp_path / "a", {"vae": 0.0, "fast": 0.0}, calls=calls)
    ratios = {one.quantity: one for one in compare([(run, None)]).costs}
    assert ratios["GFLOPs"].value == 1.0
    time = ratios["time, batch 1"]
    assert time.value == 3.0
    assert time.ci is not None
    assert 2.8 < time.ci[0] <= 3.0 <= time.ci[1] < 3.2
    other = make_run(tmp_path / "b", {"fast": 0.0}, calls=calls)
    other = replace(other, data=replace(other.data, environment={**other.data.environment, "torch_threads": 8}))
    refused = compare([(run, "vae"), (other, None)])
    assert [one.quantity for one in refused.costs] == ["GFLOPs"]
    assert any("threads 2 against 8" in warning for warning in refused.warnings)


def test_training_seeds_are_grouped(tmp_path: Path, make_run: MakeRun) -> None:
    shifts = {0: 0.10, 1: 0.14, 2: 0.18}
    runs = [make_run(tmp_path / "base", {"vae": 0.0})]
    for seed, shift in shifts.items():
        spec = {"student": {"training_seed": seed, "recipe_sha256": "r"}}
        runs.append(make_run(tmp_path / f"seed{seed}", {"student": shift}, spec=spec, noise=0.0, seed=seed))
    comparison = compare([(run, None) for run in runs])
    (spread,) = [one for one in comparison.seeds if one.metric == "lpips"]
    assert spread.seeds == (0, 1, 2)
    assert spread.deviation == pytest.approx(0.04)
    assert spread.mean == pytest.approx(np.mean(spread.values))
    group = found(comparison, "lpips", "student (mean of 3 training seeds)")
    members = [found(comparison, "lpips", f"seed{seed}:student").diff for seed in shifts]
    assert group.diff == pytest.approx(np.mean(members))


def test_other_recipes_are_not_grouped(tmp_path: Path, make_run: MakeRun) -> None:
    specs = [
        {"student": {"training_seed": seed, "recipe_sha256": recipe}} for seed, recipe in ((0, "r"), (1, "other"), (0, "r"))
    ]
    runs = [make_run(tmp_path / str(index), {"student": 0.1}, spec=spec) for index, spec in enumerate(specs)]
    assert compare([(run, None) for run in runs]).seeds == ()


@pytest.mark.parametrize(
    ("field", "other"), [("resolution", {"protocol": replace(PROTOCOL, resolution=128)}), ("source files", {"source": "t"})]
)
def test_other_protocols_and_sources_are_refused(tmp_path: Path, make_run: MakeRun, field: str, other: dict[str, Any]) -> None:
    runs = [make_run(tmp_path / "a", {"vae": 0.0}), make_run(tmp_path / "b", {"vae": 0.0}, **other)]
    with pytest.raises(MsbenchError, match=field):
        compare([(run, None) for run in runs])


def test_rows_are_gathered_in_order_and_other_pixels_warned_of(tmp_path: Path, make_run: MakeRun) -> None:
    first, second = make_run(tmp_path / "a", {"vae": 0.0, "jpeg": 0.1}), make_run(tmp_path / "b", {"jpeg": 0.1})
    second = replace(second, data=replace(second.data, dataset=replace(second.data.dataset, reference_sha256="other")))
    comparison = compare([(first, None), (second, "jpeg")])
    assert [row["decoder"] for row in comparison.results] == ["vae", "jpeg", "jpeg"]
    assert [row["label"] for row in comparison.results] == ["vae", "a:jpeg", "b:jpeg"]
    assert any("other pixels" in warning for warning in comparison.warnings)
    with pytest.raises(UnknownNameError, match="'jpeg'"):
        compare([(first, "jpg")])
    with pytest.raises(MsbenchError, match="nothing to compare"):
        compare([])


def test_a_value_is_that_of_its_estimate(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a", {"vae": 0.1}, photographs=20)
    measured = read_measured(open_run(run), "vae", "vae")
    for metric in USUAL:
        assert measured.value(metric) == pytest.approx(measured.estimate(metric).value, rel=1e-12), metric


def test_the_first_run_is_told_by_its_place_not_by_its_folder(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a", {"vae": 0.0, "other": 0.1})
    comparison = compare([(run, "vae"), (run, "other")])
    assert {(one.decoder, one.baseline) for one in comparison.comparisons} == {("other", "vae")}
