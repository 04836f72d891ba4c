"""How fast a training runs: its FLOPs, samples a second, and the share of the hardware's peak it reaches (MFU)."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.cost.flops import convolution_backward_flops
from harness.cost.latency import timed_call

COUNTED_STEPS = 32
"""first steps of each phase, whose FLOPs are counted; later ones cost their mean. They differ: LPIPS wants late times"""
SIDES = {"cpu": 1024, "cuda": 8192}
"""side of the square matrices whose product measures the peak"""


def flop_counter() -> FlopCounterMode:
    """A context that counts what runs inside: products and convolutions, forward and backward; 2 FLOPs a multiply-add."""
    formulas = {torch.ops.aten.convolution_backward: convolution_backward_flops}
    return FlopCounterMode(display=False, custom_mapping=formulas)


def measure_peak(device: torch.device, dtype: torch.dtype | None) -> float:
    """FLOP/s of the fastest of several large matrix products in `dtype` (None: fp32); takes 0.3 s on a GPU, 0.1 s on a CPU.

    Draws from a generator of its own: the run's draws stay what they are.
    """
    seconds = 0.3 if device.type == "cuda" else 0.1
    side = SIDES.get(device.type, SIDES["cpu"])
    # Random entries: products of constants draw less power, and GPUs clock higher on them than on any training.
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator).to(device, dtype or torch.float32) for _ in range(2))
    best, begin = float("inf"), time.perf_counter()

    def product() -> torch.Tensor:
        return torch.mm(left, right)

    timed_call(product, device)  # loads the kernel
    while True:
        best = min(best, timed_call(product, device))
        if time.perf_counter() - begin > seconds:
            return 2.0 * side**3 / best


class Meter:
    """FLOPs of a run and their rates; all counts are over all processes."""

    def __init__(self, peak: float) -> None:
        """`peak` in FLOP/s, summed over the processes."""
        self.peak = peak
        self.flops = 0
        """training FLOPs so far, over all resumes"""
        self.per_step = 0
        """FLOPs of a step, the mean over those counted in this phase"""
        self.samples = 0
        """images so far, over all resumes; 0 where the objective does not say"""
        self._phase: Hashable = None
        self._counts: list[int] = []  # FLOPs of the counted steps
        self._mark = (0, 0, 0.0)

    def wants_count(self, phase: Hashable = None) -> bool:
        """Whether the next step should be counted: one of the first where steps begin to cost something else."""
        if phase != self._phase:
            self._phase, self._counts = phase, []
        return len(self._counts) < COUNTED_STEPS

    def add(self, flops: int | None, samples: int = 0) -> None:
        """A step over `samples` images was done, with its FLOPs where they were counted."""
        if flops is not None:
            self._counts.append(flops)
            self.per_step = round(sum(self._counts) / len(self._counts))
        self.flops += self.per_step if flops is None else flops
        self.samples += samples

    def mark(self, seconds: float) -> None:
        """Begin an interval at `seconds` of the run."""
        self._mark = (self.samples, self.flops, seconds)

    def row(self, seconds: float) -> dict[str, float]:
        """Columns of the log for the interval that ends here; the next one begins."""
        samples, flops, since = self._mark
        rates = self._rates(self.samples - samples, self.flops - flops, seconds - since)
        self.mark(seconds)
        return rates

    def rates(self, seconds: float) -> dict[str, float]:
        """samples_per_s (left out where unknown), gflops_per_s and mfu, a share of the measured peak, over the whole run."""
        return self._rates(self.samples, self.flops, seconds)

    def _rates(self, samples: int, flops: int, seconds: float) -> dict[str, float]:
        duration = max(seconds, 1e-9)
        rates = {"samples_per_s": samples / duration} if self.samples else {}
        return {**rates, "gflops_per_s": flops / duration / 1e9, "mfu": flops / duration / self.peak}

    def state(self) -> dict[str, Any]:
        """What an exact resume needs."""
        return {
            "flops": self.flops,
            "per_step": self.per_step,
            "samples": self.samples,
            "phase": self._phase,
            "counts": self._counts,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.flops, self.per_step, self.samples = state["flops"], state["per_step"], state["samples"]
        self._phase, self._counts = state["phase"], list(state["counts"])
