"""How far a command is, for people: a line at every tenth, with pace and time left."""

from __future__ import annotations

import pytest

from harness.report import progress


def test_lines_say_pace_and_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 0.0, 10.0, 20.0, 40.0, 50.0, 50.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.progress_bar() as report:
        for done in (200, 300, 400, 600):  # a run that resumes begins at 200
            report("measuring images", done, 600)
        report("timing vae", 0, 1)
    assert capsys.readouterr().err.splitlines() == [
        " 33% measuring images",
        " 50% measuring images, 10/s, 0:00:30 left",
        " 67% measuring images, 10/s, 0:00:20 left",
        "100% measuring images, 10/s",
        "  0% timing vae",
    ]


def test_one_process_speaks_for_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    with progress.progress_bar() as report:
        report("measuring images", 1, 2)
    assert capsys.readouterr().err == ""
