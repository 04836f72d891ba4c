"""The flows: white noise across the jump, ends that meet, velocities that are exact for a perfect estimate."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from decoders.flow import CascadeFlow, Flow, FlowName, NoiseFreeFlow, Normal, PyramidFlow, double, halve, make_flow

SCALES = (2, 3, 4)


def normal_of(seed: int, count: int) -> Normal:
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn((count, *shape), generator=generator)


def no_noise(shape: tuple[int, ...]) -> Tensor:
    raise AssertionError(f"asked to draw {shape}")


def images(count: int = 4, size: int = 16) -> Tensor:
    """Float64 pictures in [-1, 1] with detail at every scale."""
    return torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1


def blocks(x: Tensor) -> Tensor:
    """The 2×2 blocks as rows: [B, C, H, W] -> [n, 4]."""
    return torch.nn.functional.pixel_unshuffle(x.flatten(0, 1)[:, None], 2).movedim(1, -1).flatten(0, -2)


def test_halve_and_double() -> None:
    x = images()
    assert halve(x).shape == (4, 3, 8, 8)
    assert torch.allclose(halve(x)[0, 0, 0, 0], x[0, 0, :2, :2].mean())
    assert torch.equal(double(x)[..., ::2, 1::2], x)
    assert torch.allclose(halve(double(x)), x)


@pytest.mark.parametrize(("scales", "scale"), [(k, s) for k in SCALES for s in range(1, k)])
def test_the_jump_keeps_white_noise(scales: int, scale: int) -> None:
    flow = PyramidFlow(scales)
    sigma, level = flow.end_noise(scale - 1), flow.start_noise(scale)
    normal = normal_of(scales * 10 + scale, 64)
    noise = sigma * normal((3, 32, 32))  # the noise that scale k-1 ends with
    rows = blocks(flow.jump(noise, sigma, normal((3, 64, 64)))).double() / level
    n = len(rows)
    # Five standard errors: 1/√n for means and correlations, √(2/n) for variances.
    assert rows.mean(dim=0).abs().max() < 5 / math.sqrt(n)
    covariance = rows.T @ rows / n
    assert (covariance.diagonal() - 1).abs().max() < 5 * math.sqrt(2 / n)
    assert (covariance - covariance.diagonal().diag()).abs().max() < 5 / math.sqrt(n)


def test_the_jump_keeps_white_noise_exactly() -> None:
    """The covariance of one 2×2 block in closed form, from the map's matrix: the input value and the four white ones."""
    for sigma in (0.25, 1 / 3, 0.5, 2 / 3, 0.75):
        columns = []
        for index in range(5):
            previous = torch.full((1, 1, 1, 1), sigma if index == 0 else 0.0, dtype=torch.float64)
            white = torch.zeros(4, dtype=torch.float64)
            if index > 0:
                white[index - 1] = 1.0
            columns.append(PyramidFlow.jump(previous, sigma, white.view(1, 1, 2, 2)).flatten())
        matrix = torch.stack(columns, dim=1)
        level = 2 * sigma / (1 + sigma)
        assert torch.allclose(matrix @ matrix.T, level**2 * torch.eye(4, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize(("scales", "scale"), [(k, s) for k in SCALES for s in range(1, k)])
def test_the_jump_leads_to_the_start_that_training_saw(scales: int, scale: int) -> None:
    flow = PyramidFlow(scales)
    clean = images()

    def zeros(shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(len(clean), *shape, dtype=torch.float64)

    # The image's part, without noise; that the noise's level is a_k is what the test of white noise checks.
    end = flow.training_pair(scale - 1, halve(clean), zeros, torch.zeros(4)).end
    start = flow.training_pair(scale, clean, zeros, torch.zeros(4)).start
    jumped = flow.start(scale, end, zeros)
    assert torch.allclose(jumped, start, atol=1e-12)
    assert torch.allclose(start, (1 - flow.start_noise(scale)) * double(halve(clean)), atol=1e-12)
    assert torch.allclose(end, (1 - flow.end_noise(scale - 1)) * halve(clean), atol=1e-12)


def test_noise_levels_fall_from_pure_noise_to_none() -> None:
    for scales in (1, *SCALES):
        flow = PyramidFlow(scales)
        assert flow.start_noise(0) == 1.0
        assert flow.end_noise(scales - 1) == 0.0
        for scale in range(scales):
            assert flow.start_noise(scale) > flow.end_noise(scale)
        assert all(flow.start_noise(b) > flow.end_noise(a) for a, b in pairwise(range(scales)))  # the jump adds noise


def all_cases() -> list[tuple[FlowName, int, int]]:
    names: tuple[FlowName, ...] = ("cascade", "pyramid", "noise-free")
    return [(name, scales, scale) for name in names for scales in (1, *SCALES) for scale in range(scales)]


@pytest.mark.parametrize(("name", "scales", "scale"), all_cases())
def test_a_perfect_estimate_gives_the_exact_velocity(name: FlowName, scales: int, scale: int) -> None:
    flow = make_flow(name, scales)
    clean = images()
    generator = torch.Generator().manual_seed(2)
    pair = flow.training_pair(
        scale, clean, lambda shape: torch.randn((4, *shape), generator=generator).double(), torch.rand(4, generator=generator)
    )
    for tau in (0.0, 0.3, 0.9, 0.999):
        time = torch.full((4,), tau, dtype=torch.float64)
        velocity = flow.velocity(scale, pair.at(time), clean, time)
        assert torch.allclose(velocity, pair.end - pair.start, atol=1e-9)


@pytest.mark.parametrize(("name", "scales", "scale"), all_cases())
def test_the_exact_velocity_gives_the_clean_image(name: FlowName, scales: int, scale: int) -> None:
    flow = make_flow(name, scales)
    clean = images()
    generator = torch.Generator().manual_seed(4)
    pair = flow.training_pair(
        scale, clean, lambda shape: torch.randn((4, *shape), generator=generator).double(), torch.rand(4, generator=generator)
    )
    for tau in (0.0, 0.3, 0.9, 1.0):
        time = torch.full((4,), tau, dtype=torch.float64)
        assert torch.allclose(flow.estimate(scale, pair.at(time), pair.end - pair.start, time), clean, atol=1e-9)


@pytest.mark.parametrize(("name", "scales", "scale"), all_cases())
def test_the_path_is_straight_from_start_to_end(name: FlowName, scales: int, scale: int) -> None:
    """Euler with a perfect estimate arrives at the end in any number of steps, even with a time per sample."""
    flow = make_flow(name, scales)
    clean = images()
    generator = torch.Generator().manual_seed(3)
    pair = flow.training_pair(
        scale, clean, lambda shape: torch.randn((4, *shape), generator=generator).double(), torch.rand(4, generator=generator)
    )
    for steps in (1, 2, 7):
        x = pair.start
        for index in range(steps):
            x = x + flow.velocity(scale, x, clean, torch.full((4,), index / steps, dtype=torch.float64)) / steps
        assert torch.allclose(x, pair.end, atol=1e-9)
    times = torch.tensor([0.0, 0.2, 0.5, 1.0], dtype=torch.float64)
    assert torch.equal(pair.at(times)[0], pair.start[0])
    assert torch.allclose(pair.at(times)[3], pair.end[3], atol=1e-12)


def test_with_one_scale_cascade_and_pyramid_are_one_flow() -> None:
    cascade, pyramid = CascadeFlow(1), PyramidFlow(1)
    clean = images().float()
    uniform, time = torch.rand(4), torch.tensor([0.0, 0.2, 0.7, 0.95])
    pairs = [flow.training_pair(0, clean, normal_of(5, 4), uniform) for flow in (cascade, pyramid)]
    for field in ("start", "end", "clean", "corruption"):
        assert torch.equal(getattr(pairs[0], field), getattr(pairs[1], field)), field
    estimate = clean + 0.1
    velocities = [flow.velocity(0, pairs[0].at(time), estimate, time) for flow in (cascade, pyramid)]
    assert torch.allclose(velocities[0], velocities[1], rtol=1e-4, atol=1e-4)
    starts = [flow.start(0, torch.zeros(4, 3, 16, 16), normal_of(6, 4)) for flow in (cascade, pyramid)]
    assert torch.equal(starts[0], starts[1])


@pytest.mark.parametrize("scales", [1, 3])
def test_the_noise_free_flow_draws_nothing(scales: int) -> None:
    flow = NoiseFreeFlow(scales)
    clean = images()
    for scale in range(scales):
        pair = flow.training_pair(scale, clean, no_noise, torch.zeros(4))
        assert torch.equal(pair.end, clean)
        previous = clean if scale == 0 else halve(clean)
        assert torch.equal(flow.start(scale, previous, no_noise), pair.start)


def test_sampling_starts_where_training_started() -> None:
    """Cascade: the doubled coarse image and s·ε; the corruption is told to the network and grows with `uniform`."""
    flow = CascadeFlow(2)
    clean = images(64, 32).float()
    start = flow.start(1, halve(clean), normal_of(7, 64))
    residual = start - double(halve(clean))
    assert residual.std() == pytest.approx(flow.bridge_noise, rel=5 / math.sqrt(2 * residual.numel()))
    pair = flow.training_pair(1, clean, normal_of(8, 64), torch.ones(64))
    assert torch.allclose(pair.corruption, torch.full((64,), flow.max_corruption))
    # Corruption is drawn on the coarse grid: doubled, it is shared by the four pixels of a block.
    rows = blocks(pair.start - double(halve(clean))).double()
    covariance = rows.T @ rows / len(rows)
    n = len(rows)
    assert covariance[0, 1] == pytest.approx(flow.max_corruption**2, abs=5 * 0.13 * math.sqrt(2 / n))
    assert covariance[0, 0] == pytest.approx(flow.max_corruption**2 + flow.bridge_noise**2, rel=5 * math.sqrt(2 / n))


@pytest.mark.parametrize("name", ["cascade", "pyramid", "noise-free"])
def test_starts_have_the_scale_s_shape(name: FlowName) -> None:
    flow: Flow = make_flow(name, 2)
    assert flow.scales == 2
    assert flow.start(0, torch.zeros(2, 3, 6, 4), normal_of(0, 2)).shape == (2, 3, 6, 4)
    assert flow.start(1, torch.zeros(2, 3, 6, 4), normal_of(0, 2)).shape == (2, 3, 12, 8)
