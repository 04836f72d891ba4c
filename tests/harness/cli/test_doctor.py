"""`msbench doctor` finds what is missing and says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import doctor


def test_missing_weights_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path / "empty"))
    checks = {check.name: check for check in doctor.examine()}
    assert not checks["weights inception"].ok
    assert "msbench weights fetch" in checks["weights inception"].detail
    assert checks["torch"].ok
    assert checks["cache"].ok
    assert checks["decoder bicubic"].ok
    assert all(check.ok for name, check in checks.items() if name.startswith("decoder "))
    assert not (tmp_path / "empty").exists()


def test_missing_library_is_found() -> None:
    assert not doctor._library("no_such_library").ok
