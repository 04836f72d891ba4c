from __future__ import annotations

import lpips
import pytest
import torch
from torch import Tensor
from torchvision import models

from harness import weights
from harness.metrics.lpips import METRIC, FastLpips, Lpips, LpipsNet

pytestmark = [pytest.mark.usefixtures("metric_weights"), pytest.mark.filterwarnings("ignore::UserWarning")]

# The package's own code on `_pinned_pair`, heads from the package, trunk built as its authors build it.
PINNED: dict[str, float] = {"alex": 0.388374, "vgg": 0.467825}


def _pinned_pair(photos: Tensor) -> tuple[Tensor, Tensor]:
    """A photograph and its 4 x 4 block means (integers only, so the same everywhere)."""
    photo = photos[:1]
    blocks = photo.reshape(1, 3, 64, 4, 64, 4).long().sum(dim=(3, 5)) // 16
    return blocks.repeat_interleave(4, 2).repeat_interleave(4, 3).to(torch.uint8), photo


def _official(net: LpipsNet) -> torch.nn.Module:
    """lpips.LPIPS as its README builds it, but for the trunk's weights, which come from the cache instead of a download."""
    network: torch.nn.Module = lpips.LPIPS(pretrained=True, net=net, pnet_rand=True, verbose=False)
    trunk = {name: tensor for name, tensor in weights.load(f"lpips-{net}").items() if name.startswith("features.")}
    state = {f"net.{name}": trunk[f"features.{name.split('.', 1)[1]}"] for name in network.net.state_dict()}
    missing = network.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert not any(name.startswith("net.") for name in missing.missing_keys)
    return network


@torch.no_grad()
def _distance(network: Lpips, images: Tensor, references: Tensor) -> Tensor:
    """Of uint8 images: float32 [B]."""
    found: Tensor = network(images / 127.5 - 1, references / 127.5 - 1)
    return found


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_equals_the_lpips_package(net: LpipsNet, photos: Tensor, reconstructions: Tensor) -> None:
    ours, official = Lpips.load(net), _official(net)
    a, b = reconstructions[:2], photos[:2]
    with torch.no_grad():
        theirs = official(a / 127.5 - 1, b / 127.5 - 1).flatten()
        pinned = official(*(image / 127.5 - 1 for image in _pinned_pair(photos))).item()
    assert torch.equal(_distance(ours, a, b), theirs)
    assert _distance(ours, *_pinned_pair(photos)).item() == pytest.approx(PINNED[net], abs=2e-5)
    assert pinned == pytest.approx(PINNED[net], abs=2e-5)


def test_published_value_of_torchmetrics() -> None:
    """torchmetrics 0.11.4 documents 0.3493 for VGG on random images after seed 123 (its network draws first)."""
    torch.manual_seed(123)
    models.vgg16(weights=None, init_weights=False)
    for channels in (64, 128, 256, 512, 512):
        torch.nn.Conv2d(channels, 1, 1, bias=False)
    a, b = (torch.rand(10, 3, 100, 100) * 2 - 1 for _ in range(2))
    assert round(Lpips.load("vgg")(a, b).mean().item(), 4) == 0.3493


def test_batches_change_nothing_and_equal_images_are_at_zero(photos: Tensor, reconstructions: Tensor) -> None:
    network = Lpips.load("alex")
    whole = _distance(network, reconstructions, photos)
    alone = torch.cat([_distance(network, reconstructions[i : i + 1], photos[i : i + 1]) for i in range(len(photos))])
    assert torch.allclose(whole, alone, rtol=1e-5)
    assert _distance(network, photos[:2], photos[:2]).tolist() == [0.0, 0.0]
    assert (whole > 0.05).all()


def test_gradients_reach_the_images_and_only_them(photos: Tensor, reconstructions: Tensor) -> None:
    network = Lpips.load("alex").train()
    assert not any(module.training for module in network.modules())
    image = (reconstructions[:1, :, :64, :64] / 127.5 - 1).requires_grad_()
    reference = photos[:1, :, :64, :64] / 127.5 - 1
    before = network(image, reference)
    before.sum().backward()
    assert image.grad is not None
    assert all(parameter.grad is None for parameter in network.parameters())
    step = image.detach() - 1e-3 * image.grad / image.grad.square().mean().sqrt()
    assert network(step, reference).item() < before.item()


def test_loading_leaves_the_random_state_alone_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    Lpips.load("alex")
    assert torch.equal(torch.get_rng_state(), state)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_lpips_equals_its_plain_form_and_one_state_serves_many_images(photos: Tensor, reconstructions: Tensor) -> None:
    plain, fast = Lpips.load("alex"), FastLpips(torch.device("cpu"))
    for references, first, second in [
        (photos, reconstructions, photos.flip(3)),
        (photos[:2, :, :100], reconstructions[:2, :, :100], photos[2:4, :, :100]),
    ]:
        state = fast.reference_state(references)
        for images in (first, second, first):
            expected = _distance(plain, images, references)
            assert torch.allclose(fast.distance_to(state, images), expected, rtol=0, atol=1e-5)
            assert expected.min() > 0.01
        assert torch.equal(fast.distance_to(state, references), torch.zeros(len(references)))


def test_the_check_reads_pictures_as_the_package_does(photos: Tensor, reconstructions: Tensor) -> None:
    a, b = (image.permute(1, 2, 0).numpy() for image in (photos[0], reconstructions[0]))
    expected = _distance(Lpips.load("alex"), reconstructions[:1], photos[:1]).item()
    assert METRIC.check.pair(a, b) == pytest.approx(expected, abs=METRIC.check.absolute)
