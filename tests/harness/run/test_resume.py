"""A run is written as it goes: killed anywhere it resumes to the same rows; what was measured outlives what fails later."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors import SafetensorError

from harness.cost.cost import CostProtocol
from harness.errors import MsbenchError
from harness.files import folder_lock
from harness.interrupt import terminable
from harness.record.record import Record, read_record
from harness.record.run import open_run
from harness.run import figures, journal, quality, runner
from harness.run.merge import merge
from harness.stopwatch import Timing
from tests.harness.run.conftest import LightRun, make_images

QUICK = CostProtocol(batch_sizes=(1,), min_calls=1, max_calls=1, max_seconds=0.1)
ROOT = Path(__file__).resolve().parents[3]
# Imports once; every run is a fork of it, which ends itself at its N-th rename of a finished file.
KILLER = """
import json, os, signal, sys
import harness.files, harness.run.journal as journal, harness.run.runner as runner
from harness.cost.cost import CostProtocol
from harness.run.config import RunConfig
from light import LightSuite
import pandas, pyarrow.parquet, safetensors.torch, scipy.stats
runner.MetricSuite, journal.PART_IMAGES = LightSuite, 2
images, folder, moments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
rename = os.replace

def run(name, resume, renames):
    def replace(*paths):
        nonlocal renames
        renames -= 1
        if renames == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*paths)
    pid = os.fork()
    if pid == 0:
        os.replace = replace
        cost = CostProtocol((1,), 1, 1, 0.1)
        runner.evaluate(RunConfig("jpeg,bicubic", "folder:" + images, resolution=32, batch_size=2, noise_seeds=2, resume=resume,
                                  output_dir=f"{folder}/{name}", cost=cost))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

codes = [run("whole", False, -1)]
for moment in moments:
    codes += [run(str(moment), False, moment), run(str(moment), True, -1)]
