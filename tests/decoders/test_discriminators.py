"""The discriminators: what they see, on which features, and that they learn to tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import vgg16

from decoders.training.adversary import (
    Adversary,
    AdversaryConfig,
    FeatureDiscriminator,
    PatchDiscriminator,
    VggFeatures,
    make_adversary,
)
from harness import weights
from harness.errors import MsbenchError
from harness.metrics.lpips import Lpips

CPU = torch.device("cpu")
ON = AdversaryConfig(weight=0.5, start=0.25, crop=16)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def vgg() -> Lpips:
    """LPIPS on VGG16; skips where its weights can neither be found nor fetched."""
    try:
        weights.fetch(("lpips-vgg",))
    except MsbenchError as error:
        if any(words in str(error) for words in ("SHA-256", "content hash", "not plain")):
            raise
        pytest.skip(f"metric weights cannot be fetched here: {error}")
    return Lpips.load("vgg")


def textures(draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Fine grain, and the same smoothed: what a blurred decoder makes of it."""
    real = torch.rand((4, 3, 24, 24), generator=draws) * 2 - 1
    return real, F.avg_pool2d(real, 3, stride=1, padding=1)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 20), (64, 64)])
def test_patches_of_any_size(height: int, width: int) -> None:
    (logits,) = PatchDiscriminator()(torch.zeros(2, 3, height, width))
    assert logits.shape == (2, 1, -(-height // 8), -(-width // 8))


def test_a_patch_is_47_pixels_wide() -> None:
    """3×3, 3×3, then three strided 3×3 backwards: 3, 5, 11, 23, 47."""
    torch.manual_seed(0)
    images = torch.randn((1, 3, 128, 128), requires_grad=True)
    PatchDiscriminator()(images)[0][0, 0, 8, 8].backward()
    assert images.grad is not None
    seen = images.grad.abs().sum(dim=(0, 1))
    assert int((seen.sum(dim=0) > 0).sum()) == int((seen.sum(dim=1) > 0).sum()) == 47


def test_a_patch_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    torch.manual_seed(0)
    network, images = PatchDiscriminator(), torch.randn(3, 3, 24, 24)
    assert torch.allclose(network(images)[0][1:2], network(images[1:2])[0], atol=1e-5)


def pyramid(images: Tensor) -> list[Tensor]:
    """Frozen features without a network: horizontal and vertical differences on two grids."""
    features = []
    for level in (images, F.avg_pool2d(images, 2)):
        across, down = level.diff(dim=-1)[..., 1:, :], level.diff(dim=-2)[..., :, 1:]
        features.append(torch.cat([across.abs(), down.abs(), torch.ones_like(across[:, :1])], dim=1))
    return features


@pytest.mark.parametrize("name", ["patch", "features"])
def test_a_discriminator_learns_to_tell_grain_from_blur(name: str) -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator() if name == "patch" else FeatureDiscriminator(pyramid, (7, 7))
    adversary = Adversary(replace(ON, learning_rate=2e-3, crop=24), network)
    layer, draws = nn.Parameter(torch.ones(1, 3, 1, 1)), generator(1)
    losses = []
    for _ in range(60):
        real, blurred = textures(draws)
        fake = layer * blurred
        losses.append(adversary.term(fake, real, (fake - real).square().mean(), layer, draws, 1.0)[1]["discriminator"])
    assert losses[0] == pytest.approx(2.0, abs=0.6)  # logits near 0
    assert sum(losses[-10:]) / 10 < 0.5
    real, fake = textures(generator(2))
    with torch.no_grad():
        scores = [torch.stack([m.mean(dim=(1, 2, 3)) for m in network(images)]).mean(dim=0) for images in (real, fake)]
    assert scores[0].min() > scores[1].max()


def test_the_term_alone_brings_the_grain_back() -> None:
    """One number, how much of the lost grain is shown, trained on the adversary's term with no other loss."""
    torch.manual_seed(0)
    adversary = Adversary(replace(ON, learning_rate=2e-3, crop=24), PatchDiscriminator())
    grain, draws = nn.Parameter(torch.zeros(())), generator(1)
    optimizer = torch.optim.Adam([grain], lr=0.02)
    for _ in range(80):
        real, blurred = textures(draws)
        fake = blurred + grain * (real - blurred)
        term, _ = adversary.term(fake, real, (fake - real).square().mean(), grain, draws, 1.0)
        (grain.grad,) = torch.autograd.grad(term, grain)
        optimizer.step()
    assert grain > 0.5


def test_vgg_features_are_those_of_torchvision(vgg: Lpips) -> None:
    reference = vgg16(weights=None, init_weights=False).features.eval()
    reference.load_state_dict(
        {name.removeprefix("features."): value for name, value in weights.load("lpips-vgg").items() if "features." in name}
    )
    images = torch.rand((1, 3, 40, 32), generator=generator()) * 2 - 1
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    h, expected = ((images + 1) / 2 - mean) / std, []
    with torch.no_grad():
        for index, layer in enumerate(reference):
            h = layer(h)
            if index in (8, 15, 22, 29):  # the last ReLU before each pooling
                expected.append(h.clone())
        found = VggFeatures(vgg)(images)
    assert [f.shape[1] for f in found] == list(VggFeatures.channels)
    assert [tuple(f.shape[-2:]) for f in found] == [(20, 16), (10, 8), (5, 4), (2, 2)]
    for ours, theirs in zip(found, expected, strict=True):
        # LPIPS rounds the constants of ImageNet's mean and deviation.
        assert torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2 * float(theirs.max()))


def test_the_vgg_discriminator_trains_its_heads_alone(vgg: Lpips) -> None:
    adversary = make_adversary(replace(ON, network="vgg"), CPU, 0, vgg)
    assert adversary is not None
    trunk = [p.clone() for p in vgg.parameters()]
    assert all(name.startswith("heads.") for name in adversary.discriminator.state_dict())
    layer = nn.Parameter(torch.full((1, 3, 1, 1), 0.5))
    real, blurred = textures(generator())
    fake = layer * blurred
    before = [p.clone() for p in adversary.parameters]
    term, _ = adversary.term(fake, real, (fake - real).square().mean(), layer, generator(), 1.0)
    term.backward()
    assert layer.grad is not None
    assert float(layer.grad.abs().sum()) > 0
    assert all(torch.equal(a, b) for a, b in zip(trunk, vgg.parameters(), strict=True))
    assert not any(p.requires_grad for p in vgg.parameters())
    # Every convolution moved; the last bias need not, since the two hinges cancel there at logits near 0.
    assert not any(torch.equal(a, b) for a, b in zip(before, adversary.parameters, strict=True) if a.ndim == 4)
