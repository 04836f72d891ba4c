"""A metric is one file and one name in `MODULES`."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import metrics
from harness.metrics.registry import BUILT_IN, DEFAULT_MARGINS, EXTRA, METRICS, MODULES, PER_IMAGE
from harness.weights import WEIGHTS


def test_the_modules_listed_are_the_files_that_define_an_entry() -> None:
    files = Path(metrics.__file__).parent.glob("*.py")
    assert sorted(MODULES) == sorted(path.stem for path in files if "\nMETRIC = Metric(" in path.read_text())
    assert [metric.name for metric in BUILT_IN.values()] == list(MODULES) == list(BUILT_IN)


@pytest.mark.parametrize("metric", BUILT_IN.values(), ids=list(BUILT_IN))
def test_entries_are_complete(metric: metrics.metric.Metric) -> None:
    assert metric.definition
    assert metric.description
    assert metric.title
    assert set(metric.weights) <= set(WEIGHTS)
    assert metric.per_image == (metric.whole is None and metric.statistic is None)
    assert metric.load or not metric.per_image
    if metric.check:
        assert (metric.check.pair is None) != (metric.check.whole is None)
        assert (metric.check.whole is None) == metric.per_image


def test_tuples_and_texts_derive_from_the_entries() -> None:
    assert set(PER_IMAGE) >= {"psnr", "ssim", "lpips", "spectral", "latent_error"}
    assert "dists" in EXTRA
    assert set(METRICS) >= set(BUILT_IN)
    assert DEFAULT_MARGINS == "rfid=5%,kid=5%,psnr=0.2,ssim=0.01,lpips=0.01,spectral=0.2,latent_error=0.02"
