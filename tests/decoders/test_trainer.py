"""The training loop: exact resume, budgets, the guard against divergence, averaging, the log."""

from __future__ import annotations

import csv
import hashlib
import itertools
import math
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decoders.denoiser import Denoiser
from decoders.flow import make_flow
from decoders.training import trainer
from decoders.training.config import TrainConfig, autocast_dtype, check_config, ema_decay, learning_rate, step_seed
from decoders.training.data import TrainingImages
from decoders.training.flow_matching import FlowLossConfig, FlowObjective
from decoders.training.trainer import train
from harness.errors import MsbenchError
from harness.interrupt import Terminated

CPU = torch.device("cpu")
FORTY = TrainConfig(max_steps=40, warmup=10, precision="fp32", log_every=7)


@pytest.fixture
def make_objective(
    tiny_denoiser: Callable[[int], Denoiser], latent_pictures: TrainingImages, perceptual: Any
) -> Callable[[], FlowObjective]:
    """A fresh flow objective on a tiny cascade, with state of its own (the running means) beside the network's."""

    def make() -> FlowObjective:
        config = FlowLossConfig(batch=2, crop=32)
        return FlowObjective(tiny_denoiser(2), make_flow("cascade", 2), latent_pictures, config, perceptual)

    return make


def digest(module: nn.Module) -> str:
    """SHA-256 over every tensor's bytes."""
    total = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        total.update(name.encode() + value.numpy().tobytes())
    return total.hexdigest()


