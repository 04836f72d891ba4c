"""The regression gate: what passes, what trips, what is only said, and what is refused."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.compare import reference as gate_reference
from harness.compare.gate import DEFAULT_TOLERANCE, check, gated_figures, make_reference, tolerance_of, update_reference
from harness.compare.reference import read_reference
from harness.errors import MsbenchError
from harness.metrics.metric import Tolerance
from harness.metrics.registry import METRICS
from harness.record.record import Record
from tests.harness.compare.gate_rows import FIGURES, GOOD, PROTOCOL, SIMPLE, record, reference, row, within
from tests.harness.conftest import MakeRun

SENSITIVITY = Path(__file__).resolve().parents[3] / "results" / "regression" / "sensitivity.csv"


def test_the_same_run_passes() -> None:
    report = check([record()], reference())
    assert report.passed
    assert report.checked == len(FIGURES) + 1
    assert (report.regressions, report.improvements, report.missing, report.remarks) == ((), (), (), ())


@pytest.mark.parametrize("metric", FIGURES)
@pytest.mark.parametrize(("by", "found"), [(0.5, None), (0.51, "better"), (-0.5, None), (-0.51, "worse")])
def test_direction_and_tolerance_of_every_metric(metric: str, by: float, found: str | None) -> None:
    report = check([record(row(**{metric: FIGURES[metric] + by * GOOD[metric]}))], reference())
    assert [d.expected.metric for d in report.regressions] == ([metric] if found == "worse" else [])
    assert [d.expected.metric for d in report.improvements] == ([metric] if found == "better" else [])


@pytest.mark.parametrize(("changed", "metric"), [({"parameters": 1001}, "parameters"), ({"gflops": 1.0 + 1e-8}, "gflops")])
def test_counts_are_exact(changed: dict[str, Any], metric: str) -> None:
    made = make_reference([record(row(gflops=1.0))])
    assert check([record(row(gflops=1.0 + 1e-10))], made).passed
    assert [d.expected.metric for d in check([record(row(**{"gflops": 1.0, **changed}))], made).regressions] == [metric]


def test_times_are_not_gated() -> None:
    slow = row(ms_per_image={"1": 500.0}, peak_memory_mb=1e6)
    assert check([record(slow)], reference()).passed
    assert set(gated_figures(record(slow), slow)) == {*FIGURES, "parameters"}


def test_a_disturbed_row_changes_no_verdict() -> None:
    """Neither as the run nor as what the reference was made of; a real loss trips as ever."""
    busy = row(ms_per_image={"1": 9e9}, peak_memory_mb=1e9, disturbed=True)
    assert check([record(busy)], reference()).document() == check([record()], reference()).document()
    assert make_reference([record(busy)]).figures == make_reference([record()]).figures
    worse = {"psnr": FIGURES["psnr"] - 0.51 * GOOD["psnr"]}
    assert not check([record(row(disturbed=True, **worse))], reference()).passed


def test_a_run_without_cost_is_held_to_no_flops() -> None:
    report = check([record(row(gflops=None))], reference(row(gflops=4.0)))
    assert report.passed
    assert report.checked == len(FIGURES) + 1


@pytest.mark.parametrize("lost", [None, "absent"])
def test_a_lost_number_is_a_regression(lost: Any) -> None:
    broken = row(kid=lost)
    if lost == "absent":
        broken = replace(broken, metrics={name: value for name, value in broken.metrics.items() if name != "kid"})
    (deviation,) = check([record(broken)], reference()).regressions
    assert deviation.line() == "vae kid: expected 3.00, got no number"


def test_exact_images_have_an_infinite_psnr() -> None:
    exact = record(row(psnr=None), exact=2)
    made = within(make_reference([exact]), SIMPLE)
    assert made.of("vae")["psnr"].value == math.inf
    assert check([exact], made).passed
    assert not check([record()], made).passed
    assert [d.expected.metric for d in check([exact], reference()).improvements] == ["psnr"]


def test_a_line_says_all_there_is_to_say() -> None:
    tolerance = {"lpips": Tolerance(0.0005, 0.0, "10 x something")}
    made = within(make_reference([record(row("ms-onestep", lpips=0.45617))]), tolerance)
    (deviation,) = check([record(row("ms-onestep", lpips=0.47308))], made).regressions
    assert deviation.line() == (
        "ms-onestep lpips: expected 0.45617, got 0.47308, worse by 0.01691; tolerance 0.00050 (10 x something)"
    )


def test_what_only_one_side_has_is_said() -> None:
    made = reference(row(), row("jpeg"))
    report = check([record(row(gflops=1.0), row("direct"))], made)
    assert report.passed
    assert report.missing == ("in the run, not in simple: vae gflops, direct", "in simple, not in the run: jpeg")


def test_nothing_in_common_does_not_pass() -> None:
    with pytest.raises(MsbenchError, match="none of the run's figures"):
        check([record(row("direct"))], reference())


def test_other_weights_and_other_pixels_are_remarks() -> None:
    report = check([record(weights="x", pixels="q")], reference())
    assert report.passed
    assert [("weights" in line, "pixels" in line) for line in report.remarks] == [(False, True), (True, False)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"protocol": replace(PROTOCOL, resolution=128, noise_seed=3)},
            ["resolution: 256 against 128", "noise_seed: 0 against 3"],
        ),
        ({"source": "t"}, ["source_sha256"]),
    ],
)
def test_another_protocol_or_source_is_refused(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(MsbenchError) as caught:
        check([record(**changes)], reference())
    assert [word for word in words if word not in str(caught.value)] == []
    with pytest.raises(MsbenchError, match=words[0]):
        make_reference([record(), record(row("jpeg"), **changes)])


def test_several_runs_and_one_decoder_of_a_run() -> None:
    first, second = record(row(), row("jpeg"), folder="a"), record(row("jpeg", lpips=9.0), folder="b")
    with pytest.raises(MsbenchError, match="jpeg is in both a and b"):
        check([first, second], reference())
    made = reference(row(), row("jpeg"))
    assert check([first, second], made, ["vae", None]).regressions[0].expected.decoder == "jpeg"
    assert check([first], made, ["jpeg"]).missing == ("in simple, not in the run: vae",)


def test_a_metric_without_a_measured_floor_is_gated_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "rfid", replace(METRICS["rfid"], tolerance=None))
    made = make_reference([record()])
    assert made.of("vae")["rfid"].tolerance == pytest.approx(0.2)
    assert made.of("vae")["rfid"].tolerance_from == DEFAULT_TOLERANCE.source


def test_every_metric_has_a_tolerance() -> None:
    assert [name for name, info in METRICS.items() if not info.extra and tolerance_of(name) == DEFAULT_TOLERANCE] == []


def one_digit_up(value: float) -> float:
    if value == 0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(value))
    return math.ceil(value / unit - 1e-9) * unit


@pytest.mark.skipif(not SENSITIVITY.is_file(), reason="no sensitivity study in results/regression")
@pytest.mark.parametrize("metric", FIGURES)
def test_tolerances_are_ten_times_the_measured_floor(metric: str) -> None:
    tolerance = tolerance_of(metric)
    with SENSITIVITY.open(newline="") as stream:
        rows = [r for r in csv.DictReader(stream) if r["metric"] == metric and r["change"] not in ("plain", "noise")]
    moved = {True: 0.0, False: 0.0}
    for r in rows:
        relative = bool(tolerance.relative and float(r["plain"]))
        difference = abs(float(r["worse_by"])) / (abs(float(r["plain"])) if relative else 1.0)
        moved[relative] = max(moved[relative], difference)
    assert tolerance.absolute == pytest.approx(one_digit_up(10 * moved[False]))
    assert tolerance.relative == pytest.approx(one_digit_up(10 * moved[True]))


def test_a_figure_of_zero_may_move_by_rounding_and_no_more() -> None:
    made = make_reference([record(row("identity", rfid=0.0))])
    assert check([record(row("identity", rfid=2e-9))], made).passed
    assert not check([record(row("identity", rfid=1e-6))], made).passed


def otherwise(run: Record, metric: str) -> Record:
    """The same run with another definition of a metric."""
    facts = {**run.data.metrics, metric: replace(run.data.metrics[metric], definition="computed otherwise")}
    return replace(run, data=replace(run.data, metrics=facts))


def test_a_metric_computed_otherwise_is_left_out_and_named(regression_folder: Path) -> None:
    report = check([otherwise(record(row(lpips=9.0)), "lpips")], reference())
    assert report.passed
    assert report.checked == len(FIGURES)
    (remark,) = report.remarks
    assert remark.startswith("lpips is left out: run computes 'computed otherwise'")
    with pytest.raises(MsbenchError, match="do not go into one reference: lpips is left out"):
        make_reference([record(), otherwise(record(row("jpeg")), "lpips")])
    update_reference([record(row(), row("jpeg"))], None, "r")
    with pytest.raises(MsbenchError, match="also holds jpeg"):
        update_reference([otherwise(record(), "lpips")], None, "r")


def test_lines_say_what_was_found() -> None:
    worse, better = record(row(lpips=5.0, psnr=10.0)), record(row(lpips=1.0))
    assert check([record()], reference()).lines() == ["gate passed: 8 figures against simple, no regression"]
    assert [line.split(":")[0] for line in check([worse], reference()).lines()] == ["regression", "regression", "gate failed"]
    first = check([better], reference()).lines()[0]
    assert first.startswith("better than the reference: vae lpips: expected 4.00, got 1.00, better by 3.00")


def test_the_command_writes_holds_and_fails(tmp_path: Path, make_run: MakeRun) -> None:
    run, worse = make_run(tmp_path / "a", {"vae": 0.0}), make_run(tmp_path / "b", {"vae": 0.5})
    path = str(tmp_path / "r.json")
    written = CliRunner().invoke(app, ["compare", str(run.folder), "--against", path, "--update", "--json"])
    assert (written.exit_code, json.loads(written.stdout)["status"]) == (0, "updated")
    arguments = ["--against", path, "--fail-on-regression", "--json"]
    held = CliRunner().invoke(app, ["compare", str(run.folder), *arguments])
    assert (held.exit_code, json.loads(held.stdout)["status"]) == (0, "passed")
    failed = CliRunner().invoke(app, ["compare", str(worse.folder), *arguments])
    assert (failed.exit_code, json.loads(failed.stdout)["status"]) == (1, "failed")
    assert "regression: vae lpips" in failed.stderr
    assert CliRunner().invoke(app, ["compare", str(worse.folder), "--against", path]).exit_code == 0
    (worse.folder / "samples.parquet").unlink()
    damaged = CliRunner().invoke(app, ["compare", str(worse.folder), *arguments])
    assert (damaged.exit_code, damaged.stdout) == (2, "")


def test_update_creates_replaces_and_keeps(regression_folder: Path) -> None:
    lines = update_reference([record(), record(row("jpeg"), folder="b")], None, "new")
    assert lines[-1].startswith("wrote")
    assert read_reference("new").decoders == ("vae", "jpeg")
    moved = record(row("jpeg", lpips=4.5), row("direct"), command="msbench run --decoder jpeg,direct")
    text = "\n".join(update_reference([moved], None, "new"))
    assert "jpeg lpips: expected 4.0" in text
    assert "worse by 0.5" in text
    assert "direct: new, 8 figures" in text
    made = read_reference("new")
    assert made.decoders == ("vae", "jpeg", "direct")
    assert (made.of("jpeg")["lpips"].value, made.of("vae")["lpips"].value) == (4.5, 4.0)
    assert made.commands["jpeg"] == made.commands["direct"] == "msbench run --decoder jpeg,direct"
    assert made.commands["vae"] == 'msbench run --decoder "a, b"'


def test_update_never_mixes_protocols(regression_folder: Path, tmp_path: Path) -> None:
    update_reference([record(row(), row("jpeg"))], None, "r")
    before = (regression_folder / "r.json").read_bytes()
    other = replace(PROTOCOL, noise_seed=1)
    with pytest.raises(MsbenchError, match="also holds jpeg"):
        update_reference([record(protocol=other)], None, "r")
    assert (regression_folder / "r.json").read_bytes() == before
    lines = update_reference([record(row(), row("jpeg"), protocol=other)], None, "r")
    assert f"protocol: {PROTOCOL.hash()} -> {other.hash()}" in lines
    assert read_reference("r").protocol["noise_seed"] == 1
    path = str(tmp_path / "elsewhere" / "mine.json")
    update_reference([record()], None, path)
    assert check([record()], read_reference(path)).passed


def test_a_new_name_needs_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_reference, "checkout_folder", lambda: None)
    with pytest.raises(MsbenchError, match=r"give a path, \./r\.json"):
        update_reference([record()], None, "r")


def test_document_is_the_report() -> None:
    report = check([record(row(lpips=5.0, kid=None))], reference())
    document = report.document()
    assert document["passed"] is False
    assert {entry["metric"]: entry["got"] for entry in document["regressions"]} == {"kid": None, "lpips": 5.0}
    assert {entry["metric"]: entry["worse_by"] for entry in document["regressions"]} == {"kid": math.inf, "lpips": 1.0}
    assert report.lines()[-1] == "gate failed: 8 figures against simple, 2 regressions"


def measure(folder: Path, batch_size: int = 8, threads: int = 2, checkpoint: Path | None = None) -> Record:
    """`ms-onestep` on the built-in photographs, for real."""
    import torch

    from harness.run.config import RunConfig
    from harness.run.runner import evaluate

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return evaluate(
            RunConfig(("ms-onestep",), batch_size=batch_size, checkpoint=checkpoint, output_dir=folder, cost=None, sheet_rows=0)
        )
    finally:
        torch.set_num_threads(before)


def harm(target: Path, percent: float, seed: int) -> Path:
    """The shipped `ms-onestep` with Gaussian noise of `percent` of each tensor's standard deviation."""
    import torch

    from decoders.checkpoint import load_denoiser, save_checkpoint, shipped_path

    module, manifest = load_denoiser(shipped_path("ms-onestep"))
    draw = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict().values():
        tensor.add_(torch.randn(tensor.shape, generator=draw), alpha=percent / 100 * float(tensor.std(correction=0)))
    save_checkpoint(target, module, manifest)
    return target


@pytest.mark.slow
def test_a_harmed_checkpoint_trips_and_another_way_to_run_does_not(tmp_path: Path) -> None:
    path = tmp_path / "ms-onestep.json"
    make_reference([measure(tmp_path / "first")]).write(path)
    made = read_reference(str(path))
    again, other = measure(tmp_path / "again"), measure(tmp_path / "other", batch_size=3, threads=1)
    assert [line for run in (again, other) for line in check([run], made).lines()[:-1]] == []
    harmed = measure(tmp_path / "harmed", checkpoint=harm(tmp_path / "harmed.safetensors", 1.0, seed=0))
    report = check([harmed], made)
    assert not report.passed
    assert report.remarks == (f"ms-onestep: other weights than {path}'s",)
