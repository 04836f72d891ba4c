"""The regression gate: what passes, what trips, what is only said, and what is refused."""

from __future__ import annotations

import contextlib
import csv
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli.gate import apply_gate, gate_document, report_lines
from harness.compare import reference as gate_reference
from harness.compare.gate import DEFAULT_TOLERANCE, TOLERANCES, Tolerance, check, gated_figures, make_reference
from harness.compare.reference import read_reference, write_reference
from harness.errors import MsbenchError
from harness.metrics.registry import METRICS
from harness.record.record import Record, as_row
from tests.harness.compare.gate_rows import FIGURES, GOOD, PROTOCOL, SIMPLE, record, reference, row

SENSITIVITY = Path(__file__).resolve().parents[3] / "results" / "regression" / "sensitivity.csv"


def gate(against: str, *records: Record, fail: bool = True, update: bool = False) -> tuple[int, str]:
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        code = apply_gate(records, None, against, fail, update)
    return code, stream.getvalue()


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
    assert set(gated_figures(as_row(slow))) == {*FIGURES, "parameters"}


def test_a_run_without_cost_is_held_to_no_flops() -> None:
    report = check([record(row(gflops=None))], reference(row(gflops=4.0)))
    assert report.passed
    assert report.checked == len(FIGURES) + 1


@pytest.mark.parametrize("lost", [None, math.nan, "absent"])
def test_a_lost_number_is_a_regression(lost: Any) -> None:
    broken = row(kid=lost)
    if lost == "absent":
        broken = replace(broken, metrics={name: value for name, value in broken.metrics.items() if name != "kid"})
    (deviation,) = check([record(broken)], reference()).regressions
    assert deviation.line() == "vae kid: expected 3.00, got no number"


def test_exact_images_have_an_infinite_psnr() -> None:
    exact = record(row(psnr=None), exact=2)
    made = make_reference([exact], SIMPLE)
    assert made.of("vae")["psnr"].value == math.inf
    assert check([exact], made).passed
    assert not check([record()], made).passed
    assert [d.expected.metric for d in check([exact], reference()).improvements] == ["psnr"]


def test_a_line_says_all_there_is_to_say() -> None:
    tolerance = {"lpips": Tolerance(0.0005, 0.0, "10 x something")}
    made = make_reference([record(row("ms-onestep", lpips=0.45617))], tolerance)
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
    with pytest.raises(MsbenchError, match="none of the run's decoders"):
        check([record(row("direct"))], reference())


def test_other_weights_and_other_pixels_are_remarks() -> None:
    report = check([record(weights="x", pixels="q")], reference())
    assert report.passed
    assert [("weights" in line, "pixels" in line) for line in report.remarks] == [(False, True), (True, False)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"protocol": replace(PROTOCOL, lpips="vgg", noise_seed=3)}, ["lpips: 'vgg' against 'alex", "noise_seed: 3 against 0"]),
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


def test_a_metric_without_a_measured_floor_is_gated_all_the_same() -> None:
    made = make_reference([record()], {})
    assert made.of("vae")["rfid"].tolerance == pytest.approx(0.2)
    assert made.of("vae")["rfid"].tolerance_from == DEFAULT_TOLERANCE.source


def test_every_metric_has_a_tolerance() -> None:
    assert [name for name, info in METRICS.items() if not info.extra and name not in TOLERANCES] == []


def one_digit_up(value: float) -> float:
    if value == 0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(value))
    return math.ceil(value / unit - 1e-9) * unit


@pytest.mark.skipif(not SENSITIVITY.is_file(), reason="no sensitivity study in results/regression")
@pytest.mark.parametrize("metric", FIGURES)
def test_tolerances_are_ten_times_the_measured_floor(metric: str) -> None:
    tolerance = TOLERANCES[metric]
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


def test_command_line_says_what_it_found(regression_folder: Path) -> None:
    write_reference(regression_folder / "r.csv", reference())
    worse, better = record(row(lpips=5.0, psnr=10.0)), record(row(lpips=1.0))
    assert gate("r", record()) == (0, "gate passed: 8 figures against r, no regression\n")
    code, text = gate("r", worse)
    assert code == 1
    assert [line.split(":")[0] for line in text.splitlines()] == ["regression", "regression", "gate failed"]
    assert gate("r", worse, fail=False)[0] == 0
    code, text = gate("r", better)
    assert code == 0
    assert "better than the reference: vae lpips: expected 4.00, got 1.00, better by 3.00" in text


def test_update_creates_replaces_and_keeps(regression_folder: Path) -> None:
    code, text = gate("new", record(), record(row("jpeg"), folder="b"), update=True)
    assert (code, "wrote" in text) == (0, True)
    assert read_reference("new").decoders == ("vae", "jpeg")
    moved = record(row("jpeg", lpips=4.5), row("direct"))
    code, text = gate("new", moved, update=True)
    assert "jpeg lpips: 4.0000" in text
    assert "worse by 0.5" in text
    assert "direct: new, 8 figures" in text
    assert read_reference("new").decoders == ("vae", "jpeg", "direct")
    assert read_reference("new").of("jpeg")["lpips"].value == 4.5
    assert read_reference("new").of("vae")["lpips"].value == 4.0


def test_update_never_mixes_protocols(regression_folder: Path, tmp_path: Path) -> None:
    gate("r", record(row(), row("jpeg")), update=True)
    before = (regression_folder / "r.csv").read_bytes()
    other = replace(PROTOCOL, noise_seed=1)
    with pytest.raises(MsbenchError, match="also holds jpeg"):
        gate("r", record(protocol=other), update=True)
    assert (regression_folder / "r.csv").read_bytes() == before
    _, text = gate("r", record(row(), row("jpeg"), protocol=other), update=True)
    assert f"protocol: {PROTOCOL.hash()} -> {other.hash()}" in text
    assert read_reference("r").protocol["noise_seed"] == 1
    path = tmp_path / "elsewhere" / "mine.csv"
    assert gate(str(path), record(), update=True)[0] == 0
    assert gate(str(path), record())[0] == 0


def test_a_new_name_needs_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_reference, "checkout_folder", lambda: None)
    with pytest.raises(MsbenchError, match=r"give a path such as \./r\.csv"):
        gate("r", record(), update=True)


def test_document_is_the_report() -> None:
    report = check([record(row(lpips=5.0, kid=None))], reference())
    document = gate_document(report)
    assert document["passed"] is False
    assert {entry["metric"]: entry["got"] for entry in document["regressions"]} == {"lpips": 5.0, "kid": None}
    assert document["regressions"][1]["worse_by"] == pytest.approx(1.0)
    assert report_lines(report)[-1] == "gate failed: 8 figures against simple, 2 regressions"


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
    path = tmp_path / "ms-onestep.csv"
    write_reference(path, make_reference([measure(tmp_path / "first")]))
    made = read_reference(str(path))
    again, other = measure(tmp_path / "again"), measure(tmp_path / "other", batch_size=3, threads=1)
    assert [line for run in (again, other) for line in report_lines(check([run], made))[:-1]] == []
    harmed = measure(tmp_path / "harmed", checkpoint=harm(tmp_path / "harmed.safetensors", 1.0, seed=0))
    report = check([harmed], made)
    assert not report.passed
    assert report.remarks == (f"ms-onestep: other weights than {path}'s",)
