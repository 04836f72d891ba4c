"""The adversary: losses and adaptive weight worked out by hand, discriminators that learn, exact state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoders.training.adversary import (
    Adversary,
    AdversaryConfig,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
    make_adversary,
)
from harness.errors import MsbenchError

CPU = torch.device("cpu")
ON = AdversaryConfig(weight=0.5, start=0.25, crop=16)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Brightness(nn.Module):
    """One logit map: a learned gain on the mean over the channels."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.gain * images.mean(dim=1, keepdim=True)]


def test_hinge_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 3.0])
    # max(0, 1 - real) = 0, 0.5, 2 and max(0, 1 + fake) = 0, 1, 4.
    assert discriminator_loss([real], [fake]) == pytest.approx(2.5 / 3 + 5 / 3)
    assert generator_loss([fake]) == pytest.approx(-1 / 3)
    # A second map of another size counts as much as the first: hinge 2 with all logits 0.
    zeros = torch.zeros(7)
    assert discriminator_loss([real, zeros], [fake, zeros]) == pytest.approx((7.5 / 3 + 2) / 2)
    assert generator_loss([fake, torch.full((5,), 2.0)]) == pytest.approx((-1 / 3 - 2) / 2)


def test_adaptive_weight_by_hand() -> None:
    layer = nn.Parameter(torch.tensor([3.0, 4.0]))
    reconstruction, adversarial = 0.5 * layer.square().sum(), 2.0 * layer.sum()
    # Gradients (3, 4) and (2, 2).
    weight = adaptive_weight(reconstruction, adversarial, layer)
    assert weight == pytest.approx(5 / 8**0.5, rel=1e-5)
    assert not weight.requires_grad
    assert layer.grad is None
    (reconstruction + adversarial).backward()  # the graphs are still there
    assert layer.grad is not None
    assert torch.equal(layer.grad, torch.tensor([5.0, 6.0]))
    assert adaptive_weight(layer.square().sum(), 0.0 * layer.sum(), layer) == 1e4


def test_the_term_is_weight_times_ratio_times_loss() -> None:
    """An image that is one layer's weight everywhere, judged by its brightness."""
    layer = nn.Parameter(torch.tensor([0.2, -0.4, 0.5]))
    fake = layer.view(1, 3, 1, 1).expand(2, 3, 8, 8)
    real = torch.full((2, 3, 8, 8), 0.6)
    adversary = Adversary(ON, Brightness(gain=2.0))
    reconstruction = (fake - real).square().mean()
    term, parts = adversary.term(fake, real, reconstruction, layer, generator(), 0.5)
    gain = float(adversary.parameters[0].detach())
    # Hinge before the step: logits 1.2 and 0.2, so 0 + 1.2; d/dgain = 0.1, and AdamW's first step is the learning rate.
    assert parts["discriminator"] == pytest.approx(1.2, rel=1e-5)
    assert gain == pytest.approx(2.0 - ON.learning_rate, abs=1e-6)
    # Gradients at the layer: 2 (layer - 0.6) / 3 and -gain / 3 in each of three channels.
    ratio = (2 / 3) * (0.4**2 + 1.0**2 + 0.1**2) ** 0.5 / (gain / 3 * 3**0.5)
    assert parts["adaptive"] == pytest.approx(ratio, rel=1e-4)
    assert parts["adversarial"] == pytest.approx(-gain * 0.1, rel=1e-4)
    assert float(term.detach()) == pytest.approx(0.5 * ratio * -gain * 0.1, rel=1e-4)
    term.backward()
    assert layer.grad is not None
    assert torch.allclose(layer.grad, torch.full((3,), -0.5 * ratio * gain / 3), rtol=1e-4)
    # The generator's gradients end at the discriminator, which stays trainable.
    assert all(p.requires_grad for p in adversary.parameters)
    assert adversary.discriminator.gain.grad == pytest.approx(0.1, rel=1e-5)


def test_nothing_happens_before_the_start() -> None:
    layer = nn.Parameter(torch.ones(1, 3, 1, 1))
    fake, real = layer.expand(2, 3, 20, 20), torch.zeros(2, 3, 20, 20)
    adversary = make_adversary(ON, CPU, 0)
    assert adversary is not None
    draws, before = generator(), [p.clone() for p in adversary.parameters]
    untouched = draws.get_state()
    term, early = adversary.term(fake, real, fake.square().mean(), layer, draws, 0.249)
    assert float(term) == 0
    assert torch.equal(draws.get_state(), untouched)
    assert all(torch.equal(a, b) for a, b in zip(before, adversary.parameters, strict=True))
    assert not adversary.optimizer.state
    _, late = adversary.term(fake, real, fake.square().mean(), layer, draws, 0.25)
    assert not torch.equal(draws.get_state(), untouched)
    assert not all(torch.equal(a, b) for a, b in zip(before, adversary.parameters, strict=True))
    assert list(early) == list(late)  # the log's columns never change


