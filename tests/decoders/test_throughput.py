"""Counting a training's FLOPs, budgets by compute, rates in the log, and TensorBoard."""

from __future__ import annotations

import csv
import hashlib
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decoders.training import trainer
from decoders.training.config import TrainConfig
from decoders.training.throughput import COUNTED_STEPS, Meter, flop_counter, measure_peak
from decoders.training.trainer import train
from harness.errors import MsbenchError

CPU = torch.device("cpu")
CONFIG = TrainConfig(max_steps=8, warmup=2, precision="fp32", log_every=2)
ROWS, WIDE, NARROW = 5, 12, 7
FORWARD = 2 * ROWS * WIDE * NARROW
"""FLOPs of the product [5, 12] @ [12, 7]"""
STEP = 2 * FORWARD
"""a step's: the product, and the weight's gradient; the inputs need none"""


class Product:
    """‖x W‖² of random x: FLOPs that a formula gives."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Linear(WIDE, NARROW, bias=False)

    def samples(self, progress: float) -> int:
        return ROWS

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        x = torch.randn(ROWS, WIDE, generator=generator)
        return self.module(x).square().mean(), {}


class Elementwise:
    """A loss without any product: nothing to count."""

    def __init__(self) -> None:
        self.module = nn.Linear(3, 1, bias=False)

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        return self.module.weight.square().sum(), {}


def digest(module: nn.Module) -> str:
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in module.state_dict().values())).hexdigest()


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_step_s_flops_are_those_of_the_formula(tmp_path: Path) -> None:
    result = train(Product(), CONFIG, tmp_path, CPU)
    assert result.flops_per_step == STEP
    assert result.pflops == pytest.approx(8 * STEP / 1e15, rel=1e-12)
    assert result.samples_per_s == pytest.approx(8 * ROWS / result.seconds, rel=0.2)
    assert result.mfu == pytest.approx(8 * STEP / result.seconds / result.peak, rel=0.2)


@pytest.mark.parametrize(
    ("layer", "products"),
    [
        # outputs · weights a group meets, by hand: [2, 6, 5, 4] · (1 · 7 · 7)
        (nn.Conv2d(6, 6, 7, padding=3, groups=6), 2 * 6 * 5 * 4 * 49),
        (nn.Conv2d(6, 9, 3, padding=1, groups=3), 2 * 9 * 5 * 4 * 2 * 9),
        (nn.Conv2d(6, 4, 3, padding=1, stride=2, groups=2), 2 * 4 * 3 * 2 * 3 * 9),
        (nn.Conv2d(6, 9, 3, padding=1), 2 * 9 * 5 * 4 * 6 * 9),
        # a transposed one: inputs · weights
        (nn.ConvTranspose2d(6, 8, 2, stride=2, groups=2), 2 * 6 * 5 * 4 * 4 * 4),
    ],
)
@pytest.mark.parametrize("needs_input", [True, False])
def test_convolutions_cost_as_much_backward_as_forward_for_each_gradient(
    layer: nn.Module, products: int, needs_input: bool
) -> None:
    x = torch.randn(2, 6, 5, 4, requires_grad=needs_input)
    with flop_counter() as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == 2 * products * (3 if needs_input else 2)


class Uneven(Product):
    """Every other step does the product twice."""

    step = 0

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        loss, parts = super().loss(generator, progress)
        self.step += 1
        return (loss + super().loss(generator, progress)[0] if self.step % 2 else loss), parts


def test_steps_that_differ_are_counted_many_times_and_then_taken_at_their_mean(tmp_path: Path) -> None:
    steps = COUNTED_STEPS + 5
    result = train(Uneven(), replace(CONFIG, max_steps=steps), tmp_path, CPU)
    assert result.flops_per_step == 1.5 * STEP
    assert result.pflops == pytest.approx(steps * 1.5 * STEP / 1e15, rel=1e-12)


def test_flops_add_up_over_resumes(tmp_path: Path) -> None:
    whole = train(Product(), CONFIG, tmp_path / "whole", CPU)
    train(Product(), replace(CONFIG, stop_after=5), tmp_path / "parts", CPU)
    parts = train(Product(), CONFIG, tmp_path / "parts", CPU, resume=True)
    assert (parts.pflops, parts.flops_per_step) == (whole.pflops, whole.flops_per_step)


def test_counting_changes_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Zero:
        def get_total_flops(self) -> int:
            return 0

    counted, uncounted = Product(), Product()
    train(counted, CONFIG, tmp_path / "a", CPU)
    monkeypatch.setattr(trainer, "flop_counter", lambda: nullcontext_with(Zero()))
    monkeypatch.setattr(trainer, "measure_peak", lambda *_: 1.0)
    assert train(uncounted, CONFIG, tmp_path / "b", CPU).flops_per_step == 0
    assert digest(counted.module) == digest(uncounted.module)


def nullcontext_with(counter: Any) -> Any:
    context = nullcontext(counter)
    context.get_total_flops = counter.get_total_flops  # type: ignore[attr-defined]
    return context


@pytest.mark.parametrize("steps", [1, 6])
def test_pflops_bound_a_run(steps: int, tmp_path: Path) -> None:
    progress: list[float] = []
    config = replace(CONFIG, max_steps=None, max_pflops=steps * STEP / 1e15)
    result = train(Product(), config, tmp_path, CPU, on_step=lambda *now: progress.append(now[2]))
    assert (result.steps, result.finished) == (steps, True)
    assert progress == pytest.approx([step / steps for step in range(steps)])
    # The budget that is used up first ends the run.
    assert train(Product(), replace(config, max_steps=100), tmp_path / "more", CPU).steps == steps


def test_a_budget_of_flops_needs_flops(tmp_path: Path) -> None:
    with pytest.raises(MsbenchError, match="would never end: give --max-steps"):
        train(Elementwise(), TrainConfig(max_pflops=1.0, precision="fp32"), tmp_path, CPU)
    with pytest.raises(MsbenchError, match=r"train\.max_pflops=-1"):
        train(Product(), TrainConfig(max_pflops=-1.0), tmp_path, CPU)


def test_rates_in_the_log_fit_its_clock(tmp_path: Path) -> None:
    result = train(Product(), CONFIG, tmp_path, CPU)
    rows = rows_of(tmp_path)
    before = 0.0
    for row in rows:
        duration = float(row["seconds"]) - before
        before = float(row["seconds"])
        assert float(row["samples_per_s"]) == pytest.approx(2 * ROWS / duration, rel=0.02, abs=1.0)
        ratio = float(row["gflops_per_s"]) * 1e9 / float(row["samples_per_s"])
        assert ratio == pytest.approx(STEP / ROWS, rel=1e-3)
        assert float(row["mfu"]) == pytest.approx(float(row["gflops_per_s"]) * 1e9 / result.peak, rel=1e-3)
    train(Elementwise(), CONFIG, tmp_path / "unknown", CPU)
    assert "samples_per_s" not in rows_of(tmp_path / "unknown")[0]


def test_meter_by_hand() -> None:
    meter = Meter(peak=1e9)
    meter.mark(5.0)
    for _ in range(6):
        meter.add(500_000_000, samples=4)
    assert meter.row(9.0) == pytest.approx({"samples_per_s": 6.0, "gflops_per_s": 0.75, "mfu": 0.75})
    meter.add(0, samples=8)
    assert meter.row(10.0) == pytest.approx({"samples_per_s": 8.0, "gflops_per_s": 0.0, "mfu": 0.0})
    assert meter.rates(10.0) == pytest.approx({"samples_per_s": 3.2, "gflops_per_s": 0.3, "mfu": 0.3})


class Phased(Product):
    """Twice the products in the second half."""

    def phase(self, progress: float) -> bool:
        return progress >= 0.5

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        loss, parts = super().loss(generator, progress)
        return (loss + super().loss(generator, progress)[0] if self.phase(progress) else loss), parts


def test_steps_are_counted_again_where_they_begin_to_cost_something_else(tmp_path: Path) -> None:
    steps = 4 * COUNTED_STEPS
    result = train(Phased(), replace(CONFIG, max_steps=steps), tmp_path / "whole", CPU)
    assert result.pflops == pytest.approx(steps * 1.5 * STEP / 1e15, rel=1e-12)
    train(Phased(), replace(CONFIG, max_steps=steps, stop_after=COUNTED_STEPS + 5), tmp_path / "parts", CPU)
    parts = train(Phased(), replace(CONFIG, max_steps=steps), tmp_path / "parts", CPU, resume=True)
    assert parts.pflops == result.pflops


def test_the_peak_is_plausible_and_draws_nothing() -> None:
    before = torch.get_rng_state()
    assert 1e8 < measure_peak(CPU, None) < 1e15
    assert torch.equal(torch.get_rng_state(), before)


def test_tensorboard_missing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # its import fails
    with pytest.raises(MsbenchError, match=r"pip install msbench\[train\]"):
        train(Product(), replace(CONFIG, tensorboard=True), tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_the_log_s_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(Product(), replace(CONFIG, tensorboard=True), tmp_path, CPU)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rows = rows_of(tmp_path)
    assert set(events.Tags()["scalars"]) == set(rows[0]) - {"step"}
    written = [(event.step, event.value) for event in events.Scalars("loss")]
    assert written == [(int(row["step"]), pytest.approx(float(row["loss"]), rel=1e-4)) for row in rows]
