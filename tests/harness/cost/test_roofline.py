"""The roofline's arithmetic, and ceilings on a scripted clock and for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from harness.cost import roofline as module
from harness.cost.flops import Work
from harness.cost.roofline import Ceilings, measure_ceilings, roofline

CPU = torch.device("cpu")
CEILINGS = Ceilings(1e12, "matmul", 1e11, "copy", {"matmul": 1e12, "convolution": 5e11}, "cpu", "float32", 1)


class TickingClock:
    """A clock on which every call that is timed takes `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now = seconds, 0.0

    def __call__(self) -> float:
        self.now += self.seconds
        return self.now


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MATMUL_SIDES", {"cpu": (8, 16, 32)})
    monkeypatch.setattr(module, "_CONV_CHANNELS", {"cpu": 4})
    monkeypatch.setattr(module, "_CONV_SIDE", 8)
    monkeypatch.setattr(module, "_CONV_BATCHES", {"cpu": (1, 2)})
    monkeypatch.setattr(module, "_COPY_MIB", {"cpu": (1,)})


def test_compute_bound_work() -> None:
    # 50 GFLOP and 1 GB: 50 ms at the ceiling of arithmetic, 10 ms at that of memory.
    found = roofline(Work(50.0, 1.0, 0.75, 0.25), 100.0, CEILINGS)
    assert found.bound == "compute"
    assert found.achieved_flops_per_s == pytest.approx(5e11)
    assert found.achieved_bytes_per_s == pytest.approx(1e10)
    assert found.flops_utilisation == pytest.approx(0.5)


def test_memory_bound_work_and_the_batch_that_shares_its_weights() -> None:
    work = Work(1.0, 0.0, 0.1, 0.8)
    alone, shared = roofline(work, 10.0, CEILINGS), roofline(work, 10.0, CEILINGS, batch_size=8)
    assert (alone.bound, alone.achieved_bytes_per_s) == ("memory", pytest.approx(9e10))
    assert shared.achieved_bytes_per_s == pytest.approx(2e10)
    assert shared.flops_utilisation == alone.flops_utilisation == pytest.approx(0.1)


def test_work_without_a_network_has_memory_alone() -> None:
    found = roofline(Work(None, 0.1, 0.5, 0.0), 10.0, CEILINGS)
    assert (found.achieved_flops_per_s, found.flops_utilisation, found.bound) == (None, None, "memory")
    with pytest.raises(ValueError, match="takes time"):
        roofline(Work(None, 0.1, 0.5, 0.0), 0.0, CEILINGS)


@pytest.mark.usefixtures("small")
def test_ceilings_are_units_over_the_best_time() -> None:
    # Every call takes one second, so the largest size of each kind is the fastest.
    found = measure_ceilings(CPU, torch.float32, seconds=1e6, clock=TickingClock(1.0))
    assert found.candidates == {"matmul": 2.0 * 32**3, "convolution": 2.0 * 9 * 4 * 4 * 2 * 64}
    assert (found.flops_per_s, found.flops_how) == (2.0 * 32**3, "matmul 32×32×32")
    assert found.bytes_per_s == 2 * 2**20
    assert (found.dtype, found.device, found.threads) == ("float32", "cpu", torch.get_num_threads())
    assert found.bytes_how == "copy of 1 MiB"


@pytest.mark.usefixtures("small")
def test_the_faster_of_product_and_convolution_is_the_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MATMUL_SIDES", {"cpu": (8,)})
    found = measure_ceilings(CPU, torch.float32, seconds=1e6, clock=TickingClock(1.0))
    assert found.flops_per_s == found.candidates["convolution"] > found.candidates["matmul"]
    assert found.flops_how.startswith("3×3 convolution, 4 to 4 channels, 2×8×8")


@pytest.mark.usefixtures("small")
def test_larger_sizes_do_not_start_when_the_time_is_up() -> None:
    clock = TickingClock(10.0)
    found = measure_ceilings(CPU, torch.float32, seconds=1.0, clock=clock)
    assert found.candidates == {"matmul": pytest.approx(2 * 8**3 / 10), "convolution": pytest.approx(2 * 9 * 4 * 4 * 64 / 10)}
    assert clock.now == 10.0 * 2 * 2 * 3  # two calls of two readings each for product, convolution and copy


def test_memory_that_holds_no_larger_size_leaves_the_smaller_one() -> None:
    def sizes(*fitting: float) -> Iterator[tuple[str, float, Callable[[], object]]]:
        for units in fitting:
            yield f"size {units}", units, lambda: None
        raise torch.OutOfMemoryError("CUDA out of memory.")

    assert module._fastest(sizes(3.0, 5.0), CPU, 1e6, TickingClock(1.0)) == (5.0, "size 5.0")
    with pytest.raises(torch.OutOfMemoryError):
        module._fastest(sizes(), CPU, 1e6, TickingClock(1.0))


@pytest.mark.usefixtures("small")
def test_ceilings_for_real_leave_the_generator_alone() -> None:
    state = torch.get_rng_state()
    for dtype in (torch.float32, torch.bfloat16):
        found = measure_ceilings(CPU, dtype, seconds=0.02)
        assert min(found.flops_per_s, found.bytes_per_s, *found.candidates.values()) > 0
    assert torch.equal(torch.get_rng_state(), state)
