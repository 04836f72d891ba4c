"""Several processes, and shards that are merged, give the figures of one; a signal or a failure ends all in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from harness.errors import MsbenchError
from harness.record.record import Record, read_record, write_record
from harness.record.run import open_run
from harness.run import runner
from harness.run.config import RunConfig
from harness.run.merge import merge
from harness.run.quality import cut
from tests.harness.run.conftest import LightRun, make_images
from tests.harness.run.test_model_file import MODEL
from tests.harness.run.test_resume import same

ROOT = Path(__file__).resolve().parents[3]
# Imports once; every process of every run is a fork of it. A job is (folder, processes, options), and perhaps what befalls
# one of them: (rank, batches before it, signal).
JOBS = """
import json, os, signal, socket, sys
import harness.registry as registry, harness.run.journal as journal
import harness.run.quality as quality, harness.run.runner as runner
import pandas, pyarrow.parquet, safetensors.torch, scipy.stats, torch._dynamo, torch.distributed, types
tests = sys.modules["tests"] = types.ModuleType("tests")
tests.__path__ = ["tests"]
from tests.harness.run import odd_decoders
from harness.errors import ElsewhereError, MsbenchError
from harness.interrupt import Terminated, terminable
from harness.registry import DecoderEntry
from harness.run.config import RunConfig
from tests.harness.run.light import LightSuite
runner.MetricSuite, journal.PART_IMAGES = LightSuite, 2
odd = {name: DecoderEntry(name, "", f"{odd_decoders.__name__}:{name[4:]}", "odd") for name in odd_decoders.NAMES}
built_in = registry.decoder_entries
registry.decoder_entries = lambda: {**built_in(), **odd}
images, root, measure = sys.argv[1], sys.argv[2], quality.QualityPass._measure

def process(rank, world, port, folder, options, hit, batches, number):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world)}
    def counted(self, *arguments):
        nonlocal batches
        measure(self, *arguments)
        batches -= 1
        if batches == 0 and rank == hit:
            os.kill(os.getpid(), number)
    quality.QualityPass._measure = counted
    asked = {"resolution": 32, "batch_size": 2, "noise_seeds": 2, "cost": None, **options}
    try:
        with terminable():
            config = RunConfig(dataset="folder:" + images, output_dir=f"{root}/{folder}", **asked)
            runner.evaluate(config, lambda stage, done, total: None)
    except Terminated:
        return 75
    except MsbenchError as error:
        if not isinstance(error, ElsewhereError):
            print(json.dumps([folder, rank, str(error)]), file=sys.stderr)
        return 2
    return 0

codes = []
for folder, world, options, *hit in json.loads(sys.argv[3]):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(world):
        if not (pid := os.fork()):
            code = 3
            try:
                code = process(rank, world, port, folder, options, *(hit or (-1, 0, 0)))
            finally:
                sys.stderr.flush()
                os._exit(code)
        started.append(pid)
    codes.append([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in started])
