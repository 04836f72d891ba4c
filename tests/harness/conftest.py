"""Made-up runs whose differences are known, and what several test files share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness import weights
from harness.compare import reference as gate_reference
from harness.errors import MsbenchError
from harness.metrics.registry import PER_IMAGE
from harness.record.protocol import Protocol
from harness.record.record import Record, write_record
from harness.record.run import write_features, write_samples
from harness.record.schema import Rate
from harness.verify.check import Check
from tests.harness.records import PROTOCOL, details, result, run_data

FEATURES = 8
_WRONG_CONTENT = ("SHA-256", "content hash", "not plain")
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
    bits: dict[str, float] | None = None,
) -> Record:
    """A run of `n` images; `order` -1 lists them backwards; `calls` are times in ms of batch 1, `bits` those an image takes."""
    common = np.random.default_rng(1).gamma(2.0, 0.2, n)
    keys = [f"image-{index:03d}" for index in range(n)]
    photos = [None if photographs is None else f"photo-{index % photographs}" for index in range(n)]
    reference = np.random.default_rng(2).standard_normal((n, FEATURES)).astype(np.float32)
    frames, decoded, rows = [], {}, []
    for index, (name, shift) in enumerate(shifts.items()):
        generator = np.random.default_rng([seed, index])
        values = common + shift + noise * generator.standard_normal(n)
        columns = {metric: values + place for place, metric in enumerate(PER_IMAGE)}
        frame = pd.DataFrame(
            {"decoder": name, "noise_seed": 0, "key": keys, "source_photo": photos, "source_sha256": "f", **columns}
        )
        frames.append(frame[::order])
        decoded[name] = {0: (reference + (0.3 + abs(shift)) * generator.standard_normal((n, FEATURES)))[::order]}
        means = {metric: float(column.mean()) for metric, column in columns.items()}
        rate = Rate((bits or {})[name], (bits or {})[name] / 256**2, "nominal") if name in (bits or {}) else None
        row = result(name, n=n, gflops=2.0, rfid=None, kid=None, rate=rate, **means)
        rows.append((row, details(times=(calls or {}).get(name), **(spec or {}).get(name, {}))))
    if features:
        write_features(
            folder,
            reference[::order],
            {name: {k: v.astype(np.float32) for k, v in one.items()} for name, one in decoded.items()},
        )
    write_samples(folder, pd.concat(frames, ignore_index=True))
    return write_record(folder, run_data(rows, protocol, source))


def bad(checks: tuple[Check, ...] | list[Check]) -> set[tuple[str, str]]:
    return {check.covers for check in checks if check.agrees is False}


@pytest.fixture(scope="session")
def metric_weights() -> None:
    """All weights in the cache; skips where no source can be reached, fails where one gave the wrong content."""
    try:
        weights.fetch()
    except MsbenchError as error:
        if any(words in str(error) for words in _WRONG_CONTENT):
            raise
        pytest.skip(f"metric weights cannot be fetched here: {error}")


@pytest.fixture
def regression_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's results/regression that is the test's own."""
    folder = tmp_path / "regression"
    folder.mkdir()
    monkeypatch.setattr(gate_reference, "checkout_folder", lambda: folder)
    return folder