def log_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def without_time(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    clocked = {"seconds", "samples_per_s", "gflops_per_s", "mfu"}
    return [{key: value for key, value in row.items() if key not in clocked} for row in rows]


class Quadratic:
    """‖w - target‖² with a draw of noise: a loss whose steps can be followed by hand."""

    def __init__(self) -> None:
        self.module = nn.Linear(3, 1, bias=False)
        with torch.no_grad():
            self.module.weight.fill_(1.0)
        self.poison: int | None = None
        self.calls = 0

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        value = (self.module.weight - 0.1 * torch.randn(1, 3, generator=generator)).square().sum()
        if self.poison == self.calls:
            value = value * float("nan")
        self.calls += 1
        return value, {"progress": progress}


def test_stopping_and_resuming_gives_the_weights_of_one_run(
    make_objective: Callable[[], FlowObjective], tmp_path: Path
) -> None:
    straight = make_objective()
    before = digest(straight.module)
    whole = train(straight, FORTY, tmp_path / "straight", CPU)
    first = train(make_objective(), replace(FORTY, stop_after=20), tmp_path / "parts", CPU)
    resumed = make_objective()
    second = train(resumed, FORTY, tmp_path / "parts", CPU, resume=True)
    assert (whole.steps, whole.finished) == (40, True)
    assert (first.steps, first.finished) == (20, False)
    assert (second.steps, second.finished) == (40, True)
    assert digest(straight.module) != before
    assert digest(resumed.module) == digest(straight.module)
    # The log too: step 21 falls between two parts of the run, and its row averages losses of both.
    assert without_time(log_rows(tmp_path / "parts")) == without_time(log_rows(tmp_path / "straight"))
    assert [row["step"] for row in log_rows(tmp_path / "straight")] == ["7", "14", "21", "28", "35"]
    # A finished run that is resumed does nothing.
    again = make_objective()
    result = train(again, FORTY, tmp_path / "parts", CPU, resume=True)
    assert (result.steps, result.new_steps) == (40, 0)
    assert digest(again.module) == digest(straight.module)


def test_sigterm_leaves_a_state_that_ends_in_the_same_weights(tmp_path: Path) -> None:
    straight, told, resumed = Quadratic(), Quadratic(), Quadratic()
    train(straight, FORTY, tmp_path / "straight", CPU)
    loss = told.loss

    def signalled(generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        if told.calls == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(generator, progress)

    told.loss = signalled  # type: ignore[method-assign]
    with pytest.raises(Terminated, match=r"step 13 is kept in .*state\.pt, --resume"):
        train(told, FORTY, tmp_path / "told", CPU)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert train(resumed, FORTY, tmp_path / "told", CPU, resume=True).new_steps == 27
    assert digest(resumed.module) == digest(straight.module)
    assert without_time(log_rows(tmp_path / "told")) == without_time(log_rows(tmp_path / "straight"))


def test_another_seed_is_another_run(make_objective: Callable[[], FlowObjective], tmp_path: Path) -> None:
    config = replace(FORTY, max_steps=3)
    runs = [make_objective() for _ in range(3)]
    for index, (objective, seed) in enumerate(zip(runs, (0, 0, 1), strict=True)):
        train(objective, replace(config, seed=seed), tmp_path / str(index), CPU)
    assert digest(runs[0].module) == digest(runs[1].module)
    assert digest(runs[0].module) != digest(runs[2].module)


def test_seeds_fit_the_generator_and_do_not_meet() -> None:
    """The CPU generator reads 32 bits of its seed; a run's seed must be among them."""
    assert [step_seed(0, step) for step in (0, 1, 1000)] == [0, 1, 1000]
    starts = sorted(step_seed(seed, 0) for seed in range(100))
    assert all(0 <= start < 2**32 for start in starts)
    assert min(b - a for a, b in itertools.pairwise(starts)) > 1_000_000


def test_a_killed_run_logs_no_row_twice(tmp_path: Path) -> None:
    """Killed ten steps after its last save: those ten are run again, and their rows must not stay from before."""

    class Killed(Exception):
        pass

    config = TrainConfig(max_steps=30, log_every=2, precision="fp32", save_every_seconds=0.0)

    def kill(step: int, loss: float, progress: float) -> None:
        if step == 20:
            raise Killed

    original = trainer._Run.save
    saves = itertools.count(1)

    def save_the_first_ten(run: Any) -> None:
        if next(saves) <= 10:
            original(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer._Run, "save", save_the_first_ten)
        with pytest.raises(Killed):
            train(Quadratic(), config, tmp_path, CPU, on_step=kill)
    assert [int(row["step"]) for row in log_rows(tmp_path)] == list(range(2, 21, 2))
    with (tmp_path / "log.csv").open("a") as stream:
        stream.write("2")  # a row that was being written
    train(Quadratic(), config, tmp_path, CPU, resume=True)
    assert [int(row["step"]) for row in log_rows(tmp_path)] == list(range(2, 31, 2))
    reference = tmp_path / "straight"
    train(Quadratic(), config, reference, CPU)
    assert without_time(log_rows(tmp_path)) == without_time(log_rows(reference))


def test_a_fresh_run_in_a_used_folder_starts_a_fresh_log(tmp_path: Path) -> None:
    config = TrainConfig(max_steps=6, log_every=2, precision="fp32")
    for _ in range(2):
        train(Quadratic(), config, tmp_path, CPU)
        assert [int(row["step"]) for row in log_rows(tmp_path)] == [2, 4, 6]


def test_resuming_without_a_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MsbenchError, match="no saved state to resume"):
        train(Quadratic(), TrainConfig(max_steps=2, precision="fp32"), tmp_path, CPU, resume=True)


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    config = TrainConfig(max_steps=2, precision="fp32")
    train(Quadratic(), config, tmp_path, CPU)
    other = Quadratic()
    other.module = nn.Linear(4, 1)
    with pytest.raises(MsbenchError, match="another architecture"):
        train(other, config, tmp_path, CPU, resume=True)
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:100])
    with pytest.raises(MsbenchError, match="not a readable run state"):
        train(Quadratic(), config, tmp_path, CPU, resume=True)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (TrainConfig(), "needs a budget"),
        (TrainConfig(max_steps=0), "max_steps=0: input should be greater"),
        (TrainConfig(max_minutes=0.0), r"max_minutes=0\.0: input should be greater"),
        (TrainConfig(max_steps=5, max_minutes=-1.0), r"max_minutes=-1\.0: input should be greater"),
        (TrainConfig(max_minutes=math.nan), "max_minutes=nan"),
        (TrainConfig(max_steps=5, ema_power=math.nan), "ema_power=nan"),
        (TrainConfig(max_steps=5, learning_rate=-1.0), r"learning_rate=-1\.0"),
        (TrainConfig(max_steps=5, learning_rate=math.nan), "learning_rate=nan"),
        (TrainConfig(max_steps=5, log_every=0), "log_every=0"),
        (TrainConfig(max_steps=5, seed=10**23), "seed=1"),
        (TrainConfig(max_steps=5, precision="fp8"), "precision=fp8"),
    ],
)
def test_a_run_needs_a_budget_and_numbers_within_their_ranges(config: TrainConfig, words: str, tmp_path: Path) -> None:
    with pytest.raises(MsbenchError, match=words):
        check_config(config)
    with pytest.raises(MsbenchError, match=words):
        train(Quadratic(), config, tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()


def test_minutes_bound_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ticking(0.5)
    monkeypatch.setattr(trainer.time, "monotonic", lambda: next(clock))
    result = train(Quadratic(), TrainConfig(max_minutes=0.5, precision="fp32"), tmp_path, CPU)
    assert result.finished
    assert 10 < result.steps < 60
    assert 30 <= result.seconds < 40


def ticking(seconds: float) -> Iterator[float]:
    return itertools.count(0.0, seconds)


@pytest.mark.parametrize("step", [0, 4])
def test_divergence_stops_and_leaves_no_state(step: int, tmp_path: Path) -> None:
    objective = Quadratic()
    objective.poison = step
    with pytest.raises(MsbenchError, match=f"diverged at step {step}: loss nan.*lower the learning rate") as error:
        train(objective, TrainConfig(max_steps=10, precision="fp32"), tmp_path, CPU)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "state.pt").exists()
    assert objective.module.weight.isfinite().all()