print(json.dumps(codes))
"""


def same(one: Record, other: Record) -> None:
    """Equal but for timings."""
    pd.testing.assert_frame_equal(one.samples(), other.samples())
    drop = {"ms_per_image", "peak_memory_mb", "disturbed"}
    for a, b in zip(one.results, other.results, strict=True):
        assert {k: v for k, v in a.items() if k not in drop | {"marks"}} == {k: b[k] for k in b if k not in drop | {"marks"}}
        marks = [[mark for mark in row["marks"] if not mark.startswith("timed while")] for row in (a, b)]
        assert marks[0] == marks[1]
    for label in one.data.decoders:
        pairs = [open_run(run).features(label) for run in (one, other)]
        assert all(kept is not None for kept in pairs)
        assert [array.tolist() for array in pairs[0][1]] == [array.tolist() for array in pairs[1][1]]  # type: ignore[index]
    assert one.data.dataset == other.data.dataset
    assert one.data.status == other.data.status == "complete"


@pytest.mark.parametrize("moments", [[7], pytest.param([2, 4, 11, 14, 16], marks=pytest.mark.slow)])
def test_a_killed_run_resumes_to_the_same(tmp_path: Path, moments: list[int]) -> None:
    images = make_images(tmp_path / "images", 10)
    done = subprocess.run(
        [sys.executable, "-c", KILLER, images, tmp_path, json.dumps(moments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1", "MSBENCH_FEATURES": "off"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, *[-signal.SIGKILL, 0] * len(moments)], done.stderr
    whole = read_record(tmp_path / "whole")
    for moment in moments:
        folder = tmp_path / str(moment)
        same(read_record(folder), whole)
        assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in (tmp_path / "whole").iterdir())


@pytest.mark.parametrize(("size", "parts"), [(4, 2), (256, 1)])
def test_a_decoder_that_breaks_late_keeps_what_was_measured(
    light: LightRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, parts: int
) -> None:
    monkeypatch.setattr(journal, "PART_IMAGES", size)
    with pytest.raises(MsbenchError, match="decode broke"):
        light("odd-third")
    assert read_record(tmp_path / "run").data.status == "failed"
    assert len(list((tmp_path / "run" / "samples").iterdir())) == parts
    same(light("odd-third", resume=True), light("odd-third", "again", batch_size=8, cost=None))


def second_batch(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], None]) -> None:
    """`act` after the second call of a method of the pass, which each batch makes once."""
    method, calls = getattr(quality.QualityPass, name), iter(range(100))

    def counted(*arguments: object) -> Any:
        found = method(*arguments)
        if next(calls) == 1:
            act()
        return found

    monkeypatch.setattr(quality.QualityPass, name, counted)


def test_a_batch_that_fails_counts_once(light: LightRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise MsbenchError("no value")

    second_batch(monkeypatch, "_columns", fail)
    with pytest.raises(MsbenchError, match="no value"):
        light("odd-clamped")
    assert len(pd.read_parquet(tmp_path / "run" / "samples")) == 4
    again, whole = light("odd-clamped", resume=True), light("odd-clamped", "whole")
    same(again, whole)
    assert again.data.decoders == whole.data.decoders


def test_an_interrupt_waits_for_the_batch(light: LightRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        second_batch(patch, "_measure", lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt, match=r"kept in .*run, --resume goes on with it"):
            light("odd-noisy,jpeg")
    assert signal.getsignal(signal.SIGINT) is before
    assert read_record(tmp_path / "run").data.status == "interrupted"
    assert sum(map(len, map(pd.read_parquet, (tmp_path / "run" / "samples").iterdir()))) == 2 * 8
    same(light("odd-noisy,jpeg", resume=True), light("odd-noisy,jpeg", "whole"))


def test_a_third_interrupt_does_not_wait() -> None:
    with terminable(finish=True, interrupts=True) as came:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        assert came == [signal.SIGINT] * 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("writer", ["safetensors.torch.save_file", "pandas.DataFrame.to_parquet", "PIL.Image.Image.save"])
def test_a_full_folder_is_named_and_the_parts_stay(
    light: LightRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    error: Exception = OSError(errno.ENOSPC, "No space left on device")
    if "safetensors" in writer:
        error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(journal, "PART_IMAGES", 4)
    options = {"save_images": tmp_path / "saved"}
    with monkeypatch.context() as patch:
        second_batch(patch, "_next", lambda: patch.setattr(writer, full))
        with pytest.raises(MsbenchError) as caught:
            light("bicubic", **options)
    place = tmp_path / ("saved" if "PIL" in writer else "run")
    assert str(caught.value).startswith(f"{place} is full or not writable (")
    assert "No space left on device" in str(caught.value)
    assert str(caught.value).endswith("): make room, then --resume")
    assert (tmp_path / "run" / "features" / "part-00000-00000.safetensors").is_file()
    same(light("bicubic", resume=True, **options), light("bicubic", "whole"))


def test_failing_cost_keeps_the_quality(light: LightRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(decoder: object, *_: object, fewer: object = None) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(runner, "measure_cost", broken)
    with pytest.raises(MsbenchError, match=r"no such operator; .*what was measured is kept"):
        light("jpeg,bicubic", cost=QUICK)
    record = read_record(tmp_path / "run")
    assert record.data.status == "failed"
    assert "no such operator" in (record.data.failure or "")
    assert record.results[0]["psnr"] > 10
    open_run(record)


def test_a_failing_sheet_leaves_a_failed_record_that_resumes(
    light: LightRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(figures, "write_sheet", full)
        with pytest.raises(MsbenchError, match="No space left on device"):
            light("jpeg,bicubic")
    failed = read_record(tmp_path / "run")
    assert failed.data.status == "failed"
    record = light("jpeg,bicubic", resume=True)
    assert record.data.status == "complete"
    assert record.data.failure is None
    assert isinstance(record.data.timing, Timing)
    assert failed.results == record.results
    assert (tmp_path / "run" / "sheet.png").is_file()
    monkeypatch.setattr(runner, "MetricSuite", None)  # nothing left to do: not even loaded
    assert light("jpeg,bicubic", resume=True).data == record.data


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 2}, "batch_size is 2, the run in .* has 4"),
        ({"seed": 3}, "seed is 3"),
        ({"noise_seeds": 3}, "noise_seeds is 3"),
        ({"decoders": "jpeg"}, "decoders is"),
    ],
)
def test_another_request_does_not_resume(light: LightRun, options: dict[str, object], words: str) -> None:
    light("jpeg,bicubic")
    decoders = str(options.pop("decoders", "jpeg,bicubic"))
    with pytest.raises(MsbenchError, match=words):
        light(decoders, resume=True, **options)


@pytest.mark.parametrize("change", ["other bytes", "gone"])
def test_images_that_changed_are_not_gone_on_with(
    change: str, light: LightRun, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PART_IMAGES", 4)
    with pytest.raises(MsbenchError, match="decode broke"):
        light("odd-third")
    first, last = min(images.iterdir()), max(images.iterdir())
    if change == "gone":
        first.rename(first.with_name(f"zz{first.suffix}"))  # as many images as before
    else:
        first.write_bytes(last.read_bytes())
    with pytest.raises(MsbenchError, match="images changed since the run began: measure again"):
        light("odd-third", resume=True)


def test_there_must_be_a_run_to_resume(light: LightRun, tmp_path: Path) -> None:
    with pytest.raises(MsbenchError, match=r"holds no record\.json"):
        light("jpeg", resume=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(MsbenchError, match="--output-dir"):
        light("jpeg", resume=True, output_dir=None)


def test_one_folder_has_one_writer_and_one_run(light: LightRun, tmp_path: Path) -> None:
    with folder_lock(tmp_path / "run"), pytest.raises(MsbenchError, match="is being written by process"):
        light("jpeg")
    light("jpeg")
    with pytest.raises(MsbenchError, match="already holds a run"):
        light("jpeg")


@pytest.mark.parametrize("name", ["samples", "features", "samples.parquet", "features.safetensors", "sheet.png"])
def test_what_is_no_runs_is_neither_removed_nor_replaced(light: LightRun, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "run" / name / "mine.wav" if "." not in name else tmp_path / "run" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("x")
    with pytest.raises(MsbenchError, match=f"run/{name} is no run's"):
        light("jpeg")
    with pytest.raises(MsbenchError, match=f"run/{name} is no run's"):
        merge([], tmp_path / "run")
    assert [path for path in (tmp_path / "run").rglob("*") if path.is_file()] == [mine]


def test_linked_parts_are_refused(light: LightRun, tmp_path: Path) -> None:
    light("jpeg")
    (tmp_path / "run" / "samples").symlink_to(tmp_path)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "features").symlink_to(tmp_path / "nowhere")
    for folder, resume, name in (("run", True, "samples"), ("new", False, "features")):
        with pytest.raises(MsbenchError, match=f"{folder}/{name} is no run's"):
            light("jpeg", folder, resume=resume)


def test_parts_alone_are_discarded(tmp_path: Path) -> None:
    names = ["samples/part-00000-00001.parquet", "samples/.part-00000-00002.12.0a1b2c3d.parquet", "samples/part-1.parquet"]
    for name in (*names, "features/part-00000-00001.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    journal.discard(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["part-1.parquet", "samples"]


def test_places_are_checked_before_anything_is_measured(light: LightRun, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "mine.txt").write_text("x")
    for options, words in (
        ({"output_dir": tmp_path / "file" / "run"}, "cannot write to"),
        ({"output_dir": tmp_path / "file"}, "cannot write to"),
        ({"save_images": tmp_path / "file"}, "cannot be written to"),
        ({"save_images": tmp_path / "others"}, "already holds images or other files"),
        ({"output_dir": images / "run"}, "lies in the dataset's folder"),
        ({"save_images": images / "saved"}, "lies in the dataset's folder"),
    ):
        with pytest.raises(MsbenchError, match=words):
            light("odd-raises", **options)
    light("jpeg", "first", save_images=tmp_path / "saved")
    with pytest.raises(MsbenchError, match="already holds images"):
        light("jpeg", "second", save_images=tmp_path / "saved")
    assert len(list((tmp_path / "saved" / "jpeg").glob("*.png"))) == 10
