"""Made-up runs whose differences are known, and what several test files share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.compare import reference as gate_reference
from harness.metrics.registry import PER_IMAGE
from harness.record.features import write_features
from harness.record.protocol import SCHEMA_VERSION, Protocol
from harness.record.record import Record, write_record
from harness.verify.check import Check

PROTOCOL = Protocol("photos", None, 256, "native-grid-crop-v1", None, 0, 0)
FEATURES = 8
MakeRun = Callable[..., Record]


@pytest.fixture
def make_run() -> MakeRun:
    """`make_run(folder, {"vae": 0.0, …}, …)`: every decoder's per-image values are those of an image plus its shift."""
    return _make_run


def _make_run(
    folder: Path,
    shifts: dict[str, float],
    n: int = 60,
    protocol: Protocol = PROTOCOL,
    source: str = "s",
    noise: float = 0.05,
    photographs: int | None = None,
    features: bool = True,
    spec: dict[str, dict[str, Any]] | None = None,
    order: int = 1,
    calls: dict[str, list[float]] | None = None,
    seed: int = 0,
) -> Record:
    """A run of `n` images; `order` -1 lists them backwards; `calls` are times in ms of batch 1."""
    common = np.random.default_rng(1).gamma(2.0, 0.2, n)
    keys = [f"image-{index:03d}" for index in range(n)]
    photos = [None if photographs is None else f"photo-{index % photographs}" for index in range(n)]
    reference = np.random.default_rng(2).standard_normal((n, FEATURES)).astype(np.float32)
    frames, decoded, results, details = [], {}, [], {}
    for index, (name, shift) in enumerate(shifts.items()):
        generator = np.random.default_rng([seed, index])
        values = common + shift + noise * generator.standard_normal(n)
        columns = {metric: values + place for place, metric in enumerate(PER_IMAGE)}
        frame = pd.DataFrame({"decoder": name, "noise_seed": 0, "key": keys, "source_photo": photos, **columns})
        frames.append(frame[::order])
        decoded[name] = {0: (reference + (0.3 + abs(shift)) * generator.standard_normal((n, FEATURES)))[::order]}
        results.append(
            {
                "decoder": name,
                "dataset": "photos",
                "n": n,
                "parameters": 1,
                "gflops": 2.0,
                **{m: c.mean() for m, c in columns.items()},
            }
        )
        times = (calls or {}).get(name)
        cell = {"batch_size": 1, "status": "ok", "latency": {"samples_ms": times}}
        details[name] = {
            "psnr_exact_images": 0,
            "spec": {"encoder_sha256": "e", "training_seed": None, "recipe_sha256": None, **((spec or {}).get(name, {}))},
            "cost": {"cells": [cell]} if times else None,
        }
    data = {
        "schema_version": SCHEMA_VERSION,
        "status": "complete",
        "protocol": asdict(protocol),
        "protocol_hash": protocol.hash(),
        "results": results,
        "decoders": details,
        "dataset": {"source_sha256": source, "reference_sha256": "p", "demo": True},
        "config": {"device": "cpu", "dtype": "torch.float32"},
        "environment": {
            "cpu_model": "cpu",
            "gpus": [],
            "torch_threads": 2,
            "torch": "2",
            "msbench": "1",
            "git": {"commit": "c" * 40, "dirty": False},
        },
        "date": "2026-01-01T00:00:00Z",
        "command": "msbench run",
    }
    if features:
        write_features(
            folder,
            reference[::order],
            {name: {k: v.astype(np.float32) for k, v in one.items()} for name, one in decoded.items()},
        )
    return write_record(folder, data, pd.concat(frames, ignore_index=True))


def bad(checks: tuple[Check, ...] | list[Check]) -> set[tuple[str, str]]:
    return {check.covers for check in checks if check.agrees is False}


@pytest.fixture
def regression_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's results/regression that is the test's own."""
    folder = tmp_path / "regression"
    folder.mkdir()
    monkeypatch.setattr(gate_reference, "checkout_folder", lambda: folder)
    return folder
