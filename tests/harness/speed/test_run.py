"""Whole runs with real processes: what is timed, and that nothing a decoder does ends the run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.cost.attempt import Outcome
from harness.cost.load import MOST_BUSY, Load, allowed_cpus, others_busy
from harness.errors import MsbenchError
from harness.interrupt import Terminated
from harness.request.requests import parse_requests
from harness.speed import run
from harness.speed.messages import Job, Prepared, TurnTimes
from harness.speed.protocol import Setting, SpeedProtocol
from harness.speed.run import AGAIN, SAMPLE_COLUMNS, SKIPPED, measure_speed
from harness.speed.turns import TimedCalls, Workers

pytestmark = pytest.mark.usefixtures("plug_ins")
QUICK = SpeedProtocol(batch_sizes=(1,), cores=(1,), cell_seconds=0.5, ceiling_seconds=0.0, wait_seconds=0.0)


def silent(stage: str, done: int, total: int) -> None:
    pass


def test_what_was_timed_before_sigterm_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(self: run._Run) -> None:
        self.results.ceilings.append({"kept": True})
        raise Terminated

    monkeypatch.setattr(run._Run, "go", ended)
    arguments = ["speed", "--decoder", "bicubic", "--output-dir", str(tmp_path / "run"), "--cores", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 75
    assert "told to end (SIGTERM); what was measured is kept in" in done.stderr
    assert json.loads((tmp_path / "run" / "speed.json").read_text())["ceilings"] == [{"kept": True}]


@pytest.mark.usefixtures("told_quiet")
def test_decoding_is_timed_and_encoding_is_not(tmp_path: Path) -> None:
    """Through the command: 50 ms in decode, 500 ms in encode; the second decoder runs out of memory and is recorded."""
    arguments = ["speed", "--decoder", "sleeper,hungry", "--cost-batch-sizes", "1,max", "--cores", "1", "--cost-seconds", "0.5"]
    arguments += ["--wait-seconds", "0", "--output-dir", str(tmp_path / "run"), "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)  # nothing a decoder prints gets in
    assert document == json.loads((tmp_path / "run" / "speed.json").read_text())
    cells = {(cell["decoder"], cell["batch"], cell["scope"]): cell for cell in document["cells"]}
    assert len(cells) == 8
    for scope in ("decode", "end-to-end"):
        cell = cells["sleeper", 1, scope]
        assert cell["status"] == "ok"
        assert 50.0 <= cell["median_ms"] <= 60.0
        assert 50.0 <= cell["p10_ms"] <= cell["median_ms"] <= cell["p90_ms"] <= cell["p99_ms"]
        assert 12.0 < cell["images_per_s"] <= 20.0
        assert cell["n_calls"] >= 3
        assert (cell["ratio_to_first"], cell["flop_ratio_to_first"], cell["gflops"]) == (1.0, None, None)
        # Imports alone take longer than the 500 ms of encoding that are taken off.
        assert cell["cold_ms"] > 50.0
        cell = cells["hungry", 1, scope]
        assert (cell["status"], cell["median_ms"]) == ("out of memory", None)
        assert "3 EiB" in cell["reason"]
        assert cells["sleeper", "max", scope]["status"] == "unsupported"
    assert (document["status"], document["cells_run"]) == ("complete", 4)
    assert document["disturbed"] is any(cell["disturbed"] for cell in document["cells"])
    assert {floor["decoder"] for floor in document["noise_floor"]} == {"sleeper"}
    assert all(0 <= floor["floor"] < 0.5 for floor in document["noise_floor"])
    assert [row["side_by_side"] for row in document["fastest"]] == [True, True]
    samples = pd.read_parquet(tmp_path / "run" / "samples.parquet")
    assert not samples["final"].any()
    assert set(samples["decoder"]) == {"sleeper", "sleeper" + AGAIN}
    mine = samples[(samples["decoder"] == "sleeper") & (samples["scope"] == "decode")]
    assert len(mine) == cells["sleeper", 1, "decode"]["n_calls"]
    assert mine["ms"].median() == pytest.approx(cells["sleeper", 1, "decode"]["median_ms"])


def test_memory_and_cold_start_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.Bench, "fresh", None)  # nobody may ask for it
    arguments = [
        "speed",
        "--decoder",
        "whole",
        "--cost-batch-sizes",
        "1",
        "--cores",
        "1",
        "--cost-seconds",
        "0.1",
        "--no-memory",
    ]
    done = CliRunner().invoke(app, [*arguments, "--output-dir", str(tmp_path / "run"), "--json"])
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["protocol"]["memory"] is False
    assert {(one["status"], one["peak_memory_mb"], one["cold_ms"]) for one in document["cells"]} == {("ok", None, None)}


@pytest.mark.slow
def test_no_decoder_ends_the_run() -> None:
    contestants = parse_requests(["dying", "broken", "sleeper"])
    results = measure_speed(contestants, "cpu", QUICK, silent)
    by_name = {cell.decoder: cell for cell in results.cells if cell.scope == "decode"}
    assert {name: cell.status for name, cell in by_name.items()} == {
        "dying": "failed",
        "broken": "failed",
        "sleeper": "ok",
    }
    assert "exit code 3" in str(by_name["dying"].reason)
    assert by_name["broken"].reason == "ValueError: no such luck"
    assert by_name["sleeper"].ratio_to_first is None
    assert [floor.floor for floor in results.noise_floor] == [None, None]


@pytest.mark.usefixtures("told_quiet")
def test_everybodys_fastest_is_timed_in_the_same_turns() -> None:
    contestants = parse_requests(["whole", "hungry", "half"])
    results = measure_speed(contestants, "cpu", replace(QUICK, dtypes=("fp32", "bf16")), silent)
    (table,) = results.fastest
    assert table.side_by_side
    decoding = [cell for cell in table.rows if cell.scope == "decode"]
    assert [(cell.decoder, cell.dtype) for cell in decoding] == [("whole", "fp32"), ("half", "bf16")]
    assert decoding[0].ratio_to_first == 1.0
    assert decoding[1].ratio_to_first == pytest.approx(3.0, rel=0.2)
    samples = pd.DataFrame(results.samples, columns=list(SAMPLE_COLUMNS))
    final = samples[samples["final"] & (samples["scope"] == "decode")]
    assert set(zip(final["decoder"], final["dtype"], strict=True)) == {("whole", "fp32"), ("half", "bf16")}
    assert len(final) == sum(cell.n_calls for cell in decoding)


def test_a_row_runs_in_the_dtype_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []

    class Recorder:
        alive, pid = True, 0

        def __init__(self, job: Job, deadline: float | None) -> None:
            jobs.append(job)

        def ask(self, *_: object) -> Outcome:
            return Outcome("failed", "no process")

        def close(self) -> None:
            pass

    monkeypatch.setattr("harness.speed.run.Client", Recorder)
    contestants = parse_requests(["whole", "half@dtype=bf16", "my=sleeper"])
    results = measure_speed(contestants, "cpu", QUICK, silent)
    dtypes = {cell.decoder: cell.dtype for cell in results.cells}
    assert dtypes == {"whole": "fp32", "half@dtype=bf16": "bf16", "my": "fp32"}
    assert [job.contestant.name for job in jobs] == ["whole", "half", "sleeper", "whole"]
    with pytest.raises(MsbenchError, match="half@dtype=bf16 names its dtype: give one --dtype for the others, not 2"):
        measure_speed(contestants, "cpu", replace(QUICK, dtypes=("fp32", "bf16")), silent)


def test_without_budget_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.speed.run.Client", None)  # calling it would raise
    protocol = SpeedProtocol(batch_sizes=(1, 8), modes=("eager", "cudagraph"), budget_seconds=0.0)
    results = measure_speed(parse_requests(["sleeper"]), "cpu", protocol, silent)
    assert len(results.cells) == 2 * 2 * 2 * 2  # cores, modes, batches, scopes
    assert {(cell.mode, cell.status) for cell in results.cells} == {("eager", "skipped_budget"), ("cudagraph", "unsupported")}
    assert {cell.reason for cell in results.cells if cell.mode == "eager"} == {SKIPPED}


class Machine:
    """Other processes keep so many CPUs busy in each window of half a second; the last of the values stays."""

    def __init__(self, *busy: float) -> None:
        self.busy, self.now, self.windows = list(busy), 0.0, 0

    def others_busy(self) -> float:
        self.now += 0.5
        self.windows += 1
        return self.busy.pop(0) if len(self.busy) > 1 else self.busy[0]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., run._Run]:
    """A run on a machine as described, whose turns give one outcome after the other: who is disturbed, in 10 s each."""

    def make(machine: Machine, *tries: str, wait: float = 60.0) -> run._Run:
        def in_turns(workers: Workers, settings: Mapping[str, Setting], *_: object) -> dict[str, TimedCalls]:
            machine.now += 10.0
            disturbed, found = left.pop(0), {}
            for label, setting in settings.items():
                load = Load(1.0, 0.3 if label in disturbed else 0.0, None, None)
                turns = [TurnTimes({"decode": [1.0 + len(left)], "end-to-end": [2.0]}, load)] * 3
                found[label] = TimedCalls(label, setting, Outcome("ok"), Prepared(1, 1.0, 1.0, 4, True, True), turns)
            return found

        left = list(tries)
        monkeypatch.setattr("harness.speed.run.time.monotonic", lambda: machine.now)
        monkeypatch.setattr("harness.speed.run.others_busy", machine.others_busy)
        monkeypatch.setattr("harness.speed.run.time_in_turns", in_turns)
        return run._Run(parse_requests(["whole"]), "cpu", replace(QUICK, wait_seconds=wait), Path(), silent)

    return make


def timed(one: run._Run) -> dict[str, TimedCalls]:
    return one.timed("batch 1", Workers({}, False), dict.fromkeys("ab", Setting(256, "eager", 1)))


def test_a_quiet_machine_is_looked_at_once_and_not_talked_of(runs: Callable[..., run._Run]) -> None:
    one = runs(machine := Machine(MOST_BUSY), "")
    timed(one)
    assert (machine.windows, one.results.notes, one.patience) == (1, [], 60.0)


def test_a_busy_machine_is_waited_for(runs: Callable[..., run._Run]) -> None:
    one = runs(Machine(2.0, 1.0, 0.3, 0.0), "")
    timed(one)
    assert one.results.notes == ["batch 1: waited 1.5 s for other processes, the machine became quiet"]
    assert one.patience == 58.5


def test_the_wait_ends_and_is_one_for_the_whole_run(runs: Callable[..., run._Run]) -> None:
    one = runs(machine := Machine(2.0), "a", "", wait=5.0)
    timed(one)
    assert one.results.notes == ["batch 1: waited 5.0 s for other processes, the machine stayed busy"]
    timed(one)  # not again, and what was disturbed stays so
    assert (machine.windows, len(one.results.notes)) == (10, 1)


def test_without_a_wait_nobody_looks(runs: Callable[..., run._Run]) -> None:
    one = runs(machine := Machine(2.0), "ab", wait=0.0)
    assert not timed(one)["a"].clean
    assert (machine.windows, one.results.notes) == (0, [])


@pytest.mark.parametrize(("again", "kept"), [("", "second"), ("a", "second"), ("ab", "first")])
def test_what_other_work_disturbed_is_timed_once_more(runs: Callable[..., run._Run], again: str, kept: str) -> None:
    one = runs(machine := Machine(0.0), "ab", again)
    found = timed(one)
    assert one.results.notes == [f"batch 1: timed once more, since other work disturbed a, b: the {kept} times are kept"]
    assert {label for label, mine in found.items() if not mine.clean} == set(again)
    assert found["b"].samples("decode") == [1.0 if kept == "second" else 2.0] * 3  # both of one try, for ratios in turns
    assert (machine.now, one.patience) == (21.0, 49.5)  # the second try counts, its window of half a second among it


def test_a_machine_that_stays_busy_is_timed_once(runs: Callable[..., run._Run]) -> None:
    one = runs(Machine(0.0, 2.0), "a", wait=3.0)
    assert not timed(one)["a"].clean
    assert one.results.notes == ["batch 1: waited 3.0 s for other processes, the machine stayed busy"]


@pytest.mark.slow
@pytest.mark.parametrize(("wait", "ends", "now"), [("2", None, "stayed busy"), ("60", 3, "became quiet")])
def test_competing_processes_are_waited_for_and_mark_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, wait: str, ends: int | None, now: str
) -> None:
    """Two of them for each CPU. Rows are marked where they outlive the wait, and clean where they end after three windows."""
    if ends:
        request.getfixturevalue("told_quiet")  # what else this machine does meanwhile is no rival
    rivals, windows = list[subprocess.Popen[bytes]](), list[float]()

    def window() -> float:
        for rival in rivals if len(windows) == ends else ():
            rival.kill()
            rival.wait()
        windows.append(others_busy())
        return windows[-1]

    monkeypatch.setattr("harness.speed.run.others_busy", window)
    arguments = ["speed", "--decoder", "vae", "--cost-batch-sizes", "1", "--cores", "all", "--cost-seconds", "1", "--json"]
    with ExitStack() as stack:
        for _ in range(2 * len(allowed_cpus())):
            rivals.append(stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"])))
            stack.callback(rivals[-1].kill)
        done = CliRunner().invoke(app, [*arguments, "--wait-seconds", wait, "--output-dir", str(tmp_path / "run")])
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    waited = next(note for note in document["notes"] if "waited" in note)
    if ends and windows[-1] > MOST_BUSY:
        pytest.skip("others than the rivals keep this machine busy, so that it does not become quiet")
    assert waited.endswith(now)
    assert waited in done.stderr
    assert document["disturbed"] is (now == "stayed busy")
    assert [cell["ratio_to_first"] for cell in document["cells"]] == ([None] * 2 if document["disturbed"] else [1.0] * 2)


def test_a_run_in_which_nothing_was_measured_is_a_failure(tmp_path: Path) -> None:
    """All skipped, all unsupported: exit 0 once."""
    arguments = ["speed", "--decoder", "sleeper", "--mode", "eager,cudagraph", "--budget-seconds", "0"]
    done = CliRunner().invoke(app, [*arguments, "--output-dir", str(tmp_path / "run"), "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["status"] == "failed"
    assert done.stderr.strip().splitlines()[-1].startswith("msbench: nothing was measured")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--decoder", "sleper"], "Did you mean 'sleeper'"),
        (["--decoder", "sleeper,sleeper"], "twice"),
        (["--decoder", ""], "no decoder given"),
        (["--decoder", "sleeper@stps=3"], "Did you mean 'steps'"),
        (["--decoder", "sleeper@steps=0"], "whole number from 1"),
        (["--decoder", "sleeper@weights=none"], "trained or random"),
        (["--decoder", "sleeper", "--mode", "eger"], "Did you mean 'eager'"),
        (["--decoder", "sleeper", "--dtype", "fp23"], "Did you mean 'fp32'"),
        (["--decoder", "sleeper", "--cost-batch-sizes", "1,0"], "--cost-batch-sizes"),
        (["--decoder", "sleeper", "--cores", "100000"], "this process may use"),
        (["--decoder", "sleeper", "--cost-batch-sizes", "1" + "0" * 22], "--cost-batch-sizes"),
        (["--decoder", "sleeper", "--resolution", "8193"], "at most 8,192"),
        (["--decoder", "sleeper", "--resolution", "7"], "at least 32"),
        (["--decoder", "sleeper", "--mode", ""], "unknown mode"),
        (["--decoder", "sleeper", "--dtype", "fp32,"], "unknown dtype"),
        (["--decoder", "sleeper", "--device", "tpu"], "not a device name"),
    ],
)
def test_bad_input_ends_before_anything_starts(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["speed", *arguments, "--output-dir", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "option",
    [
        ("--budget-seconds", "nan"),
        ("--budget-seconds", "-1"),
        ("--cost-seconds", "inf"),
        ("--wait-seconds", "-1"),
    ],
)
def test_times_are_finite(option: tuple[str, str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["speed", "--decoder", "sleeper", *option, "--output-dir", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert option[0] in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("decoder", "reason"),
    [
        ("ms-onestep@preset=smal@weights=random", "unknown preset 'smal'. Did you mean 'small'"),
        ("unbuildable", "decoder unbuildable: its factory raised RuntimeError: weights ate themselves"),
    ],
)
def test_a_decoder_that_cannot_be_built_as_asked_ends_the_run_before_anything_is_timed(
    decoder: str, reason: str, tmp_path: Path
) -> None:
    arguments = ["--decoder", f"sleeper,{decoder}", "--cost-batch-sizes", "1", "--cores", "1"]
    done = CliRunner().invoke(app, ["speed", *arguments, "--output-dir", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"msbench: --decoder {decoder}: {reason}")
    assert not (tmp_path / "run").exists()
