"""Records: JSON types only, read back as written, refused in one line where they are not ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import MsbenchError
from harness.metrics.registry import DEFAULT_MARGINS, METRICS
from harness.record.protocol import Protocol
from harness.record.record import Record, plain, read_record, write_record
from harness.stats.verdict import merge_margins
from tests.harness.records import PROTOCOL, details, result, run_data

HASHES = ["44136fa355b3678a", "eed32d3711de8475", "ae8f91b2aa3ef485"]
Change = Callable[[dict[str, Any]], object]


def make(folder: Path, psnr: float = 20.0, **changes: Any) -> Record:
    rows = [(result("vae", psnr=psnr, rfid=3.0), details(2 if np.isinf(psnr) else 0)), (result("jpeg", psnr=30.0), details())]
    return write_record(folder, run_data(rows, **changes))


def test_plain_leaves_json_types_only() -> None:
    value = {"a": np.float32(0.5), "b": float("inf"), "c": [np.int64(3), Path("x")], 1: float("nan"), "d": (True, None)}
    assert plain(value) == {"a": 0.5, "b": None, "c": [3, "x"], "1": None, "d": [True, None]}
    json.dumps(plain(value), allow_nan=False)


def test_record_round_trip_and_infinite_psnr(tmp_path: Path) -> None:
    record = make(tmp_path / "run", psnr=float("inf"))
    again = read_record(tmp_path / "run" / "record.json")
    assert again.data == record.data
    assert again.data.results[1] == result("jpeg", psnr=30.0)
    assert again.data.decoders["vae"] == details(2)
    assert again.results[0]["psnr"] is None
    assert again.rows_for_people()[0]["psnr"] == float("inf")
    data = json.loads((tmp_path / "run" / "record.json").read_text())
    assert data["results"][1]["psnr"] == 30.0
    assert data["dataset"]["name"] == "photos"
    assert again.as_json() == data


def _deep(data: dict[str, Any]) -> str:
    return '{"schema_version": 3, "a": ' + "[" * 200_000 + "]" * 200_000 + "}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data["results"][0].update(rfid="12"), r"results\.0\.rfid: .*number.*'12'"),
        (lambda data: data["results"][0].update(rfid=float("nan")), "not JSON .NaN"),
        (lambda data: data["results"].__setitem__(0, None), r"results\.0: .*None"),
        (lambda data: data.update(schema_version=2), "record of schema 2: run it again"),
        (lambda data: data.update(schema_version=99), "record of schema 99"),
        (lambda data: data["decoders"]["vae"]["spec"].update(steps="many"), r"decoders\.vae\.spec\.steps: .*'many'"),
        (lambda data: data["dataset"].pop("source_sha256") and None, r"dataset\.source_sha256: Field required"),
        (lambda data: data["dataset"].pop("name") and None, r"dataset\.name: Field required"),
        (lambda data: data.pop("results"), "results: Field required"),
        (lambda data: data.pop("decoders"), "decoders: Field required"),
        (lambda data: data.pop("environment"), "environment: Field required"),
        (lambda data: data.pop("protocol"), "protocol: Field required"),
        (lambda data: data.clear(), "no record of a run"),
        (lambda data: json.dumps(data)[:100], "not JSON"),
        (lambda data: "[]", "no record of a run"),
        (lambda data: "", "not JSON"),
        (_deep, "not JSON .*recursion"),
    ],
)
def test_a_damaged_record_is_one_line(tmp_path: Path, change: Change, words: str) -> None:
    make(tmp_path)
    file = tmp_path / "record.json"
    data = json.loads(file.read_text())
    text = change(data)
    file.write_text(text if isinstance(text, str) else json.dumps(data))
    with pytest.raises(MsbenchError, match=words) as caught:
        read_record(tmp_path)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_record_and_binary_ones(tmp_path: Path) -> None:
    with pytest.raises(MsbenchError, match=r"holds no record\.json"):
        read_record(tmp_path)
    (tmp_path / "record.json").write_bytes(b"\xff\xfe\x00garbage")
    with pytest.raises(MsbenchError, match="cannot be read"):
        read_record(tmp_path)


def test_three_hashes_stay_as_they_are() -> None:
    """A later field must change none of them: the hash covers what differs from the defaults alone."""
    subset = Protocol("imagenette", "val", 224, "adm-center-crop-v1", 100, 3, 3, 2, subset="stratified by class")
    other = Protocol("folder", None, 64, "adm-center-crop-v1", margins="lpips=0.02", partial=True)
    assert [one.hash() for one in (Protocol(), subset, other)] == HASHES
    assert Protocol().margins == "kid=5%,latent_error=0.02,lpips=0.01,psnr=0.2,rfid=5%,spectral=0.2,ssim=0.01"
    assert merge_margins(DEFAULT_MARGINS, "", METRICS) == Protocol().margins


def test_hash_depends_on_every_field() -> None:
    others = [replace(PROTOCOL, **{name: "other"}) for name in asdict(PROTOCOL)]
    assert len({protocol.hash() for protocol in [PROTOCOL, *others]}) == len(others) + 1


def test_provenance_names_command_and_machine_but_no_place(tmp_path: Path) -> None:
    facts = {"cpu_model": "Some CPU", "torch": "2.9", "msbench": "0.1", "git": {"commit": "abcdef0123456789", "dirty": True}}
    record = make(
        tmp_path / "run",
        environment={**facts, "gpus": [], "torch_threads": 1},
        date="2026-01-02T03:04:05Z",
        command="msbench run --decoder vae --data-dir /home/me/images --output-dir runs/a",
    )
    line = record.provenance()
    assert "`msbench run --decoder vae --data-dir …/images --output-dir runs/a`" in line
    assert "Some CPU, 1 thread, torch 2.9" in line
    assert "abcdef0123 with local changes" in line
    assert "/home" not in line


def test_a_record_is_a_short_line_and_a_table(tmp_path: Path) -> None:
    record = make(tmp_path)
    assert repr(record) == f"<Record {tmp_path}: vae, jpeg on photos, n = 15, complete>"
    frame = record.to_frame()
    assert frame.index.tolist() == ["vae", "jpeg"]
    assert frame.loc["vae", "psnr"] == 20.0
