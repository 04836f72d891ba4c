from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch_fidelity import calculate_metrics

from harness.metrics.inception import torch_fidelity_state_dict
from harness.metrics.metric import Batch, Whole
from harness.metrics.registry import METRICS
from harness.metrics.suite import MetricSuite


def _save(folder: Path, images: Tensor) -> None:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")


def _evaluate(suite: MetricSuite, references: Tensor, images: Tensor) -> dict[str, float]:
    columns: dict[str, Any] = {}
    for name in suite.names:
        columns |= suite.measure(name, Batch(images, references), suite.prepare(name, references))
    whole = Whole(suite.inception_features(references), suite.inception_features(images), columns)
    figures = {name: METRICS[name].over_set(whole).value for name in ("rfid", "kid")}
    return figures | {name: METRICS[name].mean(columns[name]) for name in suite.names if name != "latent_error"}


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
    assert list(small) == ["rfid", "kid", "psnr", "ssim", "lpips", "spectral"]
    perfect = _evaluate(MetricSuite(), photos[:3], photos[:3])
    assert perfect["psnr"] == np.inf
    assert perfect["ssim"] == pytest.approx(1.0)
    assert perfect["lpips"] == 0.0
    assert perfect["spectral"] == 0.0
    assert perfect["rfid"] == pytest.approx(0.0, abs=1e-6)
    assert perfect["kid"] == pytest.approx(0.0, abs=1e-9)