def test_weight_zero_is_no_adversary_and_a_trunk_is_needed() -> None:
    assert make_adversary(AdversaryConfig(), CPU, 0) is None
    with pytest.raises(MsbenchError, match="VGG16"):
        make_adversary(AdversaryConfig(weight=1.0, network="vgg"), CPU, 0)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one, two, other = (make_adversary(ON, CPU, seed) for seed in (0, 0, 1))
    assert one is not None
    assert two is not None
    assert other is not None
    layer = nn.Parameter(torch.ones(1, 3, 1, 1))
    one.term(layer.expand(2, 3, 20, 20), torch.zeros(2, 3, 20, 20), layer.sum(), layer, generator(), 1.0)
    assert torch.equal(torch.get_rng_state(), state)
    fresh = make_adversary(ON, CPU, 0)
    assert fresh is not None
    assert all(torch.equal(a, b) for a, b in zip(two.parameters, fresh.parameters, strict=True))
    assert not torch.equal(two.parameters[0], other.parameters[0])


def textures(draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Fine grain, and the same smoothed: what a blurred decoder makes of it."""
    real = torch.rand((4, 3, 24, 24), generator=draws) * 2 - 1
    return real, F.avg_pool2d(real, 3, stride=1, padding=1)


def run(adversary: Adversary, steps: Sequence[int]) -> None:
    layer = nn.Parameter(torch.full((1, 3, 1, 1), 0.5))
    for step in steps:
        draws = generator(step)
        real, blurred = textures(draws)
        fake = layer * blurred
        adversary.term(fake, real, (fake - real).square().mean(), layer, draws, 1.0)


def test_saved_state_goes_on_exactly(tmp_path: Any) -> None:
    straight, parts, resumed, forgetful = (make_adversary(ON, CPU, 0) for _ in range(4))
    assert straight is not None
    assert parts is not None
    assert resumed is not None
    assert forgetful is not None
    run(straight, range(8))
    run(parts, range(4))
    torch.save(parts.extra_state(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed.load_extra_state(state)
    run(resumed, range(4, 8))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters, resumed.parameters, strict=True))
    # Without the optimiser's moments the weights would differ.
    forgetful.discriminator.load_state_dict(state["discriminator"])
    run(forgetful, range(4, 8))
    assert not torch.equal(straight.parameters[0], forgetful.parameters[0])
    with pytest.raises(MsbenchError, match="no discriminator like"):
        Adversary(ON, Brightness()).load_extra_state(state)


class Recorder:
    """In place of several processes: doubles gradients, fills weights, and remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        self.calls.append("average")
        assert all(p.grad is not None for p in parameters)
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, -1.0)

    def broadcast(self, module: nn.Module) -> None:
        self.calls.append("broadcast")
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(0.25)


def test_a_group_shares_weights_and_gradients() -> None:
    adversary, group = Adversary(ON, Brightness()), Recorder()
    adversary.use_group(group)
    assert adversary.discriminator.gain == 0.25
    run(adversary, range(3))
    assert group.calls == ["broadcast", "average", "average", "average"]
    # Gradients of -1 at every step: AdamW moves by the learning rate, upwards.
    assert float(adversary.parameters[0].detach()) == pytest.approx(0.25 + 3 * ON.learning_rate, abs=1e-6)


def test_a_discriminator_that_diverges_is_named() -> None:
    adversary, layer = Adversary(ON, Brightness(float("nan"))), nn.Parameter(torch.ones(1, 3, 1, 1))
    with pytest.raises(MsbenchError, match="discriminator diverged"):
        adversary.term(layer.expand(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), layer.sum(), layer, generator(), 1.0)


class Convolution(nn.Module):
    """The least that autocast runs in bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 1, 3)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.body(images)]


def test_several_terms_in_one_autocast_see_fresh_weights() -> None:
    """Autocast caches bf16 copies of weights; a stale copy would judge by the discriminator of before its step."""
    layer = nn.Parameter(torch.full((1, 3, 1, 1), 0.5))
    real, blurred = textures(generator())

    def losses(together: bool) -> list[float]:
        torch.manual_seed(0)
        adversary = Adversary(replace(ON, learning_rate=0.05), Convolution())

        def step() -> float:
            fake = layer * blurred
            reconstruction = (fake - real).square().mean()
            return adversary.term(fake, real, reconstruction, layer, generator(), 1.0)[1]["discriminator"]

        if together:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return [step() for _ in range(4)]
        values = []
        for _ in range(4):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                values.append(step())
        return values

    assert losses(together=True) == losses(together=False)
