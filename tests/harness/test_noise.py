"""The noise source: published answers of the generator, the distribution it gives, and that a sample's draws are its own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from harness.noise import SampleNoise, philox4x32, sample_keys

COUNT = 200_000


def words(*values: int) -> list[Tensor]:
    return [torch.tensor([value], dtype=torch.int64) for value in values]


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_answers(counter: tuple[int, ...], key: tuple[int, ...], answer: tuple[int, ...]) -> None:
    """kat_vectors of Random123, "philox4x32 10"."""
    c, k = words(*counter), words(*key)
    got = philox4x32((c[0], c[1], c[2], c[3]), (k[0], k[1]))
    assert tuple(int(word) for word in got) == answer


@pytest.mark.parametrize(
    "shapes", [((5,), (), (), ()), ((), (5,), (), ()), ((), (), (), (5,)), ((5,), (3, 1), (), ()), ((), (3, 1), (1, 5), ())]
)
def test_philox_broadcasts_words_of_any_shapes(shapes: tuple[tuple[int, ...], ...]) -> None:
    drawn = torch.Generator().manual_seed(0)
    counter = [torch.randint(0, 2**32, shape, generator=drawn) for shape in shapes]
    key = torch.tensor(7), torch.tensor(11)
    got = philox4x32((counter[0], counter[1], counter[2], counter[3]), key)
    full = torch.broadcast_tensors(*counter)
    alone = [philox4x32((a, b, c, d), key) for a, b, c, d in zip(*(one.flatten() for one in full), strict=True)]
    for place, word in enumerate(got):
        assert torch.equal(word.flatten(), torch.stack([one[place] for one in alone]))


def draws(key: str = "a", draw: int = 0, count: int = COUNT, seed: int = 0) -> Tensor:
    return SampleNoise.for_samples(seed, [key]).normal((count,), draw)[0].double()


@pytest.mark.parametrize("key", ["a", "photo-r0c1"])
def test_moments_are_those_of_a_normal(key: str) -> None:
    x = draws(key)
    # Four standard errors of each sample moment of N(0, 1): √(Var(x^k) / n).
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert x.pow(power).mean() == pytest.approx(expected, abs=4 * math.sqrt(variance / COUNT))


def test_distribution_is_normal_by_kolmogorov_and_smirnov() -> None:
    x = draws().sort().values
    cdf = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    grid = torch.arange(COUNT + 1).double() / COUNT
    distance = torch.maximum((cdf - grid[:-1]).abs().max(), (cdf - grid[1:]).abs().max())
    assert float(distance) < 1.95 / math.sqrt(COUNT)  # p = 0.001


def test_tails_are_neither_cut_nor_heavy() -> None:
    x = draws().abs()
    for threshold in (3.0, 4.0):
        expected = COUNT * math.erfc(threshold / math.sqrt(2))
        assert int((x > threshold).sum()) == pytest.approx(expected, abs=4 * math.sqrt(expected))
    assert 4.0 < x.max() < 5.9


def test_draws_samples_seeds_and_neighbours_are_independent() -> None:
    x = draws()
    others = {
        "draw": draws(draw=1),
        "key": draws("b"),
        "seed": draws(seed=1),
        "next": x.roll(1),
        "within a block": x.view(-1, 4).roll(1, dims=1).flatten(),
        "half away": x.roll(COUNT // 2),
    }
    for name, y in others.items():
        assert abs(float((x * y).mean())) < 4 / math.sqrt(COUNT), name
        # Box-Muller pairs share a radius: squares must not be related either.
        assert abs(float(((x**2 - 1) * (y**2 - 1)).mean())) < 4 * 2 / math.sqrt(COUNT), name


def test_a_sample_draws_the_same_in_any_batch_and_order() -> None:
    keys = [f"sample-{index}" for index in range(7)]
    shape = (3, 5, 6)
    alone = {key: SampleNoise.for_samples(3, [key]).normal(shape, 2)[0] for key in keys}
    for order in (keys, keys[::-1], keys[2:5], [keys[4], keys[4], keys[0]]):
        together = SampleNoise.for_samples(3, order).normal(shape, 2)
        for key, noise in zip(order, together, strict=True):
            assert torch.equal(noise, alone[key])


def test_shape_and_dtype() -> None:
    source = SampleNoise.for_samples(0, ["a", "b"])
    for shape in ((3, 8, 8), (1,), (5,), (3, 7, 9)):
        noise = source.normal(shape, 0)
        assert noise.shape == (2, *shape)
        assert noise.dtype == torch.float32
        assert noise.isfinite().all()
    # A longer draw begins with the shorter one: element i does not depend on how many follow.
    assert torch.equal(source.normal((10,), 0)[:, :7], source.normal((7,), 0))


@pytest.mark.parametrize("counters", [1, 7, 64])
def test_working_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch, counters: int) -> None:
    source = SampleNoise.for_samples(0, ["a", "b"])
    whole = source.normal((3, 9, 11), 1)
    monkeypatch.setattr("harness.noise._CHUNK", counters)
    assert torch.equal(source.normal((3, 9, 11), 1), whole)


def test_extreme_words_give_finite_normals() -> None:
    """All-ones words give the largest uniform, zeros the smallest; both ends must stay finite."""
    for word in (0, 0xFFFFFFFF):
        uniform = ((torch.tensor([word]) >> 8).float() + 0.5) * 2.0**-24
        assert 0 < float(uniform) <= 1
        assert torch.sqrt(-2.0 * torch.log(uniform)).isfinite().all()


def test_keys_are_64_bits_and_differ_by_seed_and_name() -> None:
    keys = sample_keys(0, [f"k{index}" for index in range(1000)])
    assert keys.shape == (1000, 2)
    assert keys.min() >= 0
    assert keys.max() < 2**32
    assert len(set(map(tuple, keys.tolist()))) == 1000
    assert not torch.equal(sample_keys(0, ["a"]), sample_keys(1, ["a"]))
    # Seed and name are told apart: (1, "2x") is not (12, "x").
    assert not torch.equal(sample_keys(1, ["2x"]), sample_keys(12, ["x"]))
    assert sample_keys(0, []).shape == (0, 2)
