"""How far a command is, for people: a line at every tenth, with pace and time left."""

from __future__ import annotations

import pytest

from harness.report import progress


def test_lines_say_pace_and_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.progress_bar() as report:
        for done in (200, 210, 300, 400, 600):  # a run that resumes begins at 200
            report("measuring images", done, 600)
            now += (done - 180) / 4
        report("timing vae", 0, 1)
    assert capsys.readouterr().err.splitlines() == [
        " 33% measuring images",
        " 50% measuring images, 8/s, 0:00:38 left",  # 100 in 12.5 s
        " 67% measuring images, 4.71/s, 0:00:43 left",  # 200 in 42.5 s
        "100% measuring images, 4.1/s",  # 400 in 97.5 s
        "  0% timing vae",
    ]


def test_one_process_speaks_for_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    with progress.progress_bar() as report:
        report("measuring images", 1, 2)
    assert capsys.readouterr().err == ""
