"""Files that are written whole, and folders with one writer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.errors import MsbenchError
from harness.files import LOCK, atomic_path, cache_dir, folder_lock

HOLD = """
import pathlib, sys
from harness.files import folder_lock
with folder_lock(pathlib.Path(sys.argv[1])):
    print(1, flush=True)
    input()
"""


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path / "here"))
    assert cache_dir() == tmp_path / "here"
    monkeypatch.delenv("MSBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "msbench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "msbench"


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_full_disk_is_an_os_error_for_safetensors_too(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(OSError, match="File too large"), atomic_path(tmp_path / "x.safetensors") as path:
            save_file({"x": np.zeros(10_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_is_refused_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(MsbenchError, match=f"process {other.pid} on {socket.gethostname()}"), folder_lock(folder):
            pass
        other.communicate("\n")
    with folder_lock(folder):
        assert str(os.getpid()) in (folder / LOCK).read_text()
    assert not (folder / LOCK).exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        other.kill()
    assert (tmp_path / LOCK).exists()
    with folder_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_nobody_holds_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("process 1 on elsewhere, long ago")
    with folder_lock(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"process {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(MsbenchError, match=f"written by process {os.getpid()} on"), folder_lock(tmp_path):
            pass
    with pytest.raises(ValueError, match="inside"), folder_lock(tmp_path):
        raise ValueError("inside")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_a_file_or_below_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(MsbenchError, match="cannot write"), folder_lock(folder):
            pass


CONTEND = """
import pathlib, sys
from harness.errors import MsbenchError
from harness.files import folder_lock
folder, won = pathlib.Path(sys.argv[1]), 0
for _ in range(200):
    try:
        with folder_lock(folder):
            (folder / "inside").open("x").close()
            (folder / "inside").unlink()
            won += 1
    except MsbenchError:
        pass
print(won)
"""


def test_two_never_hold_it_at_once(tmp_path: Path) -> None:
    others = [subprocess.Popen([sys.executable, "-c", CONTEND, str(tmp_path)], stdout=-1, text=True) for _ in range(3)]
    wins = [other.communicate(timeout=60)[0] for other in others]
    assert [other.returncode for other in others] == [0, 0, 0]
    assert sum(map(int, wins)) > 0


def test_no_home_folder_names_the_variable(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    for name in ("MSBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MsbenchError, match=r"home directory.*set MSBENCH_CACHE"):
        cache_dir()


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = {"state.pt", ".hidden", ".a.b.c", ".state.12.pt"}
    for name in (*kept, ".state.123.0a1b2c3d.pt", ".samples.part.9.ffffffff"):
        (tmp_path / name).write_text("x")
    with folder_lock(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {*kept, LOCK}
