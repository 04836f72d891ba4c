"""LPIPS as a training loss: which window it scores, and in which arithmetic."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from decoders.training.perceptual import PerceptualConfig, PerceptualLoss


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class SquaredDistance(torch.nn.Module):
    """In place of the LPIPS network: the mean square per image, and the sizes it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        self.shapes.append(tuple(estimate.shape))
        return (estimate - target).square().mean(dim=(1, 2, 3))


@pytest.mark.parametrize(
    ("batch", "size", "expected"), [(8, 96, (2, 3, 64, 64)), (2, 96, (1, 3, 64, 64)), (8, 32, (2, 3, 32, 32))]
)
def test_perceptual_loss_scores_the_same_window_of_both(batch: int, size: int, expected: tuple[int, ...]) -> None:
    network = SquaredDistance()
    loss = PerceptualLoss(network, PerceptualConfig())  # type: ignore[arg-type]
    images = torch.randn((batch, 3, size, size), generator=generator())
    assert loss(images, images.clone(), generator()) == 0
    assert loss(images, images + 0.5, generator()) == pytest.approx(0.25)
    assert network.shapes == [expected] * 2


def test_a_trunk_kept_in_bf16_gives_what_autocast_makes_of_it() -> None:
    """To the bit: autocast casts the same weights, only at every call."""

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = torch.nn.Module()
            self.network.net = torch.nn.Conv2d(3, 4, 3)

        def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
            return (self.network.net(estimate) - self.network.net(target)).float().square().mean(dim=(1, 2, 3))

    torch.manual_seed(0)
    plain = Network()
    kept = PerceptualLoss(copy.deepcopy(plain), PerceptualConfig(), torch.bfloat16)  # type: ignore[arg-type]
    images, others = torch.randn((2, 8, 3, 32, 32), generator=generator()).unbind()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = PerceptualLoss(plain, PerceptualConfig())(images, others, generator())  # type: ignore[arg-type]
        assert torch.equal(kept(images, others, generator()), expected)
    assert kept.network.network.net.weight.dtype == torch.bfloat16  # type: ignore[union-attr]
    assert plain.network.net.weight.dtype == torch.float32
