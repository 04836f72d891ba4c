from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from harness import weights
from harness.metrics.dists import Dists, structure_distance, texture_distance

pytestmark = pytest.mark.usefixtures("metric_weights")


@pytest.fixture(scope="module")
def ours() -> Dists:
    return Dists.load(offline=True)


def distance(network: Dists, images: Tensor, references: Tensor) -> Tensor:
    return network.distance_to(network.reference_state(references), images)


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """torchmetrics' network with its own copy of α and β; VGG16 comes from the cache instead of a download."""
    reference = pytest.importorskip("torchmetrics.functional.image.dists")
    trunk = {name: tensor for name, tensor in weights.load("lpips-vgg").items() if name.startswith("features.")}

    def cached_vgg16(weights: object) -> nn.Module:
        with torch.device("meta"):
            network: nn.Module = models.vgg16(weights=None, init_weights=False)
        assert not network.load_state_dict(trunk, strict=False, assign=True).unexpected_keys
        return network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "vgg16", cached_vgg16)
        network: nn.Module = reference.DISTSNetwork()
    return network


@pytest.mark.parametrize(("height", "width"), [(64, 96), (49, 57)])
def test_equals_torchmetrics(
    ours: Dists, theirs: nn.Module, photos: Tensor, reconstructions: Tensor, height: int, width: int
) -> None:
    a, b = reconstructions[4:6, :, :height, :width], photos[4:6, :, :height, :width]
    found = distance(ours, a, b)
    with torch.no_grad():
        single = theirs(a / 255, b / 255)
        double = theirs.double()(a.double() / 255, b.double() / 255)
        theirs.float()
    assert found.dtype == torch.float32
    assert found.shape == (2,)
    assert (found > 0.05).all()
    assert torch.allclose(found, single, rtol=0, atol=1e-6)
    assert torch.allclose(found.double(), double, rtol=0, atol=1e-6)


def test_equals_torchmetrics_between_different_photographs(ours: Dists, theirs: nn.Module, photos: Tensor) -> None:
    a, b = photos[4:6, :, :64, :64], photos[6:8, :, :64, :64]
    with torch.no_grad():
        expected = theirs(a / 255, b / 255)
    assert torch.allclose(distance(ours, a, b), expected, rtol=0, atol=1e-5)


def test_equal_images_are_at_exactly_zero(ours: Dists, photos: Tensor) -> None:
    flat = torch.full((1, 3, 64, 64), 200, dtype=torch.uint8)
    for images in (photos[:2, :, :64, :64], flat):
        assert distance(ours, images, images.clone()).tolist() == [0.0] * len(images)


def test_symmetric(ours: Dists, photos: Tensor, reconstructions: Tensor) -> None:
    a, b = reconstructions[:2, :, :64, :64], photos[:2, :, :64, :64]
    assert torch.equal(distance(ours, a, b), distance(ours, b, a))


def test_batches_change_nothing(ours: Dists, photos: Tensor, reconstructions: Tensor) -> None:
    a, b = reconstructions[:4, :, :64, :64], photos[:4, :, :64, :64]
    alone = torch.cat([distance(ours, a[i : i + 1], b[i : i + 1]) for i in range(len(a))])
    assert torch.allclose(distance(ours, a, b), alone, rtol=1e-5)


def test_one_state_of_the_references_serves_many_images(ours: Dists, photos: Tensor, reconstructions: Tensor) -> None:
    a, b = reconstructions[:2, :, :64, :64], photos[:2, :, :64, :64]
    state = ours.reference_state(b)
    assert [tuple(stage.shape[1:]) for stage in state] == [
        (3, 64, 64),
        (64, 64, 64),
        (128, 32, 32),
        (256, 16, 16),
        (512, 8, 8),
        (512, 4, 4),
    ]
    assert torch.equal(ours.distance_to(state, a), distance(ours, a, b))
    assert ours.distance_to(state, b).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"\[1, 3, 64, 64\]"):
        ours.distance_to(state, a[:1])


def test_terms_worked_out_by_hand() -> None:
    flat = torch.full((1, 1, 4, 4), 0.2), torch.full((1, 1, 4, 4), 0.6)
    # Means 0.2 and 0.6: l = (0.24 + c) / (0.40 + c), so 1 - l = 0.16 / (0.40 + c).
    assert texture_distance(*flat).item() == pytest.approx(0.16 / 0.400001, rel=1e-6)
    # Nothing varies in either: s = c / c = 1.
    assert structure_distance(*flat).item() == pytest.approx(0.0, abs=1e-6)
    stripes = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    # Variances 1/4 and 1/4, covariance -1/4: s = (-0.5 + c) / (0.5 + c), so 1 - s = 1 / (0.5 + c).
    assert structure_distance(stripes, 1 - stripes).item() == pytest.approx(1 / 0.500001, rel=1e-6)
    assert texture_distance(stripes, 1 - stripes).item() == 0.0


@pytest.mark.parametrize(("term", "expected"), [("alpha", 0.16 / 0.400001), ("beta", 0.0)])
def test_weight_on_the_image_alone_gives_the_images_own_term(term: str, expected: float) -> None:
    """Grey 51 and 153 are 0.2 and 0.6; whatever scale the weights have, they count as shares of one."""
    one = torch.zeros(1475)
    one[0] = 7.0
    chosen = {"alpha": torch.zeros(1475), "beta": torch.zeros(1475)} | {term: one}
    network = Dists(weights.load("lpips-vgg"), chosen["alpha"], chosen["beta"])
    a, b = (torch.full((1, 3, 16, 16), grey, dtype=torch.uint8) for grey in (51, 153))
    assert distance(network, a, b).item() == pytest.approx(expected, abs=1e-6)


def test_pooling_is_the_root_of_the_blurred_square(ours: Dists) -> None:
    """A single 4 at an even place: its square times 4/16 in the middle of a window, 1/16 where windows overlap at a corner."""
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, 2, 2] = 4.0
    maps[0, 1, 1, 1] = 4.0
    pooled = ours._pool(maps)
    assert pooled[0, 0].flatten().tolist() == pytest.approx([0, 0, 0, 2.0], abs=1e-5)
    assert pooled[0, 1].flatten().tolist() == pytest.approx([1.0] * 4, abs=1e-5)


def test_weights_are_the_published_count_and_none_is_negative() -> None:
    fitted = weights.load("dists", offline=True)
    assert {name: tuple(tensor.shape) for name, tensor in fitted.items()} == {"alpha": (1475,), "beta": (1475,)}
    assert all((tensor >= 0).all() for tensor in fitted.values())


def test_loading_leaves_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    Dists.load(offline=True)
    assert torch.equal(torch.get_rng_state(), state)
