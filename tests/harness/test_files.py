from __future__ import annotations

from pathlib import Path

from harness.files import cache_dir


def test_the_environment_chooses(monkeypatch, tmp_path):
    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path / "here"))
    assert cache_dir() == tmp_path / "here"
    monkeypatch.delenv("MSBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "msbench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "msbench"
