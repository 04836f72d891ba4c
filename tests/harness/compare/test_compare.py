"""Comparisons of made-up runs whose differences are known: baselines, verdicts, margins, clusters, seeds, cost, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.compare.claim import claim_rows
from harness.compare.compare import compare
from harness.compare.comparison import Compared, Comparison
from harness.compare.gate import update_reference
from harness.errors import MsbenchError, UnknownNameError
from harness.metrics.registry import EXTRA, METRICS
from harness.record.measured import read_measured
from harness.record.record import Record, read_record, write_record
from harness.record.run import FEATURES, open_run
from harness.record.schema import Rate
from harness.report.comparison import comparison_tables, with_differences
from harness.report.results import results_table
from harness.report.table import csv_text
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


def labelled(run: Record, names: dict[str, str]) -> Record:
    """The run with these labels as rows of other decoders."""
    return replace(
        run, data=replace(run.data, results=tuple(replace(row, decoder=names[row.label]) for row in run.data.results))
    )


def test_a_label_goes_before_the_name_of_a_decoder(tmp_path: Path, make_run: MakeRun) -> None:
    names = {"half": "vae", "vae": "vae", "ours:2": "jpeg"}
    runs = [labelled(make_run(tmp_path / place, {"half": 0.3, "vae": 0.0, "ours:2": 0.1}), names) for place in ("a", "b")]
    assert [row["label"] for row in compare([(runs[0], "vae")]).results] == ["vae"]
    assert [row["label"] for row in compare([(runs[0], "jpeg")]).results] == ["ours:2"]
    assert {one.baseline for one in compare([(runs[0], None)], baseline="vae").comparisons} == {"vae"}
    pairs = {(one.decoder, one.baseline) for one in compare([(one, None) for one in runs]).comparisons}
    assert pairs == {(f"b:{label}", f"a:{label}") for label in names}
    assert claim_rows([(runs[0], "vae")])[0].result.label == "vae"
    assert claim_rows([(runs[0], "half")])[0].result.label == "half"
    with pytest.raises(UnknownNameError, match=r"'vea'\. Did you mean 'vae'"):
        compare([(runs[0], "vea")])


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


def test_a_record_that_its_samples_contradict_is_told(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a", {"vae": 0.0, "other": 0.1})
    true = run.data.results[1].metrics["psnr"]
    assert not any("its samples give" in line for line in compare([(run, None)]).warnings)
    content(lambda data: data["results"][1].update(psnr=99.0, rfid=1e-3))(run.folder)
    for force in (False, True):
        told = [line for line in compare([(read_record(run.folder), None)], force).warnings if "its samples give" in line]
        told.sort()
        assert told[0] == f"other: the record says psnr 99, its samples give {true:.6g}: see `msbench verify {run.folder}`"
        assert told[1].startswith("other: the record says rfid 0.001, its samples give ")
    forced = make_run(tmp_path / "b", {"vae": 0.3}, protocol=replace(PROTOCOL, resolution=64))
    told = compare([(forced, None), (read_record(run.folder), None)], force=True).warnings
    assert sum("its samples give" in line for line in told) == 1
    assert CliRunner().invoke(app, ["compare", str(run.folder)]).exit_code == 0


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


def trained(make_run: MakeRun, folder: Path, seed: int, recipe: str, shift: float, **options: Any) -> Record:
    """A student of one training seed and recipe."""
    spec = {"student": {"training_seed": seed, "recipe_sha256": recipe}}
    run = make_run(folder, {"student": shift}, spec=spec, seed=seed)
    return replace(run, data=replace(run.data, results=(replace(run.data.results[0], options=options),)))


def test_groups_of_two_recipes_both_stay(tmp_path: Path, make_run: MakeRun) -> None:
    kinds = [("1" * 64, 0.1), ("2" * 64, 0.3)]
    runs = [trained(make_run, tmp_path / f"{recipe[0]}{s}", s, recipe, shift) for recipe, shift in kinds for s in (0, 1)]
    comparison = compare([(make_run(tmp_path / "base", {"vae": 0.0}), None), *((run, None) for run in runs)])
    labels = [f"student recipe {digit * 8} (mean of 2 training seeds)" for digit in "12"]
    diffs = [found(comparison, "lpips", label).diff for label in labels]
    assert diffs == pytest.approx([0.1, 0.3], abs=0.05)
    assert {one.decoder for one in comparison.seeds} == {"student recipe 11111111", "student recipe 22222222"}


def test_other_options_are_never_averaged_as_seeds(tmp_path: Path, make_run: MakeRun) -> None:
    """The checkpoint is what differs between seeds; steps are not."""
    four = [trained(make_run, tmp_path / f"four{s}", s, "r", 0.1, steps=4, checkpoint=f"{s}.safetensors") for s in (0, 1)]
    ten = [trained(make_run, tmp_path / f"ten{s}", s, "r", 0.3, steps=10) for s in (2, 3)]
    lone = trained(make_run, tmp_path / "lone", 4, "r", 0.5)
    comparison = compare([(run, None) for run in (make_run(tmp_path / "base", {"vae": 0.0}), *four, *ten, lone)])
    assert {one.decoder: one.seeds for one in comparison.seeds} == {"student@steps=4": (0, 1), "student@steps=10": (2, 3)}
    assert found(comparison, "lpips", "student@steps=4 (mean of 2 training seeds)").diff == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize("baseline", ["seed0:student", "student (mean of 2 training seeds)"])
def test_a_group_is_not_held_against_its_own_member(tmp_path: Path, make_run: MakeRun, baseline: str) -> None:
    runs = [trained(make_run, tmp_path / f"seed{seed}", seed, "r", 0.1) for seed in (0, 1)]
    runs.append(make_run(tmp_path / "base", {"vae": 0.0}))
    comparison = compare([(run, None) for run in runs], baseline=baseline)
    pairs = {(one.decoder, one.baseline) for one in comparison.comparisons}
    assert ("vae", baseline) in pairs
    assert not any("mean of" in decoder + base and "student" in decoder and "student" in base for decoder, base in pairs)
    assert any("one is part of the other" in warning for warning in comparison.warnings)


def test_better_is_never_called_inferior(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a", {"vae": 0.0, **{f"d{i}": -0.02 * i for i in range(6)}}, n=20)
    comparison = compare([(run, None)], margins="lpips=1e-6,ssim=1e-6,psnr=1e-6,rfid=0.001%")
    assert any(one.verdict == "better" for one in comparison.comparisons)
    assert not [one for one in comparison.comparisons if one.verdict == "better" and one.non_inferior is False]


def alter(folder: Path, change: Callable[[pd.DataFrame], object]) -> None:
    path = folder / "samples.parquet"
    samples = pd.read_parquet(path)
    changed = change(samples)
    (samples if changed is None else changed).to_parquet(path, index=False)


def test_an_exact_decoder_is_better_than_one_that_is_not(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a", {"vae": 0.0, "identity": 0.0})

    def exact(samples: pd.DataFrame) -> None:
        samples.loc[samples["decoder"] == "identity", "psnr"] = np.inf

    alter(run.folder, exact)
    details = {**run.data.decoders, "identity": replace(run.data.decoders["identity"], psnr_exact_images=60)}
    rows = tuple(replace(r, metrics={**r.metrics, "psnr": None}) if r.label == "identity" else r for r in run.data.results)
    run = write_record(run.folder, replace(run.data, results=rows, decoders=details))
    one = found(compare([(run, None)]), "psnr", "identity")
    assert (one.verdict, one.non_inferior, one.value, one.diff) == ("better", True, np.inf, np.inf)
    assert one.p_holm < 1e-6
    other = found(compare([(run, None)], baseline="identity"), "psnr", "vae")
    assert (other.verdict, other.difference) == ("worse", "worse")


def test_a_metric_computed_otherwise_is_left_out_and_named(tmp_path: Path, make_run: MakeRun) -> None:
    first, second = (make_run(tmp_path / name, {"vae": 0.0}) for name in "ab")
    facts = {**second.data.metrics, "lpips": replace(second.data.metrics["lpips"], definition="vgg")}
    del facts["ssim"]
    comparison = compare([(first, None), (replace(second, data=replace(second.data, metrics=facts)), None)])
    assert {one.metric for one in comparison.comparisons} == USUAL - {"lpips", "ssim"}
    assert any(line.startswith("lpips is left out: ") and "'vgg'" in line for line in comparison.warnings)
    assert any(line.startswith("ssim is left out: only one of") for line in comparison.warnings)


def test_disturbed_times_are_not_compared(tmp_path: Path, make_run: MakeRun) -> None:
    calls = {"vae": [30.0, 31.0, 29.0], "fast": [10.0, 10.1, 9.9]}
    run = make_run(tmp_path / "a", {"vae": 0.0, "fast": 0.0}, calls=calls)
    rows = tuple(replace(row, disturbed=row.label == "fast") for row in run.data.results)
    comparison = compare([(replace(run, data=replace(run.data, results=rows)), None)])
    assert [one.quantity for one in comparison.costs] == ["GFLOPs"]
    assert "times of fast and vae are not compared: other work disturbed fast" in comparison.warnings


@pytest.mark.parametrize(("device", "compared"), [("cpu", False), ("mps", False), ("cuda", True)])
def test_the_chip_tells_machines_apart(tmp_path: Path, make_run: MakeRun, device: str, compared: bool) -> None:
    """On mps there is no list of GPUs: the processor's name is the chip."""
    runs = []
    for chip in ("Apple M1", "Apple M4"):
        run = make_run(tmp_path / chip, {"vae": 0.0}, calls={"vae": [3.0, 3.1, 2.9]})
        setting, facts = replace(run.data.setting, device=device), {**run.data.environment, "cpu_model": chip}
        runs.append((replace(run, data=replace(run.data, setting=setting, environment=facts)), None))
    assert ("time, batch 1" in {one.quantity for one in compare(runs).costs}) == compared


