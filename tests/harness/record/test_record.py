"""Records: JSON types only, complete or absent, refused where they are not ours."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.errors import MsbenchError
from harness.record.protocol import SCHEMA_VERSION, Protocol
from harness.record.record import Record, plain, read_record, write_record

PROTOCOL = Protocol("photos", None, 256, "native-grid-crop-v1", None, 0, 0)


def make(folder: Path, psnr: float = 20.0) -> Record:
    data: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "status": "complete",
        "protocol": asdict(PROTOCOL),
        "protocol_hash": PROTOCOL.hash(),
        "results": [{"decoder": "vae", "n": 2, "psnr": psnr}, {"decoder": "jpeg", "n": 2, "psnr": 30.0}],
        "decoders": {"vae": {"psnr_exact_images": 2 if np.isinf(psnr) else 0}, "jpeg": {"psnr_exact_images": 0}},
    }
    return write_record(folder, data, pd.DataFrame({"key": ["a", "b"], "psnr": [1.0, 2.0]}))


def test_plain_leaves_json_types_only() -> None:
    value = {"a": np.float32(0.5), "b": float("inf"), "c": [np.int64(3), Path("x")], 1: float("nan"), "d": (True, None)}
    assert plain(value) == {"a": 0.5, "b": None, "c": [3, "x"], "1": None, "d": [True, None]}
    json.dumps(plain(value), allow_nan=False)


def test_record_round_trip_and_infinite_psnr(tmp_path: Path) -> None:
    record = make(tmp_path / "run", psnr=float("inf"))
    again = read_record(tmp_path / "run" / "record.json")
    assert again.data == record.data
    assert again.results[0]["psnr"] is None
    assert again.rows_for_people()[0]["psnr"] == float("inf")
    assert list(again.samples()["key"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "words"), [(None, "holds no record.json"), ("{", "not JSON"), ('{"schema_version": 0}', "schema")]
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "record.json").write_text(content)
    with pytest.raises(MsbenchError, match=words):
        read_record(tmp_path)


def test_hash_depends_on_every_field() -> None:
    others = [replace(PROTOCOL, **{name: "other"}) for name in asdict(PROTOCOL)]
    assert len({protocol.hash() for protocol in [PROTOCOL, *others]}) == len(others) + 1


def test_provenance_names_command_and_machine_but_no_place(tmp_path: Path) -> None:
    record = make(tmp_path / "run")
    facts = {"cpu_model": "Some CPU", "torch": "2.9", "msbench": "0.1", "git": {"commit": "abcdef0123456789", "dirty": True}}
    config = {"device": "cpu"}
    data = {
        **record.data,
        "environment": {**facts, "gpus": [], "torch_threads": 1},
        "config": config,
        "date": "2026-01-02T03:04:05Z",
        "command": "msbench run --decoder vae --data-dir /home/me/images --output-dir runs/a",
    }
    line = Record(record.folder, data).provenance()
    assert "`msbench run --decoder vae --data-dir …/images --output-dir runs/a`" in line
    assert "Some CPU, 1 thread, torch 2.9" in line
    assert "abcdef0123 with local changes" in line
    assert "/home" not in line