def test_the_average_follows_its_formula(tmp_path: Path) -> None:
    """One parameter's trajectory, averaged by hand with decay (1 - 1/t)^(power+1)."""
    objective = Quadratic()
    live: list[Tensor] = []
    config = TrainConfig(max_steps=25, ema_power=3.0, precision="fp32", warmup=1, learning_rate=0.05)
    train(objective, config, tmp_path, CPU, on_step=lambda *_: live.append(objective.module.weight.detach().clone()))
    expected = torch.zeros(1, 3)
    for step, weight in enumerate(live, start=1):
        decay = (1 - 1 / step) ** 4
        expected = decay * expected + (1 - decay) * weight
    assert torch.allclose(objective.module.weight, expected, atol=1e-6)
    assert not torch.allclose(objective.module.weight, live[-1], atol=1e-4)


@pytest.mark.parametrize("power", [3.0, 12.0])
def test_the_average_s_horizon_grows_with_the_run(power: float) -> None:
    """The weight of step s after T steps is close to (power+1)·s^power/T^(power+1): a constant share of the run."""
    assert ema_decay(1, power) == 0.0
    total, weights, rest = 2000, [], 1.0
    for step in range(total, 0, -1):
        decay = ema_decay(step, power)
        weights.append((step, rest * (1 - decay)))
        rest *= decay
    assert sum(weight for _, weight in weights) == pytest.approx(1.0)
    center = sum(step * weight for step, weight in weights) / total
    assert center == pytest.approx((power + 1) / (power + 2), abs=0.002)


def test_the_module_ends_averaged_frozen_in_place_and_in_eval_mode(tmp_path: Path) -> None:
    objective = Quadratic()
    module = objective.module
    train(objective, TrainConfig(max_steps=2, precision="fp32"), tmp_path, CPU)
    assert objective.module is module
    assert not module.training


def test_learning_rate_is_held_and_falls_at_the_end() -> None:
    config = TrainConfig(learning_rate=1e-3)
    assert [learning_rate(config, 200, p) for p in (0.0, 0.5, 0.75)] == pytest.approx([1e-3] * 3)
    assert learning_rate(config, 200, 0.875) == pytest.approx(5e-4)
    assert learning_rate(config, 200, 1.0) == pytest.approx(0.0, abs=1e-12)


def test_learning_rate_warms_up_and_falls_like_a_cosine() -> None:
    config = TrainConfig(learning_rate=1e-3, warmup=10, decay_from=0.0)
    assert learning_rate(config, 0, 0.0) == pytest.approx(1e-4)
    assert learning_rate(config, 4, 0.0) == pytest.approx(5e-4)
    assert learning_rate(config, 9, 0.0) == pytest.approx(1e-3)
    assert learning_rate(config, 100, 0.5) == pytest.approx(5e-4)
    assert learning_rate(config, 100, 1.0) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate(config, 100, 1.5) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate(replace(config, warmup=0), 0, 0.0) == pytest.approx(1e-3)
    values = [learning_rate(config, 100, progress / 10) for progress in range(11)]
    assert values == sorted(values, reverse=True)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    """The log's norm is the one before clipping; AdamW's step hides the scale, so look at the gradient itself."""
    objective = Quadratic()
    with torch.no_grad():
        objective.module.weight.fill_(1000.0)
    norms: list[float] = []
    config = TrainConfig(max_steps=2, log_every=1, precision="fp32", clip_norm=0.5)
    train(objective, config, tmp_path, CPU, on_step=lambda *_: norms.append(float(objective.module.weight.grad.norm())))
    assert norms == pytest.approx([0.5, 0.5], rel=1e-3)
    assert float(log_rows(tmp_path)[0]["grad_norm"]) == pytest.approx(2 * 1000 * math.sqrt(3), rel=1e-3)


def test_frozen_parameters_stay(tmp_path: Path) -> None:
    objective = Quadratic()
    objective.module.register_parameter("frozen", nn.Parameter(torch.ones(2), requires_grad=False))
    train(objective, TrainConfig(max_steps=3, precision="fp32"), tmp_path, CPU)
    assert objective.module.frozen.tolist() == [1.0, 1.0]


def test_precision_by_name() -> None:
    assert autocast_dtype("fp32", CPU) is None
    assert autocast_dtype("bf16", CPU) == torch.bfloat16
    assert autocast_dtype("auto", torch.device("cuda")) == torch.bfloat16


@pytest.mark.parametrize(("tiles", "vectors"), [(False, False), (True, False), (False, True)])
def test_automatic_precision_is_bf16_where_the_cpu_multiplies_it(
    tiles: bool, vectors: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vectors)
    assert autocast_dtype("auto", CPU) == (torch.bfloat16 if tiles or vectors else None)
    assert autocast_dtype("auto", torch.device("mps")) is None


def test_log_columns(make_objective: Callable[[], FlowObjective], tmp_path: Path) -> None:
    config = replace(FORTY, max_steps=4, log_every=2)
    train(make_objective(), config, tmp_path, CPU)
    rows = log_rows(tmp_path)
    rates = ["samples_per_s", "gflops_per_s", "mfu"]
    parts = ["velocity_0", "lpips_0", "velocity_1", "lpips_1"]
    assert list(rows[0]) == ["step", "loss", "grad_norm", "seconds", "skipped", *rates, *parts]
    assert [int(row["step"]) for row in rows] == [2, 4]
    assert (tmp_path / "state.pt").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "state.pt"]