def features(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        tensors = dict(load_file(folder / FEATURES))
        change(tensors)
        save_file(tensors, folder / FEATURES)

    return write


def samples(change: Callable[[pd.DataFrame], object]) -> Callable[[Path], object]:
    return lambda folder: alter(folder, change)


def content(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        data = json.loads((folder / "record.json").read_text())
        change(data)
        (folder / "record.json").write_text(json.dumps(data))

    return write


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "samples gone": (lambda folder: (folder / "samples.parquet").unlink(), "samples.parquet"),
    "samples cut": (lambda folder: (folder / "samples.parquet").write_bytes(b"PAR1"), "samples.parquet"),
    "no key column": (samples(lambda frame: frame.drop(columns="key")), "lacks the column key"),
    "no metric column": (samples(lambda frame: frame.drop(columns="lpips")), "lacks the column lpips"),
    "a metric's samples NaN": (samples(lambda frame: frame.assign(lpips=np.nan)), "lpips of vae has gaps"),
    "a metric's samples text": (samples(lambda frame: frame.assign(lpips="x")), "lpips holds no numbers"),
    "no rows": (samples(lambda frame: frame.iloc[:0]), "only in the record"),
    "rows missing": (samples(lambda frame: frame.iloc[:-3]), "other"),
    "a decoder missing": (samples(lambda frame: frame[frame["decoder"] == "vae"]), "other"),
    "features NaN": (features(lambda tensors: tensors["vae/0"].fill(np.nan)), "not finite"),
    "features short": (features(lambda tensors: tensors.update({"vae/0": tensors["vae/0"][:3]})), "vae/0"),
    "features of another name": (features(lambda tensors: tensors.update({"x/0": tensors.pop("vae/0")})), "vae/0"),
    "features no file of this kind": (lambda folder: (folder / FEATURES).write_bytes(b"no"), FEATURES),
    "results empty": (content(lambda data: data.update(results=[], decoders={})), "no results"),
    "no results": (content(lambda data: data.pop("results")), "results"),
    "no decoders": (content(lambda data: data.pop("decoders")), "decoders"),
    "no protocol": (content(lambda data: data.pop("protocol")), "protocol"),
    "a figure is text": (content(lambda data: data["results"][0].update(lpips="low")), "lpips"),
    "deep JSON": (lambda folder: (folder / "record.json").write_text("[" * 100_000), "record.json"),
    "NaN in JSON": (lambda folder: (folder / "record.json").write_text('{"schema_version": NaN}'), "record.json"),
}


SOME = ("samples cut", "a metric's samples NaN", "features short", "results empty", "no protocol")


@pytest.mark.parametrize(
    ("command", "name"),
    [("compare", name) for name in DAMAGE] + [(command, name) for command in ("verify", "claim", "gate") for name in SOME],
)
def test_a_damaged_run_is_one_line_and_exit_2(tmp_path: Path, make_run: MakeRun, command: str, name: str) -> None:
    damage, words = DAMAGE[name]
    run = make_run(tmp_path / "run", {"vae": 0.0, "other": 0.1}, n=6)
    reference, folder = str(tmp_path / "r.json"), str(run.folder)
    update_reference([run], None, reference)
    damage(run.folder)
    arguments = {
        "compare": ["compare", folder],
        "verify": ["verify", folder],
        "claim": ["claim", folder],
        "gate": ["compare", folder, "--against", reference],
    }[command]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_decoder_is_what_stands_after_the_last_colon(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run:a", {"vae": 0.0, "other": 0.1})
    done = CliRunner().invoke(app, ["compare", f"{run.folder}:vae", str(run.folder), "--json"])
    assert done.exit_code == 0, done.output
    assert [row["decoder"] for row in json.loads(done.stdout)["results"]] == ["vae", "vae", "other"]


def test_a_comparison_is_a_short_line_and_a_table(tmp_path: Path, make_run: MakeRun) -> None:
    comparison = compare([(make_run(tmp_path / "a", {"vae": 0.0, "jpeg": 0.1}), None)])
    frame = comparison.to_frame()
    assert repr(comparison).startswith("<Comparison of vae, jpeg: ")
    assert len(frame) == len(comparison.comparisons)
    assert frame.set_index(["metric", "decoder"]).loc[("psnr", "jpeg"), "diff"] == found(comparison, "psnr", "jpeg").diff


def test_rows_of_another_rate_are_marked_in_their_verdicts(tmp_path: Path, make_run: MakeRun) -> None:
    shifts, bits = {"vae": 0.0, "near": 0.1, "wide": 0.1, "unknown": 0.1}, {"vae": 1000.0, "near": 1009.0, "wide": 4000.0}
    run = make_run(tmp_path / "a", shifts, bits=bits)
    comparison = compare([(run, None)])
    ratios = {one.decoder: one.rate_ratio for one in comparison.comparisons}
    assert ratios == {"near": pytest.approx(1.009), "wide": 4.0, "unknown": None}
    assert [row["rate_ratio"] for row in comparison.results] == [1.0, pytest.approx(1.009), 4.0, None]
    lines = {
        row[1].parts()[0]: row[-1].parts()[0] for row in comparison_tables(comparison)[0].rows if "LPIPS" in row[0].parts()[0]
    }
    assert lines == {"near": "worse", "wide": "worse at 4× the bits", "unknown": "worse"}
    text = csv_text(with_differences(results_table(comparison.table_rows()), comparison))
    assert [("at 4× the bits" in line) for line in text.splitlines()[1:]] == [False, False, True, False]


def test_same_rate_leaves_rows_of_another_rate_out(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a", {"vae": 0.0, "near": 0.1, "wide": 0.1}, bits={"vae": 1000.0, "near": 991.0, "wide": 989.0})
    comparison = compare([(run, None)], same_rate=True)
    assert {row["label"] for row in comparison.results} == {"vae", "near"}
    assert {one.decoder for one in comparison.comparisons} == {"near"}
    assert {one.decoder for one in comparison.costs} == {"near"}
    assert "left out, of another rate than their baseline: wide" in comparison.warnings
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "a"), "--same-rate", "--json"])
    assert [row["label"] for row in json.loads(done.stdout)["results"]] == ["vae", "near"]


