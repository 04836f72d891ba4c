from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import MsbenchError
from harness.files import cache_dir


def test_the_environment_chooses(monkeypatch, tmp_path):
    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path / "here"))
    assert cache_dir() == tmp_path / "here"
    monkeypatch.delenv("MSBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "msbench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "msbench"


def test_no_home_folder_names_the_variable(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    for name in ("MSBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MsbenchError, match=r"home directory.*set MSBENCH_CACHE"):
        cache_dir()
