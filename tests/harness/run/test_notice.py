"""A metric with a notice: runs that compute it warn, and a comparison says what it leaves out where its package is absent."""

from __future__ import annotations

import numpy as np
import pytest

from harness.compare.compare import compare
from harness.errors import MsbenchError
from harness.metrics.metric import Metric, PerImage
from harness.metrics.registry import METRICS
from tests.harness.run.conftest import LightRun

NEAR = Metric(
    name="pyiqa:ne-ar+",
    direction="lower",
    description="",
    definition="v1",
    title="near",
    extra=True,
    load=lambda device, offline: PerImage(lambda batch, _: np.full(len(batch.images), 0.25)),
    notice="of another licence",
    origin="pyiqa",
)


def test_a_notice_is_a_warning_of_runs_that_compute_it(light: LightRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, NEAR.name, NEAR)
    monkeypatch.setattr("harness.metrics.registry.EXTRA", (NEAR.name,))
    record = light("identity,odd-plain", extra_metrics=(NEAR.name,))
    assert record.data.warnings == ("of another licence",)
    assert [row[NEAR.name] for row in record.results] == [0.25, 0.25]
    assert light("identity", folder="other").data.warnings == ()
    monkeypatch.delitem(METRICS, NEAR.name)
    assert compare([(record, None)]).warnings[-1].endswith(f"{NEAR.name} left out: install the package that computed it")


def test_pyiqa_that_is_absent_is_named(light: LightRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.metrics.registry.EXTRA", ("dists",))
    with pytest.raises(MsbenchError, match="pyiqa is not installed: pip install"):
        light("identity", extra_metrics=("pyiqa:gmsd",))