@pytest.mark.parametrize(("encoder", "ratio"), [("a" * 64, 1.0), ("b" * 64, 0.96)])
def test_runs_of_one_encoder_have_one_effective_rate(tmp_path: Path, make_run: MakeRun, encoder: str, ratio: float) -> None:
    """What the latents need was found with another decoder in each run: as within a run, the first one's counts."""
    runs: list[tuple[Record, str | None]] = []
    for name, its, effective in (("vae", "a" * 64, 500.0), ("student", encoder, 480.0)):
        run = make_run(tmp_path / name, {name: 0.0}, bits={name: 1000.0}, spec={name: {"encoder_sha256": its}})
        rate = Rate(1000.0, 1000.0 / 256**2, "nominal", effective_bits_per_image=effective)
        results = tuple(replace(row, rate=rate) for row in run.data.results)
        runs.append((replace(run, data=replace(run.data, results=results)), None))
    comparison = compare(runs)
    assert comparison.comparisons[0].rate_ratio == comparison.results[1]["rate_ratio"] == pytest.approx(ratio)


def test_a_row_s_rate_is_held_against_the_baseline_that_was_named(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a", {"vae": 0.0, "wide": 0.1}, bits={"vae": 1000.0, "wide": 4000.0})
    rows = compare([(run, None)], baseline="wide").results
    assert [(row["rate_ratio"], row["rate_baseline"]) for row in rows] == [(0.25, "wide"), (1.0, "wide")]


def test_records_without_a_rate_read(tmp_path: Path, make_run: MakeRun) -> None:
    make_run(tmp_path / "a", {"vae": 0.0, "other": 0.0})
    path = tmp_path / "a" / "record.json"
    content = json.loads(path.read_text())
    for row in content["results"]:
        del row["rate"]
        del content["decoders"][row["label"]]["spec"]["codebook_sizes"]
    path.write_text(json.dumps(content))
    comparison = compare([(read_record(path), None)])
    assert {one.rate_ratio for one in comparison.comparisons} == {None}
    assert "bits" not in csv_text(results_table(comparison.table_rows()))
