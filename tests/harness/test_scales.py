"""The sweep over scales: ratios are relative to K = 1, counted and ideal ones agree within the cost model."""

from __future__ import annotations

import pytest
import torch

from harness.cost.cost import CostProtocol
from harness.errors import MsbenchError
from harness.scales import measure_scales

QUICK = CostProtocol(batch_sizes=(1,), min_calls=1, max_seconds=0.05)


def measure(decoder: str, scales: list[int], steps: int = 8):  # type: ignore[no-untyped-def]
    return measure_scales(decoder, scales, steps, 64, QUICK, torch.device("cpu"), torch.float32, lambda *_: None)


def test_speedups_are_relative_to_one_scale() -> None:
    frame = measure("ms-diffusion", [1, 2]).set_index("scales")
    assert frame.loc[1, "measured_speedup"] == 1
    assert frame.loc[1, "counted_speedup"] == 1
    assert frame.loc[2, "ideal_speedup"] == pytest.approx(8 / (4 + 4 / 4))
    assert frame.loc[2, "counted_speedup"] == pytest.approx(frame.loc[2, "ideal_speedup"], rel=0.05)


def test_one_scale_must_be_there() -> None:
    with pytest.raises(MsbenchError, match="1 must be among them"):
        measure("ms-diffusion", [2, 3])


def test_decoder_without_scales_is_refused() -> None:
    with pytest.raises(MsbenchError, match="bicubic"):
        measure("bicubic", [1])
