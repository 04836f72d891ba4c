"""References of the gate as files: complete, refused in one line where damaged, found by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.compare.reference import read_reference
from harness.errors import MsbenchError, UnknownNameError
from harness.metrics.registry import METRICS
from harness.record.protocol import Protocol
from tests.harness.compare.gate_rows import PROTOCOL, reference, row
from tests.harness.conftest import MakeRun

Change = Callable[[dict[str, Any]], object]


def test_reference_file_holds_everything(tmp_path: Path) -> None:
    made = reference(row(lpips=0.1 + 0.2), row("jpeg", psnr=None), exact=2)
    path = tmp_path / "new" / "r.json"
    made.write(path)
    again = read_reference(str(path))
    assert replace(again, name="simple") == made
    content = json.loads(path.read_text())
    assert content["protocol"] == json.loads(json.dumps(asdict(PROTOCOL)))
    assert content["protocol_hash"] == PROTOCOL.hash()
    values = {(one["decoder"], one["metric"]): one["value"] for one in content["figures"]}
    assert values["vae", "lpips"] == 0.30000000000000004
    assert values["jpeg", "psnr"] == "inf"
    assert again.of("jpeg")["psnr"].value == math.inf


def damaged(change: Change) -> Callable[[Path], object]:
    """Writes a sound reference with one thing changed."""

    def write(path: Path) -> None:
        reference().write(path)
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return write


def figure(**changes: Any) -> Callable[[Path], object]:
    """The first figure changed: rfid of vae, 200 ± 0.5."""
    return damaged(lambda content: content["figures"][0].update(changes))


def text(replaced: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(replaced if isinstance(replaced, bytes) else replaced.encode())


def cut(path: Path) -> None:
    reference().write(path)
    path.write_bytes(path.read_bytes()[:700])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no tolerance": (damaged(lambda content: content["figures"][0].pop("tolerance")), "figures.0.tolerance: Field required"),
    "value NaN": (figure(value="nan"), "figures.0.value"),
    "value text": (figure(value="abc"), "figures.0.value"),
    "tolerance NaN": (figure(tolerance="nan"), "figures.0.tolerance"),
    "tolerance infinite": (figure(tolerance="inf"), "figures.0.tolerance"),
    "tolerance negative": (figure(tolerance=-1), "figures.0.tolerance"),
    "tolerance null": (figure(tolerance=None), "figures.0.tolerance"),
    "twice": (damaged(lambda content: content["figures"].append(content["figures"][0])), "vae rfid stands there twice"),
    "better sideways": (figure(better="sideways"), "figures.0.better"),
    "better flipped": (figure(better="higher"), "vae rfid: higher is not better, lower is"),
    "unknown metric": (figure(metric="rfdi"), "Did you mean 'rfid'"),
    "no decoder": (figure(decoder=""), "figures.0.decoder"),
    "no metric": (figure(metric=""), "figures.0.metric"),
    "200 kB field": (figure(decoder="x" * 200_000), "figures.0.decoder"),
    "200 kB key": (damaged(lambda content: content.update({"x" * 200_000: 1})), "x" * 80),
    "protocol hash gone": (damaged(lambda content: content.pop("protocol_hash")), "protocol_hash: Field required"),
    "protocol text": (damaged(lambda content: content.update(protocol="photos")), "protocol"),
    "definition gone": (damaged(lambda content: content["metrics"].pop("rfid")), "metrics does not say how rfid is computed"),
    "no figures": (damaged(lambda content: content.update(figures=[])), "figures"),
    "empty": (text(""), "JSON"),
    "a list": (text("[]"), "is no reference"),
    "deep": (text("[" * 100_000), "is no reference"),
    "binary": (text(b"\xff\xfe\x00\x01"), "JSON"),
    "a CSV": (text("decoder,metric,expected\n"), "JSON"),
    "cut": (cut, "JSON"),
    "a folder": (lambda path: path.mkdir(), "no reference at"),
    "nothing": (lambda path: None, "no reference at"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_reference_is_one_line_and_exit_2(tmp_path: Path, make_run: MakeRun, name: str) -> None:
    write, words = DAMAGE[name]
    path = tmp_path / "r.json"
    write(path)
    run = make_run(tmp_path / "run", {"vae": 0.0}, n=4)
    done = CliRunner().invoke(app, ["compare", str(run.folder), "--against", str(path), "--fail-on-regression"])
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert len(done.stderr) < 1_000


def test_a_byte_order_mark_and_other_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    reference().write(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_reference(str(path)).figures == reference().figures


def test_a_csv_of_an_earlier_version_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("decoder,metric,expected,tolerance\n")
    with pytest.raises(MsbenchError, match="a CSV reference of an earlier version: write it anew by --update"):
        read_reference(str(path))


@pytest.mark.parametrize("place", ["folder.json", "file/r.json", "r.csv", "/proc/nowhere/r.json"])
def test_update_needs_a_place_that_can_be_written(tmp_path: Path, make_run: MakeRun, place: str) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").write_text("")
    target = tmp_path / place
    run = make_run(tmp_path / "run", {"vae": 0.0}, n=4)
    done = CliRunner().invoke(app, ["compare", str(run.folder), "--against", str(target), "--update"])
    assert done.exit_code == 2, done.output
    assert len(done.stderr.strip().splitlines()) == 1
    assert target.name in done.stderr


def test_the_committed_reference_is_of_today_s_protocol_and_metrics() -> None:
    made = read_reference("photos-cpu")
    assert len(made.figures) >= 78
    fields: dict[str, Any] = dict(made.protocol)
    assert Protocol(**fields).hash() == made.protocol_hash
    assert made.metrics == {name: METRICS[name].definition for name in made.metrics}
    assert {figure.decoder for figure in made.figures} == made.commands.keys()


def test_names_are_found_and_near_misses_suggested(regression_folder: Path) -> None:
    reference().write(regression_folder / "photos-cpu.json")
    (regression_folder / "sensitivity.csv").write_text("decoder,change\n")
    assert read_reference("photos-cpu").decoders == ("vae",)
    with pytest.raises(UnknownNameError, match="Did you mean 'photos-cpu'"):
        read_reference("photo-cpu")
    with pytest.raises(UnknownNameError, match="unknown reference 'sensitivity'"):
        read_reference("sensitivity")
    with pytest.raises(MsbenchError, match="no reference at"):
        read_reference(str(regression_folder / "other.json"))
