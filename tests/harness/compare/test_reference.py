"""References of the gate as files: complete, refused line by line where damaged, found by name."""

from __future__ import annotations

import csv
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness.compare.reference import COLUMNS, read_reference, write_reference
from harness.errors import MsbenchError, UnknownNameError
from tests.harness.compare.gate_rows import PROTOCOL, reference, row


def test_reference_file_holds_everything(tmp_path: Path) -> None:
    made = reference(row(lpips=0.1 + 0.2), row("jpeg", psnr=None), exact=2)
    write_reference(tmp_path / "new" / "r.csv", made)
    again = read_reference(str(tmp_path / "new" / "r.csv"))
    assert replace(again, name="simple") == made
    with (tmp_path / "new" / "r.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert [r["better"] for r in rows].count("equal") == len(asdict(PROTOCOL))
    assert {r["protocol_hash"] for r in rows} == {PROTOCOL.hash()}
    assert [r["expected"] for r in rows if (r["decoder"], r["metric"]) == ("vae", "lpips")] == ["0.30000000000000004"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("tolerance_from,", "why,", "line 1"),
        (",lower,", ",sideways,", "line 2: better is 'sideways'"),
        ("200.0,", "many,", "line 2: could not convert"),
        ("200.0,0.5", "200.0,-1", "line 2: expected 200.0, tolerance -1"),
        ("vae,kid", "vae,rfid", "line 3: vae rfid stands there twice"),
        ("vae,kid", "kid", "line 3: 14 fields"),
        (",2,photos,", ",two,photos,", "line 2: n is 'two'"),
        ('"""photos"""', "photos", r"line \d+: Expecting value"),
    ],
)
def test_a_damaged_file_is_refused_by_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "r.csv"
    write_reference(path, reference())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) if old == ",2,photos," else text.replace(old, new, 1))
    with pytest.raises(MsbenchError, match=words):
        read_reference(str(path))


def test_figures_of_two_sets_in_one_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    write_reference(path, reference())
    head, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([head, first.replace(",photos,", ",others,"), *rest]) + "\n")
    with pytest.raises(MsbenchError, match="line 3: dataset is photos, but others above"):
        read_reference(str(path))


def test_names_are_found_and_near_misses_suggested(regression_folder: Path) -> None:
    write_reference(regression_folder / "photos-cpu.csv", reference())
    (regression_folder / "sensitivity.csv").write_text("decoder,change\n")
    assert read_reference("photos-cpu").decoders == ("vae",)
    with pytest.raises(UnknownNameError, match="Did you mean 'photos-cpu'"):
        read_reference("photo-cpu")
    with pytest.raises(UnknownNameError, match="unknown reference 'sensitivity'"):
        read_reference("sensitivity")
    with pytest.raises(MsbenchError, match="no reference at"):
        read_reference(str(regression_folder / "other.csv"))
