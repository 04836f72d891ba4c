"""FLOPs, memory and the whole measurement, on decoders whose cost is known by construction."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional

from harness.cost import memory
from harness.cost.attempt import is_out_of_memory
from harness.cost.cost import Cost, CostProtocol, measure_cost
from harness.cost.flops import count_flops
from harness.cost.memory import peak_memory_mb
from harness.decoder import DecoderSpec, NoiseSource
from harness.errors import MsbenchError
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


def test_cpu_memory_is_unknown_where_the_kernel_keeps_no_peak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "absent" / "clear_refs")
    assert peak_memory_mb(lambda: torch.ones(16 * 2**20), CPU) is None


def test_a_whole_measurement() -> None:
    conv = nn.Conv2d(3, 3, 3, padding=1)
    seen: list[tuple[int, ...]] = []

    def decode(latents: Tensor, noise: NoiseSource) -> Tensor:
        seen.append(tuple(latents[:, 0, 0, 0].int().tolist()))
        return conv(latents) + noise.normal(latents.shape[1:], 0)

    latents = torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 3, 16, 16)
    cost = measure_cost(FakeDecoder(decode, parameters=84), latents, 0, QUICK, CPU)
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

    cost = measure_cost(FakeDecoder(decode), torch.zeros(1, 3, 8, 8), 0, QUICK, CPU)
    assert [(cell.batch_size, cell.status, cell.latency is None) for cell in cost.cells] == [
        (1, "ok", False),
        (4, "out of memory", True),
    ]
    assert list(cost.ms_per_image) == [1]
    assert "DefaultCPUAllocator" in str(cost.cells[1].reason)
    adapter = TypeAdapter(Cost)
    assert adapter.validate_json(adapter.dump_json(cost)) == cost
    assert adapter.validate_python(json.loads(json.dumps(asdict(cost)))) == cost
    assert len(cost.cells[0].latency.samples_ms) >= QUICK.min_calls  # type: ignore[union-attr]


def test_out_of_memory_everywhere_leaves_an_empty_cost() -> None:
    def decode(latents: Tensor, noise: NoiseSource) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    cost = measure_cost(FakeDecoder(decode, parameters=7), torch.zeros(1, 3, 8, 8), 0, QUICK, CPU)
    assert (cost.gflops, cost.peak_memory_mb, cost.ms_per_image, cost.parameters) == (None, None, {}, 7)
    assert [note.partition(":")[0] for note in cost.notes] == ["FLOPs not counted", "no memory"]


def test_any_other_error_is_a_status_and_loses_nothing() -> None:
    """The third call of a batch of four raises: FLOPs, memory and batch 1 stand."""
    conv, seen = nn.Conv2d(3, 3, 3, padding=1), [0]

    def decode(latents: Tensor, noise: NoiseSource) -> Tensor:
        seen[0] += len(latents) == 4
        if seen[0] == 3:
            raise RuntimeError("sizes do\nnot match")
        return conv(latents)

    cost = measure_cost(FakeDecoder(decode), torch.zeros(1, 3, 8, 8), 0, QUICK, CPU)
    assert [(cell.status, cell.reason) for cell in cost.cells if cell.batch_size == 4] == [
        ("failed", "RuntimeError: sizes do not match")
    ]
    assert (list(cost.ms_per_image), cost.gflops) == ([1], pytest.approx(2 * 3 * 64 * 27 / 1e9))

    def leaves(latents: Tensor, noise: NoiseSource) -> Tensor:
        raise SystemExit(0)

    assert {cell.status for cell in measure_cost(FakeDecoder(leaves), torch.zeros(1, 3, 8, 8), 0, QUICK, CPU).cells} == {
        "failed"
    }


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("no"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("out of patience"), False),
        (RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_the_words_of_every_allocator_are_known(error: Exception, ran_out: bool) -> None:
    assert is_out_of_memory(error) is ran_out
    wrapped = ValueError("backend failed")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped) is ran_out


def test_no_batch_sizes_means_flops_and_parameters_alone() -> None:
    conv, seen = nn.Conv2d(3, 3, 3, padding=1), [0]

    def decode(latents: Tensor, noise: NoiseSource) -> Tensor:
        seen[0] += 1
        return conv(latents)

    cost = measure_cost(FakeDecoder(decode, 84), torch.zeros(1, 3, 8, 8), 0, CostProtocol(batch_sizes=()), CPU)
    assert cost == Cost((), pytest.approx(2 * 3 * 64 * 27 / 1e9), None, 84)  # type: ignore[arg-type]
    assert seen == [1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_sizes": (0,)},
        {"batch_sizes": (1, 10**22)},
        {"min_calls": 0},
        {"min_calls": 5, "max_calls": 4},
        {"max_seconds": float("nan")},
        {"max_seconds": float("inf")},
        {"max_seconds": -1.0},
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MsbenchError):
        CostProtocol(**wrong)
    with pytest.raises(ValueError, match="0 latents"):
        measure_cost(FakeDecoder(lambda z, _: z), torch.zeros(0, 3, 8, 8), 0, QUICK, CPU)


def test_modes_are_timed_one_after_the_other_and_one_that_fails_is_named() -> None:
    cost = measure_cost(FakeDecoder(lambda z, _: z + 1), torch.zeros(1, 3, 8, 8), 0, QUICK, CPU, ("eager", "cudagraph"))
    assert [(cell.mode, cell.batch_size, cell.status) for cell in cost.cells] == [
        ("eager", 1, "ok"),
        ("eager", 4, "ok"),
        ("cudagraph", 1, "unsupported"),
        ("cudagraph", 4, "unsupported"),
    ]
    assert "needs a CUDA device" in str(cost.cells[2].reason)