print(json.dumps(codes))
"""
Job = tuple[Any, ...]
DECODERS = {"decoders": "odd-noisy,jpeg,odd-torch_noise"}


def jobs(root: Path, *wanted: Job) -> tuple[list[list[int]], list[list[Any]]]:
    """Exit codes of each job's processes, and (folder, rank, line) of those that said why."""
    images = make_images(root / "images", 10)
    done = subprocess.run(
        [sys.executable, "-c", JOBS, images, root, json.dumps(wanted)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MSBENCH_FEATURES": str(root / "features")},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stderr.splitlines() if line.startswith('["')]
    return json.loads(done.stdout.splitlines()[-1]), told


@pytest.mark.slow
def test_any_number_of_processes_gives_the_figures_of_one(tmp_path: Path) -> None:
    few, late = {**DECODERS, "max_samples": 2}, {"decoders": "odd-late_noise"}
    wanted = [("one", 1, DECODERS), ("two", 2, DECODERS), ("three", 3, DECODERS)]
    wanted += [("few", 1, few), ("few-in-three", 3, few), ("late", 1, late), ("late-in-two", 2, late)]
    codes, told = jobs(tmp_path, *wanted)
    assert codes == [[0] * job[1] for job in wanted], told
    for name, other in (("one", "two"), ("one", "three"), ("few", "few-in-three"), ("late", "late-in-two")):
        first, second = read_record(tmp_path / name), read_record(tmp_path / other)
        same(second, first)
        assert sorted(path.name for path in second.folder.iterdir()) == sorted(path.name for path in first.folder.iterdir())
        if name != "few":  # the first batch, which is probed, is another one there
            assert second.data.warnings == first.data.warnings
            assert second.data.decoders == first.data.decoders
    assert read_record(tmp_path / "three").data.setting.processes == 3
    assert read_record(tmp_path / "late").data.decoders["odd-late_noise"].noise.global_draws


@pytest.mark.slow
def test_what_ends_one_process_ends_all_and_resumes_with_another_number(tmp_path: Path) -> None:
    more, faulty = {**DECODERS, "resume": True}, {"decoders": "odd-bright,jpeg"}
    wanted: list[Job] = [
        ("one", 1, DECODERS),
        ("told", 2, DECODERS, 1, 1, signal.SIGTERM),
        ("told", 3, more),
        ("killed", 2, DECODERS, 1, 2, signal.SIGKILL),
        ("killed", 1, more),
        ("alone", 1, DECODERS, 0, 2, signal.SIGTERM),
        ("alone", 2, more, 0, 1, signal.SIGTERM),
        ("alone", 1, more),
        ("faulty", 2, faulty),
    ]
    codes, told = jobs(tmp_path, *wanted)
    assert codes == [[0], [75, 75], [0] * 3, [2, -signal.SIGKILL], [0], [75], [75, 75], [0], [2, 2]], told
    for name in ("told", "killed", "alone"):
        same(read_record(tmp_path / name), read_record(tmp_path / "one"))
    assert [(folder, rank) for folder, rank, _ in told] == [("killed", 0), ("faulty", 0)]
    assert "process 0 of 2: another one has ended, so this one ends too; --resume goes on" in told[0][2]
    assert "process 1 of 2: decoder odd-bright, image n05: decode gave" in told[1][2]
    assert "not finite" in (read_record(tmp_path / "faulty").data.failure or "")


def test_shares_are_whole_batches() -> None:
    for n, parts, batch in ((10, 3, 2), (10, 1, 4), (3, 5, 2), (0, 2, 8), (128, 8, 128), (50, 4, 8)):
        found = [cut(range(n), part, parts, batch) for part in range(parts)]
        assert [place for part in found for place in part] == list(range(n))
        assert max(map(len, found)) - min(map(len, found)) <= batch
    assert [list(cut(range(10), part, 3, 2)) for part in range(3)] == [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9]]


def shards(light: LightRun, count: int, **options: object) -> list[Path]:
    asked = {"batch_size": 2, "noise_seeds": 2, **options}
    return [light("odd-noisy,jpeg", f"shard-{i}", shard=f"{i}/{count}", **asked).folder for i in range(1, count + 1)]


def test_merged_shards_are_the_run(light: LightRun, tmp_path: Path) -> None:
    folders = shards(light, 3)
    assert [read_record(folder).data.status for folder in folders] == ["shard"] * 3
    with pytest.raises(MsbenchError, match="status shard"):
        open_run(folders[0])
    merged = merge(folders[::-1], tmp_path / "merged")
    same(merged, light("odd-noisy,jpeg", "one", batch_size=2, noise_seeds=2))
    assert open_run(merged).has_features
    assert (tmp_path / "merged" / "sheet.png").is_file()
    assert light("odd-noisy,jpeg", "shard-1", shard="1/3", batch_size=2, noise_seeds=2, resume=True).data.status == "shard"


def test_a_shard_may_be_empty(light: LightRun, tmp_path: Path) -> None:
    folders = shards(light, 3, max_samples=2)
    assert [read_record(folder).data.dataset.n_samples.effective for folder in folders] == [0, 1, 1]
    same(merge(folders, tmp_path / "merged"), light("odd-noisy,jpeg", "one", batch_size=1, noise_seeds=2, max_samples=2))


def test_images_left_out_of_a_shard_are_left_out_of_the_run(light: LightRun, images: Path, tmp_path: Path) -> None:
    (images / "n00.png").write_bytes(b"no image")
    options = {"batch_size": 2, "keep_going": True}
    folders = [light("odd-bright,jpeg", f"shard-{i}", shard=f"{i}/2", **options).folder for i in (1, 2)]
    facts = merge(folders, tmp_path / "merged").data.dataset
    assert facts == light("odd-bright,jpeg", "one", **options).data.dataset
    assert ([one.name for one in facts.skipped], [one.name for one in facts.excluded]) == (["n00.png"], ["n05"])


def test_merge_refuses_what_is_not_one_run(light: LightRun, tmp_path: Path) -> None:
    first, second, third = shards(light, 3)
    other = light("odd-noisy,jpeg", "other", shard="2/3", batch_size=2, noise_seeds=2, seed=1).folder
    fewer = light("odd-noisy,jpeg", "fewer", shard="2/2", batch_size=2, noise_seeds=2).folder
    whole = light("jpeg", "whole").folder
    for folders, words in (
        ([first, third], "shard 2/3 is missing"),
        ([first, second, second, third], "shard 2/3 is one too many"),
        ([first, other, third], "not shards of one run: seed is 0, .*other has 1"),
        ([first, fewer], "shards of 2 and of 3 are mixed"),
        ([whole], "is no finished shard"),
        ([tmp_path], "holds no record"),
    ):
        with pytest.raises(MsbenchError, match=words):
            merge(folders, tmp_path / "out")
    with pytest.raises(MsbenchError, match="already holds a run"):
        merge([first, second, third], whole)
    for part in (second / "features").iterdir():
        part.rename(second / part.name)
    with pytest.raises(MsbenchError, match="the shards hold 6 of 10 images"):
        merge([first, second, third], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shards_of_other_images_are_refused(light: LightRun, images: Path, tmp_path: Path) -> None:
    first = light("jpeg", "shard-1", shard="1/2").folder
    for path in list(images.iterdir()):
        path.rename(path.with_name(f"other-{path.name}"))
    second = light("jpeg", "shard-2", shard="2/2").folder
    with pytest.raises(MsbenchError, match=r"not shards of one run: .*shard-2 is of another .* dataset"):
        merge([first, second], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_may_have_other_names_on_each_machine(light: LightRun, images: Path, tmp_path: Path) -> None:
    found = []
    for part in (1, 2):
        here = tmp_path / f"machine-{part}"
        here.mkdir()
        (here / "model.py").write_text(MODEL)
        images = images.rename(here / "images")
        config = RunConfig(("jpeg", f"{here}/model.py"), f"folder:{images}", resolution=32, cost=None, shard=f"{part}/2")
        found.append(runner.evaluate(config, output_dir=here / "run").folder)
    assert merge(found, tmp_path / "out").data.dataset.n_samples.effective == 10
    (tmp_path / "machine-2" / "model.py").write_text(MODEL.replace("0.3", "0.2"))
    again = runner.evaluate(config, output_dir=tmp_path / "again").folder
    with pytest.raises(MsbenchError, match="decoder model is another one"):
        merge([found[0], again], tmp_path / "out-2")
    config = replace(config, decoders=("vae", f"{here}/model.py"), output_dir=tmp_path / "vae")
    with pytest.raises(MsbenchError, match="not shards of one run: decoders is"):
        merge([found[0], runner.evaluate(config).folder], tmp_path / "out-2")


@pytest.mark.parametrize("state", ["{}", "[]", "7", '{"decoders": {"jpeg": {}}}', '{"decoders": 3}'])
def test_a_part_whose_state_lacks_something_is_named(light: LightRun, tmp_path: Path, state: str) -> None:
    shard = light("jpeg", shard="1/1").folder
    (part,) = (shard / "features").iterdir()
    save_file(load_file(part), part, {"state": state})
    with pytest.raises(MsbenchError, match=r"part-00000-00000.safetensors or its samples cannot be read"):
        merge([shard], tmp_path / "out")


def test_a_file_is_no_shard(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x")
    for name in ("a.py", "b.py"):
        with pytest.raises(MsbenchError, match=rf"{name} holds no record\.json: give the folder"):
            merge([tmp_path / name], tmp_path / "out")


def relabelled(folder: Path, shard: str) -> Record:
    data = read_record(folder).data
    return write_record(folder, replace(data, config={**data.config, "shard": shard}))


def test_images_in_two_shards_are_refused(light: LightRun, tmp_path: Path) -> None:
    first, _, third = shards(light, 3)
    again = light("odd-noisy,jpeg", "again", shard="1/3", batch_size=2, noise_seeds=2).folder
    relabelled(again, "2/3")
    with pytest.raises(MsbenchError, match="was measured twice"):
        merge([first, again, third], tmp_path / "out")


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "١/٢"])
def test_a_shard_is_one_of_several(light: LightRun, text: str) -> None:
    with pytest.raises(MsbenchError, match="which part of how many"):
        light("jpeg", shard=text)
