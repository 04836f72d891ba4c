"""How one picture reaches the Inception network, by the published rules of each package."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import transforms

from harness.explain import views
from harness.metrics.inception import resized
from tests.harness.explain.conftest import RESOLUTION, Saved, read


def test_tensorflow_is_the_protocols(light_run: Saved) -> None:
    images = light_run.pictures("jpeg")[:2]
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    assert torch.equal(torch.stack([*map(views.tensorflow, images)]), resized(batch))


@pytest.mark.parametrize("folder", ["saved", "originals"])
def test_pytorch_fids_rule(folder: str, light_run: Saved) -> None:
    """ToTensor, then `F.interpolate(x, (299, 299), mode="bilinear", align_corners=False)`, then `2 * x - 1`."""
    for image in (light_run.pictures("jpeg") if folder == "saved" else read(light_run.originals))[:4]:
        x = transforms.ToTensor()(Image.fromarray(image))[None]
        x = 2 * F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False) - 1
        assert torch.allclose(views.pytorch_fid(image), x[0], atol=1e-5)


@pytest.mark.parametrize("folder", ["saved", "originals"])
def test_clean_fids_rule(folder: str, light_run: Saved) -> None:
    """Pillow's bicubic of each channel as a float image, then (x - 128) / 128."""
    for image in (light_run.pictures("jpeg") if folder == "saved" else read(light_run.originals))[:4]:
        planes = [
            Image.fromarray(image[:, :, c].astype(np.float32), mode="F").resize((299, 299), Image.BICUBIC) for c in range(3)
        ]
        x = torch.from_numpy(np.concatenate([np.asarray(plane).reshape(299, 299, 1) for plane in planes], axis=2))
        assert torch.equal(views.clean_fid(image), ((x - 128) / 128).permute(2, 0, 1))


def test_torchmetrics_rule(light_run: Saved) -> None:
    from torchmetrics.image.fid import NoTrainInceptionV3

    seen = []
    network = NoTrainInceptionV3.__new__(NoTrainInceptionV3)
    torch.nn.Module.__init__(network)
    network.use_antialias, network.features_list, network.INPUT_IMAGE_SIZE = True, ["64"], 299

    class Stop(Exception):
        pass

    class First(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            raise Stop

    network.Conv2d_1a_3x3 = First()
    image = light_run.pictures("jpeg")[0]
    with pytest.raises(Stop):
        network._torch_fidelity_forward(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
    assert torch.allclose(views.torchmetrics(image), seen[0][0], atol=1e-6)


@pytest.mark.parametrize("quality", [75, 95])
def test_jpeg_is_what_a_file_holds(quality: int, light_run: Saved) -> None:
    image = light_run.pictures("bicubic")[0]
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    assert np.array_equal(views.jpeg(quality, image, RESOLUTION), np.asarray(Image.open(stream)))
    assert not np.array_equal(views.jpeg(quality, image, RESOLUTION), image)


def test_squashed_is_torchvisions(light_run: Saved) -> None:
    for image in read(light_run.originals)[:4]:
        theirs = transforms.Resize((RESOLUTION, RESOLUTION))(Image.fromarray(image))
        assert np.array_equal(views.squashed(image, RESOLUTION), np.asarray(theirs))


@pytest.mark.parametrize("antialias", [True, False])
def test_short_side_is_torchvisions(antialias: bool, light_run: Saved) -> None:
    """LightningDiT's chain: ToTensor, Resize, CenterCrop; then one rounding."""
    chain = transforms.Compose(
        [transforms.ToTensor(), transforms.Resize(RESOLUTION, antialias=antialias), transforms.CenterCrop(RESOLUTION)]
    )
    for image in read(light_run.originals)[:4]:
        theirs = (chain(Image.fromarray(image)) * 255).round().permute(1, 2, 0).numpy()
        assert np.array_equal(views.short_side(antialias, image, RESOLUTION), theirs)


def test_rounding_and_truncating() -> None:
    floats = np.array([[[0.4, 0.5, 1.5], [254.6, 254.99, 255.0]]], dtype=np.float32)
    assert views.rounded(floats, 1).tolist() == [[[0, 0, 2], [255, 255, 255]]]
    assert views.truncated(floats, 1).tolist() == [[[0, 0, 1], [254, 254, 255]]]
