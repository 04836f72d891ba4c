from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from harness.metrics.precision import full_float32
from PIL import Image
from torch import Tensor
from torch_fidelity import calculate_metrics

from harness.metrics.inception import torch_fidelity_state_dict
from harness.metrics.registry import EXTRA, METRICS, PER_IMAGE, REQUIRED_WEIGHTS
from harness.metrics.suite import IMAGE_PAIR, OCTAVE_COLUMNS, MetricSuite, set_metrics
from harness.weights import WEIGHTS


def _save(folder: Path, images: Tensor) -> None:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")


def _evaluate(suite: MetricSuite, reference: Tensor, reconstruction: Tensor) -> dict[str, float]:
    prepared = suite.prepare(reference)
    values = suite.per_image(prepared, reconstruction)
    assert set(OCTAVE_COLUMNS) < set(values)
    figures = {name: column for name, column in values.items() if name in METRICS}
    return set_metrics(prepared.features, suite.inception_features(reconstruction), figures)


@pytest.mark.usefixtures("metric_weights")
def test_rfid_equals_torch_fidelity_on_saved_images(tmp_path: Path, photos: Tensor, reconstructions: Tensor) -> None:
    _save(tmp_path / "reference", photos)
    _save(tmp_path / "decoded", reconstructions)
    torch.save(torch_fidelity_state_dict(), tmp_path / "inception.pth")
    theirs = calculate_metrics(
        input1=str(tmp_path / "reference"),
        input2=str(tmp_path / "decoded"),
        fid=True,
        cuda=False,
        batch_size=4,
        cache=False,
        verbose=False,
        save_cpu_ram=True,  # no worker processes
        feature_extractor_weights_path=str(tmp_path / "inception.pth"),
    )
    ours = _evaluate(MetricSuite(batch_size=8), photos, reconstructions)
    assert ours["rfid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert ours["rfid"] > 1.0


@pytest.mark.usefixtures("metric_weights")
def test_batch_size_changes_nothing_and_copies_are_perfect(photos: Tensor, reconstructions: Tensor) -> None:
    small, large = (_evaluate(MetricSuite(batch_size=size), photos, reconstructions) for size in (3, 8))
    assert small == pytest.approx(large, rel=1e-4)
    assert list(small) == ["rfid", "kid", *IMAGE_PAIR]
    perfect = _evaluate(MetricSuite(), photos[:3], photos[:3])
    assert perfect["psnr"] == np.inf
    assert perfect["ssim"] == pytest.approx(1.0)
    assert perfect["lpips"] == 0.0
    assert perfect["spectral"] == 0.0
    assert perfect["rfid"] == pytest.approx(0.0, abs=1e-6)
    assert perfect["kid"] == pytest.approx(0.0, abs=1e-9)


def test_one_image_has_no_set_metrics() -> None:
    values = {name: np.array([0.5]) for name in PER_IMAGE}
    found = set_metrics(np.zeros((1, 4)), np.zeros((1, 4)), values)
    assert np.isnan([found["rfid"], found["kid"]]).all()
    assert found["lpips"] == 0.5


def test_counts_must_match() -> None:
    values = {name: np.zeros(3) for name in PER_IMAGE}
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        set_metrics(np.zeros((4, 4)), np.zeros((4, 4)), values)


def test_registry_is_consistent() -> None:
    assert all(info.name == name for name, info in METRICS.items())
    assert set(PER_IMAGE) == {*IMAGE_PAIR, "latent_error"}
    assert set(EXTRA) == {"dists"}
    assert set(REQUIRED_WEIGHTS) == {"inception", "lpips-alex"}
    assert set(REQUIRED_WEIGHTS) <= set(WEIGHTS)


def test_callers_precision_settings_come_back_even_after_an_error() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with pytest.raises(AssertionError), full_float32(torch.device("cpu")):
            assert torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
