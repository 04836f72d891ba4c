"""The denoiser: shapes, what it depends on, its cost, and the cost ratios of the decoders built from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from decoders.denoiser import Denoiser
from decoders.flow import FlowName
from decoders.presets import SIZES, denoiser_config
from decoders.sampling import split_steps
from harness.decoder import DecoderOptions
from harness.noise import SampleNoise
from harness.registry import build_decoder

META = torch.device("meta")


def inputs(network: Denoiser, scale: int, height: int, width: int, batch: int = 2) -> tuple[Tensor, list[Tensor]]:
    """An image of `scale` and the conditions of the latents of a full-resolution picture height × width."""
    generator = torch.Generator().manual_seed(1)
    shrink = 2 ** (network.config.scales - 1 - scale)
    latents = torch.randn((batch, network.config.latent_channels, height // 8, width // 8), generator=generator)
    x = torch.randn((batch, 3, height // shrink, width // shrink), generator=generator)
    return x, network.project(latents)


@pytest.mark.parametrize("scales", [1, 3])
def test_a_new_network_predicts_zero(scales: int) -> None:
    network = Denoiser(replace(denoiser_config(SIZES["nano"], scales), linear=False))
    x, conditions = inputs(network, scales - 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(x, conditions[-1], scales - 1, torch.rand(2), torch.zeros(2)), torch.zeros_like(x))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 64), (224, 160), (288, 32), (352, 96)])
def test_every_grid_the_padding_leaves_is_taken(height: int, width: int, tiny_denoiser: Callable[[int], Denoiser]) -> None:
    """Multiples of 32 pixels (K = 3): their coarser grids are odd on the way down."""
    network = tiny_denoiser(3)
    for scale in range(3):
        x, conditions = inputs(network, scale, height, width)
        with torch.no_grad():
            y = network(x, conditions[scale], scale, torch.zeros(2), torch.zeros(2))
        assert y.shape == x.shape
        assert y.isfinite().all()


def test_latents_are_folded_to_each_grid(tiny_denoiser: Callable[[int], Denoiser]) -> None:
    """Every latent's features reach every scale: pixel-unshuffle to that scale's grid, then a product."""
    network = tiny_denoiser(3)
    latents = torch.randn((2, 4, 12, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = network.latent_block(network.latent_stem(latents))
        for scale, condition in enumerate(network.project(latents)):
            j = 2 - scale
            expected = network.latent_fold[j](functional.pixel_unshuffle(features, 2**j))
            torch.testing.assert_close(condition.features, expected, rtol=1e-5, atol=1e-5)
            assert torch.equal(network.project_scale(latents, scale).features, condition.features)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (104, 72), (40, 264)])
def test_odd_latents_at_one_scale(height: int, width: int, tiny_denoiser: Callable[[int], Denoiser]) -> None:
    network = tiny_denoiser(1)
    x, conditions = inputs(network, 0, height, width)
    with torch.no_grad():
        assert network(x, conditions[0], 0, torch.zeros(2), torch.zeros(2)).shape == x.shape


def test_projecting_one_scale_is_that_entry_of_projecting_all(tiny_denoiser: Callable[[int], Denoiser]) -> None:
    network = tiny_denoiser(3)
    latents = torch.randn(2, 4, 8, 12)
    with torch.no_grad():
        for scale, condition in enumerate(network.project(latents)):
            assert torch.allclose(network.project_scale(latents, scale).features, condition.features, atol=1e-6)
            assert condition.features.shape == (2, 16, 8 // 2 ** (2 - scale), 12 // 2 ** (2 - scale))


def test_the_output_depends_on_everything_it_is_told(tiny_denoiser: Callable[[int], Denoiser]) -> None:
    network = tiny_denoiser(3)
    x, conditions = inputs(network, 1, 64, 64)
    zeros = torch.zeros(2)
    with torch.no_grad():
        base = network(x, conditions[1], 1, zeros, zeros)
        changed = {
            "image": network(x + 0.5, conditions[1], 1, zeros, zeros),
            "latents": network(x, conditions[1]._replace(features=conditions[1].features + 0.5), 1, zeros, zeros),
            "scale": network(x, conditions[1], 2, zeros, zeros),
            "time": network(x, conditions[1], 1, zeros + 0.5, zeros),
            "corruption": network(x, conditions[1], 1, zeros, zeros + 0.3),
        }
        # Time is told per sample.
        mixed = network(x, conditions[1], 1, torch.tensor([0.0, 0.5]), zeros)
    for name, output in changed.items():
        assert (output - base).abs().max() > 1e-4, name
    assert torch.allclose(mixed[0], base[0], atol=1e-5)
    assert torch.allclose(mixed[1], changed["time"][1], atol=1e-5)


def latents(network: Denoiser, side: int) -> Tensor:
    """Latents of a picture of side × side pixels, shapes only."""
    return torch.zeros(1, network.config.latent_channels, side // 8, side // 8, device=META)


def counted(network: Denoiser, scale: int, side: int) -> float:
    """F_k: GFLOPs of one forward at `scale` of a decode of side × side pixels."""
    shrink = 2 ** (network.config.scales - 1 - scale)
    x = torch.zeros(1, 3, side // shrink, side // shrink, device=META)
    condition = network.project(latents(network, side))[scale]
    one = torch.zeros(1, device=META)
    with FlopCounterMode(display=False) as counter:
        network(x, condition, scale, one, one)
    return counter.get_total_flops() / 1e9


def counted_once(network: Denoiser, side: int) -> float:
    """Z: GFLOPs of projecting the latents."""
    with FlopCounterMode(display=False) as counter:
        network.project(latents(network, side))
    return counter.get_total_flops() / 1e9


@pytest.fixture(scope="module")
def nano() -> Denoiser:
    return Denoiser(denoiser_config(SIZES["nano"], 3)).eval().to(META)


def test_nano_is_small(nano: Denoiser) -> None:
    assert 1e6 < sum(p.numel() for p in nano.parameters()) < 8e6
    costs = [counted(nano, scale, 256) for scale in range(3)]
    assert 1 < costs[2] <= 10
    # A quarter of the pixels is about a quarter of the cost; what is paid per call (the embedding) keeps it above.
    for coarse, fine in pairwise(costs):
        assert 0.25 * fine <= coarse < 0.27 * fine
    assert counted_once(nano, 256) < 0.2 * costs[2]


def decode_gflops(flow: FlowName, scales: int, steps: int, side: int = 256) -> float:
    """GFLOPs of a whole decode, as the harness runs it, shapes only."""
    name = "ms-diffusion" if flow == "pyramid" else "ms-diffusion-cascade"
    decoder = build_decoder(name, DecoderOptions(device=META, weights="random", scales=scales, steps=steps))
    noise = SampleNoise.for_samples(0, ["a"], META)
    with FlopCounterMode(display=False) as counter:
        decoder.decode(torch.zeros(1, decoder.spec.latent_channels, side // 8, side // 8, device=META), noise)
    return counter.get_total_flops() / 1e9


@pytest.fixture(scope="module")
def diffusion_50() -> float:
    return decode_gflops("cascade", 1, 50)


@pytest.mark.parametrize(("flow", "steps", "at_least"), [("cascade", 3, 33.0), ("pyramid", 50, 1.9), ("cascade", 50, 1.9)])
def test_speed_ups_in_counted_flops(flow: FlowName, steps: int, at_least: float, diffusion_50: float, nano: Denoiser) -> None:
    ratio = diffusion_50 / decode_gflops(flow, 3, steps)
    assert ratio >= at_least
    forwards, once = [counted(nano, k, 256) for k in range(3)], counted_once(nano, 256)
    several = sum(count * gflops for count, gflops in zip(split_steps(steps, 3), forwards, strict=True))
    assert ratio == pytest.approx((50 * forwards[-1] + once) / (several + once), rel=0.05)
