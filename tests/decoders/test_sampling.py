"""The sampling loop with denoisers whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from decoders.denoiser import Denoiser
from decoders.flow import FlowName, make_flow
from decoders.sampling import sample, split_steps
from decoders.training.scales import image_pyramid
from harness.errors import MsbenchError
from harness.noise import SampleNoise

FLOWS: tuple[FlowName, ...] = ("cascade", "pyramid", "noise-free")


class Oracle:
    """Knows the clean image of every scale, and keeps the calls it got."""

    def __init__(self, images: Tensor, scales: int) -> None:
        self.config = SimpleNamespace(down_factor=8, scales=scales, prediction="image")
        self.pyramid = image_pyramid(images, scales)
        self.calls: list[tuple[int, float, tuple[int, ...], torch.dtype]] = []
        self.projections = 0

    def project(self, latents: Tensor) -> list[Tensor]:
        self.projections += 1
        return [latents] * self.config.scales

    def __call__(self, x: Tensor, condition: Tensor, scale: int, time: Tensor, corruption: Tensor) -> Tensor:
        self.calls.append((scale, float(time[0]), tuple(x.shape), x.dtype))
        assert float(corruption.abs().max()) == 0
        return self.pyramid[scale].to(x.dtype)


def pictures(count: int = 2, height: int = 32, width: int = 64) -> Tensor:
    return torch.rand((count, 3, height, width), generator=torch.Generator().manual_seed(0)) * 2 - 1


def noise(count: int, seed: int = 0) -> SampleNoise:
    return SampleNoise.for_samples(seed, [f"sample-{index}" for index in range(count)])


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize(("scales", "steps"), [(1, 1), (1, 2), (1, 50), (2, 5), (3, 3), (3, 4), (3, 50)])
def test_an_oracle_gives_back_the_image(name: FlowName, scales: int, steps: int) -> None:
    images = pictures()
    oracle = Oracle(images, scales)
    shares = split_steps(steps, scales)
    ends: dict[int, Tensor] = {}
    latents = torch.zeros(2, 4, 4, 8)
    output = sample(oracle, make_flow(name, scales), latents, shares, noise(2), ends.__setitem__)  # type: ignore[arg-type]
    assert torch.allclose(output, images, atol=2e-5)
    # NFE calls, in order, each scale from τ = 0 in equal steps, on that scale's grid; latents projected once.
    assert len(oracle.calls) == steps
    assert oracle.projections == 1
    expected = [(k, index / count) for k, count in enumerate(shares) for index in range(count)]
    assert [(k, pytest.approx(time)) for k, time, _, _ in oracle.calls] == expected
    for k, _, shape, _ in oracle.calls:
        shrink = 2 ** (scales - 1 - k)
        assert shape == (2, 3, 32 // shrink, 64 // shrink)
    assert list(ends) == list(range(scales))
    if name != "pyramid":  # each scale ends in its clean image
        for k, end in ends.items():
            assert torch.allclose(end, oracle.pyramid[k], atol=2e-5)


@pytest.mark.parametrize("name", FLOWS)
def test_the_path_is_walked_in_float32(name: FlowName) -> None:
    """With a bf16 network the times must not be rounded: only the oracle's own rounding is left."""
    images = pictures()
    oracle = Oracle(images, 1)
    output = sample(oracle, make_flow(name, 1), torch.zeros(2, 4, 4, 8, dtype=torch.bfloat16), (50,), noise(2))  # type: ignore[arg-type]
    assert output.dtype == torch.float32
    assert {dtype for *_, dtype in oracle.calls} == {torch.bfloat16}
    assert torch.allclose(output, images.bfloat16().float(), atol=1e-4)
    assert oracle.calls[-1][1] == pytest.approx(0.98)


@pytest.mark.parametrize(
    ("name", "scales", "draws"), [("cascade", 3, 3), ("pyramid", 3, 3), ("cascade", 1, 1), ("noise-free", 3, 0)]
)
def test_one_draw_a_scale_whatever_the_steps(
    name: FlowName, scales: int, draws: int, counting_noise: Callable[[int], object]
) -> None:
    for steps in (scales, 10):
        source = counting_noise(2)
        oracle = Oracle(pictures(), scales)
        sample(oracle, make_flow(name, scales), torch.zeros(2, 4, 4, 8), split_steps(steps, scales), source)  # type: ignore[arg-type]
        assert [draw for _, draw in source.drawn] == list(range(draws))  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "scales"), [("cascade", 1), ("cascade", 3), ("pyramid", 3)])
def test_noise_belongs_to_the_sample(name: FlowName, scales: int, tiny_denoiser: Callable[[int], Denoiser]) -> None:
    """A real network: batches of 1, 7 and 32 agree to float32's reassociation, in any order."""
    network = tiny_denoiser(scales)
    keys = [f"sample-{index}" for index in range(32)]
    latents = torch.randn((32, 4, 4, 4), generator=torch.Generator().manual_seed(0))

    def decode(indices: list[int]) -> Tensor:
        source = SampleNoise.for_samples(0, [keys[index] for index in indices])
        with torch.inference_mode():
            return sample(network, make_flow(name, scales), latents[indices], (2,) * scales, source)

    whole = decode(list(range(32)))
    for size in (1, 7):
        parts = torch.cat([decode(list(range(start, min(start + size, 32)))) for start in range(0, 32, size)])
        assert torch.allclose(parts, whole, atol=2e-5)
    order = list(range(31, -1, -1))
    assert torch.allclose(decode(order).flip(0), whole, atol=2e-5)
    # Another sample's noise is another picture: the test above is not about a network that ignores it.
    assert not torch.allclose(decode([0]), decode([1]), atol=1e-2)
    with torch.inference_mode():
        other = sample(network, make_flow(name, scales), latents[:1], (2,) * scales, SampleNoise.for_samples(1, keys[:1]))
    assert not torch.allclose(other, whole[:1], atol=1e-2)


@pytest.mark.parametrize(
    ("steps", "scales", "expected"),
    [(50, 3, (16, 17, 17)), (50, 1, (50,)), (3, 3, (1, 1, 1)), (50, 4, (12, 12, 13, 13)), (5, 3, (1, 2, 2)), (1, 1, (1,))],
)
def test_steps_are_split_evenly_and_the_rest_goes_to_the_finest(steps: int, scales: int, expected: tuple[int, ...]) -> None:
    assert split_steps(steps, scales) == expected
    assert sum(expected) == steps


@pytest.mark.parametrize(
    ("steps", "scales", "words"), [(2, 3, "at least one step a scale"), (0, 1, "step"), (5, 0, "at least one")]
)
def test_impossible_splits_are_refused(steps: int, scales: int, words: str) -> None:
    with pytest.raises(MsbenchError, match=words):
        split_steps(steps, scales)
