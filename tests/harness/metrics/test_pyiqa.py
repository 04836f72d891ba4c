"""pyiqa's metrics: what its table says becomes entries; offline is kept; the formulas agree with others (`make test-iqa`)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from harness.errors import MsbenchError, UnknownNameError
from harness.metrics import pyiqa_metrics
from harness.metrics.metric import Batch
from harness.metrics.registry import EXTRA, METRICS, check_extra
from harness.speed.bench import photo_pixels

FORMULAS = ("psnr", "psnry", "ssim", "ssimc", "ms_ssim", "cw_ssim", "fsim", "vif", "gmsd", "nlpd", "vsi", "mad")
"""what needs no weights"""
TABLE = """
DEFAULT_CONFIGS = {
    "near": {"metric_opts": {"type": "Near", "level": 4}, "metric_mode": "FR", "score_range": "0, ~1"},
    "far-er+": {"metric_opts": {"type": "Far"}, "metric_mode": "FR", "lower_better": True, "score_range": "0, 9"},
    "alone": {"metric_opts": {"type": "Alone"}, "metric_mode": "NR"},
}
"""
PACKAGE = """
def create_metric(name, device=None):
    if name != "near":
        import urllib.request
        urllib.request.urlopen("http://weights.invalid/far.pth", timeout=5)
    return lambda images, references: ((images - references).abs().mean((1, 2, 3), keepdim=True), "a rank")
"""


def install(folder: Path) -> Path:
    """A package called pyiqa, as pyiqa is laid out."""
    (folder / "pyiqa").mkdir(parents=True)
    (folder / "pyiqa" / "__init__.py").write_text(PACKAGE)
    (folder / "pyiqa" / "default_model_configs.py").write_text(TABLE)
    info = folder / "pyiqa-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pyiqa\nVersion: 9.9\n")
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = sys.modules.pop("pyiqa", None)
    monkeypatch.syspath_prepend(str(install(tmp_path)))
    yield
    sys.modules.pop("pyiqa", None)
    if real is not None:
        sys.modules["pyiqa"] = real


@pytest.mark.usefixtures("package")
def test_its_table_becomes_entries() -> None:
    found = pyiqa_metrics.metrics()
    assert list(found) == ["pyiqa:near", "pyiqa:far-er+"]
    near, far = found.values()
    assert (near.direction, far.direction) == ("higher", "lower")
    assert near.definition == "pyiqa 9.9 near (type=Near, level=4), RGB in [0, 1]"
    assert near.description.endswith("range 0, ~1")
    assert near.per_image
    assert near.extra
    assert "PolyForm Noncommercial" in near.notice
    assert "pyiqa" not in sys.modules


@pytest.mark.usefixtures("package")
def test_offline_looks_up_no_host() -> None:
    near, far = pyiqa_metrics.metrics().values()
    assert near.load is not None
    assert far.load is not None
    images = torch.full((2, 3, 8, 8), 51, dtype=torch.uint8)
    values = near.load(torch.device("cpu"), True).measure(Batch(images, torch.zeros_like(images)), None)
    np.testing.assert_allclose(values, [0.2, 0.2], rtol=1e-6)
    assert isinstance(values, np.ndarray)
    assert values.dtype == np.float64
    with pytest.raises(MsbenchError, match=r"pyiqa:far-er\+ needs weights that pyiqa downloads \(from weights.invalid\): run"):
        far.load(torch.device("cpu"), True)
    with pytest.raises(OSError):
        far.load(torch.device("cpu"), False)


def test_without_it_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.metrics.registry.EXTRA", ("dists",))
    with pytest.raises(MsbenchError, match=r"pyiqa is not installed: pip install 'msbench\[iqa\]'"):
        check_extra("pyiqa:gmsd")
    with pytest.raises(UnknownNameError, match="Did you mean 'dists'"):
        check_extra("dist")
    check_extra("dists")
    monkeypatch.setattr(pyiqa_metrics, "find_spec", lambda name: None)
    assert pyiqa_metrics.metrics() == {}


@pytest.fixture(scope="module")
def pairs() -> Batch:
    pytest.importorskip("pyiqa")
    references = photo_pixels(192)
    noise = torch.randn(references.shape, generator=torch.Generator().manual_seed(0))
    noise *= torch.tensor([2.0, 8.0, 20.0, 50.0]).view(4, 1, 1, 1)
    return Batch((references + noise).round().clamp(0, 255).to(torch.uint8), references)


@pytest.mark.iqa
@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_needs_no_weights_and_falls_with_noise(
    name: str, pairs: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    metric = METRICS[f"pyiqa:{name}"]
    assert metric.load is not None
    half = metric.load(torch.device("cpu"), True)
    values = half.measure(pairs, None)
    assert values.shape == (4,)
    assert np.isfinite(values).all()
    one = half.measure(pairs.rows(slice(2, 3)), None)
    np.testing.assert_allclose(one, values[2:3], rtol=1e-4)
    sign = 1 if metric.direction == "lower" else -1
    assert (np.diff(sign * values) > 0).all(), values


@pytest.mark.iqa
def test_formulas_agree_with_other_implementations(pairs: Batch) -> None:
    def measured(name: str) -> np.ndarray:
        load = METRICS[name].load
        assert load is not None
        half = load(torch.device("cpu"), True)
        values = half.measure(pairs, half.prepare(pairs.references))
        return np.asarray(values[name] if isinstance(values, dict) else values)

    np.testing.assert_allclose(measured("pyiqa:psnr"), measured("psnr"), atol=1e-3)
    images, references = (x.permute(0, 2, 3, 1).numpy() for x in (pairs.images, pairs.references))
    valid = slice(5, -5)  # pyiqa's window does not leave the image
    expected = [
        structural_similarity(
            a, b, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )[1][valid, valid].mean()
        for a, b in zip(references, images, strict=True)
    ]
    np.testing.assert_allclose(measured("pyiqa:ssimc"), expected, atol=1e-3)


@pytest.mark.iqa
def test_every_full_reference_metric_is_there_with_its_own_direction() -> None:
    pyiqa = pytest.importorskip("pyiqa")
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    mine = {name for name in EXTRA if name.startswith("pyiqa:")}
    assert mine == {f"pyiqa:{name}" for name in pyiqa.list_models("FR")}
    lower = {f"pyiqa:{name}" for name, facts in DEFAULT_CONFIGS.items() if facts.get("lower_better")}
    assert all((METRICS[name].direction == "lower") == (name in lower) for name in mine)


@pytest.mark.iqa
def test_what_must_download_says_so_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyiqa")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    load = METRICS["pyiqa:lpips"].load
    assert load is not None
    with pytest.raises(MsbenchError, match=re.escape("pyiqa:lpips needs weights that pyiqa downloads")):
        load(torch.device("cpu"), True)
