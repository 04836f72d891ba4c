"""FLOPs, memory and the whole measurement, on decoders whose cost is known by construction."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.cost import memory
from harness.cost.cost import CostProtocol, is_out_of_memory, measure_cost
from harness.cost.flops import count_flops
from harness.cost.memory import peak_memory_mb
from harness.decoder import DecoderSpec, NoiseSource
from harness.noise import SampleNoise

CPU = torch.device("cpu")
QUICK = CostProtocol(batch_sizes=(1, 4), min_calls=2, max_calls=3, max_seconds=0.2)


class FakeDecoder:
    """Runs `function` on the latents."""

    def __init__(self, function: Callable[[Tensor, NoiseSource], Tensor], parameters: int = 0) -> None:
        self.function = function
        self.spec = DecoderSpec("fake", 1, 3, 1, 1, parameters, None, None, "nothing")

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        return self.function(latents, noise)


def noise_for(count: int) -> SampleNoise:
    return SampleNoise.for_samples(0, [str(index) for index in range(count)])


def test_a_convolution_counts_two_flops_per_multiply_add() -> None:
    conv = nn.Conv2d(3, 8, 3, padding=1)
    decoder = FakeDecoder(lambda latents, noise: conv(latents))
    expected = 2 * 8 * 16 * 12 * 3 * 9 / 1e9
    assert count_flops(decoder, torch.zeros(1, 3, 16, 12), noise_for(1)) == pytest.approx(expected)
    assert count_flops(decoder, torch.zeros(2, 3, 16, 12), noise_for(2)) == pytest.approx(expected)


def test_every_step_and_the_attention_count() -> None:
    linear = nn.Linear(8, 8)

    def decode(latents: Tensor, noise: NoiseSource) -> Tensor:
        for _ in range(3):
            latents = linear(latents)
        return functional.scaled_dot_product_attention(latents, latents, latents)

    counted = count_flops(FakeDecoder(decode), torch.zeros(1, 2, 16, 8), noise_for(1))
    assert counted == pytest.approx((3 * 2 * 32 * 8 * 8 + 2 * 2 * 2 * 16 * 16 * 8) / 1e9)


def test_nothing_counts_without_a_network() -> None:
    decoder = FakeDecoder(lambda latents, noise: latents + noise.normal(latents.shape[1:], 0))
    assert count_flops(decoder, torch.zeros(1, 3, 8, 8), noise_for(1)) is None


def test_cpu_memory_sees_a_buffer_that_is_gone_at_the_end() -> None:
    def decode() -> None:
        torch.ones(16 * 2**20)  # 64 MiB of float32

    decode()
    peak = peak_memory_mb(decode, CPU)
    if peak is None:
        pytest.skip("this platform does not tell its resident memory")
    assert 60 < peak < 80
    small = peak_memory_mb(lambda: torch.ones(2**18), CPU)
    assert small is not None
    assert small < 12


def test_cpu_memory_is_sampled_where_the_kernel_keeps_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    if not memory._STATM.is_file():
        pytest.skip("this platform does not tell its resident memory")
    monkeypatch.setattr(memory, "_reset_kernel_peak", lambda: False)
    peak = peak_memory_mb(lambda: torch.ones(16 * 2**20), CPU)
    assert peak is not None
    assert 60 < peak < 80


def test_a_whole_measurement() -> None:
    conv = nn.Conv2d(3, 3, 3, padding=1)
    seen: list[tuple[int, ...]] = []

    def decode(latents: Tensor, noise: NoiseSource) -> Tensor:
        seen.append(tuple(latents[:, 0, 0, 0].int().tolist()))
        return conv(latents) + noise.normal(latents.shape[1:], 0)

    latents = torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 3, 16, 16)
    cost = measure_cost(FakeDecoder(decode, parameters=84), latents, noise_for, QUICK, CPU)
    assert set(seen) == {(0,), (0, 1, 2, 0)}  # real latents, repeated in turn
    assert [cell.status for cell in cost.cells] == ["ok", "ok"]
    assert list(cost.ms_per_image) == [1, 4]
    for cell in cost.cells:
        assert cell.latency is not None
        assert cost.ms_per_image[cell.batch_size] == cell.latency.median_ms / cell.batch_size
    assert cost.gflops == pytest.approx(2 * 3 * 256 * 27 / 1e9)
    assert cost.parameters == 84


def test_out_of_memory_is_recorded_for_its_batch_size_alone() -> None:
    def decode(latents: Tensor, noise: NoiseSource) -> Tensor:
        return latents if latents.shape[0] < 4 else torch.empty(2**55)  # the CPU allocator's own error

    cost = measure_cost(FakeDecoder(decode), torch.zeros(1, 3, 8, 8), noise_for, QUICK, CPU)
    assert [(cell.batch_size, cell.status, cell.latency is None) for cell in cost.cells] == [
        (1, "ok", False),
        (4, "out of memory", True),
    ]
    assert list(cost.ms_per_image) == [1]
    assert cost.cells[0].latency is not None
    assert len(cost.cells[0].latency.samples_ms) >= QUICK.min_calls


def test_out_of_memory_everywhere_leaves_an_empty_cost() -> None:
    def decode(latents: Tensor, noise: NoiseSource) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    cost = measure_cost(FakeDecoder(decode, parameters=7), torch.zeros(1, 3, 8, 8), noise_for, QUICK, CPU)
    assert (cost.gflops, cost.peak_memory_mb, cost.ms_per_image, cost.parameters) == (None, None, {}, 7)


def test_any_other_error_passes() -> None:
    def decode(latents: Tensor, noise: NoiseSource) -> Tensor:
        raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        measure_cost(FakeDecoder(decode), torch.zeros(1, 3, 8, 8), noise_for, QUICK, CPU)
    assert not is_out_of_memory(RuntimeError("out of patience"))
    assert is_out_of_memory(MemoryError())


def test_no_latents_or_no_batch_is_refused() -> None:
    decoder = FakeDecoder(lambda latents, noise: latents)
    with pytest.raises(ValueError, match="0 latents"):
        measure_cost(decoder, torch.zeros(0, 3, 8, 8), noise_for, QUICK, CPU)
    with pytest.raises(ValueError, match="batch sizes"):
        measure_cost(decoder, torch.zeros(1, 3, 8, 8), noise_for, CostProtocol(batch_sizes=(0,)), CPU)
