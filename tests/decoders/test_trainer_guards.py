"""Exploding gradients, and states that are another run's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from decoders.training.config import TrainConfig, step_seed
from decoders.training.trainer import train
from harness.errors import MsbenchError

CPU = torch.device("cpu")
CONFIG = TrainConfig(max_steps=30, warmup=5, precision="fp32", log_every=1, learning_rate=1e-2)


class Spiky:
    """w·x, whose gradient x has norm 1, or 1000 at chosen steps."""

    def __init__(self, spikes: set[int]) -> None:
        self.module = nn.Linear(4, 1, bias=False)
        with torch.no_grad():
            self.module.weight.fill_(1.0)
        self.spikes = {step_seed(0, step) for step in spikes}

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        scale = 1000.0 if generator.initial_seed() in self.spikes else 1.0
        direction = torch.randn(4, generator=generator)
        return scale * (self.module.weight[0] @ (direction / direction.norm())), {}


def weights(objective: Spiky) -> list[float]:
    return objective.module.weight.detach().flatten().tolist()


def test_an_exploding_step_is_left_out_and_counted(tmp_path: Path) -> None:
    live: list[list[float]] = []
    objective = Spiky({10, 20})
    result = train(objective, CONFIG, tmp_path, CPU, on_step=lambda *_: live.append(weights(objective)))
    assert (result.steps, result.skipped) == (30, 2)
    unchanged = [step for step in range(1, 30) if live[step] == live[step - 1]]
    assert unchanged == [10, 20]
    header, *rows = [line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines()]
    assert [int(row[header.index("skipped")]) for row in rows] == [0] * 10 + [1] * 10 + [2] * 10


def test_the_guard_waits_for_the_warm_up_and_can_be_off(tmp_path: Path) -> None:
    assert train(Spiky({3}), CONFIG, tmp_path / "warm", CPU).skipped == 0
    assert train(Spiky({10}), replace(CONFIG, max_grad_norm_ratio=float("inf")), tmp_path / "off", CPU).skipped == 0
    assert train(Spiky({10}), replace(CONFIG, max_grad_norm_ratio=2000.0), tmp_path / "loose", CPU).skipped == 0


def test_ten_skipped_in_a_row_stop_the_run(tmp_path: Path) -> None:
    spikes = set(range(10, 19)) | set(range(20, 30))  # nine, one good step, ten
    with pytest.raises(MsbenchError, match="diverged at step 30: 10 gradient norms in a row above 100 times") as error:
        train(Spiky(spikes), replace(CONFIG, max_steps=40), tmp_path, CPU)
    assert "\n" not in str(error.value)
    assert train(Spiky(set(range(10, 19))), CONFIG, tmp_path / "nine", CPU).skipped == 9


def test_a_resume_between_skipped_steps_is_exact(tmp_path: Path) -> None:
    spikes = {10, 11, 12, 13}
    whole = Spiky(spikes)
    straight = train(whole, CONFIG, tmp_path / "whole", CPU)
    train(Spiky(spikes), replace(CONFIG, stop_after=12), tmp_path / "parts", CPU)
    resumed = Spiky(spikes)
    result = train(resumed, CONFIG, tmp_path / "parts", CPU, resume=True)
    assert (result.skipped, straight.skipped) == (4, 4)
    assert weights(resumed) == weights(whole)
    # The count in a row goes on over a resume as well.
    train(Spiky(set(range(10, 30))), replace(CONFIG, stop_after=15), tmp_path / "row", CPU)
    with pytest.raises(MsbenchError, match="diverged at step 20"):
        train(Spiky(set(range(10, 30))), CONFIG, tmp_path / "row", CPU, resume=True)


def test_another_run_s_state_is_refused_by_its_identity(tmp_path: Path) -> None:
    config = replace(CONFIG, max_steps=4, stop_after=2)
    train(Spiky(set()), config, tmp_path, CPU, identity="recipe-a")
    for other in ("recipe-b", ""):
        with pytest.raises(MsbenchError, match=f"saved by another run .recipe-a, this one is {other or 'unnamed'}") as error:
            train(Spiky(set()), config, tmp_path, CPU, resume=True, identity=other)
        assert "\n" not in str(error.value)
    assert train(Spiky(set()), config, tmp_path, CPU, resume=True, identity="recipe-a").steps == 4
    # Afresh, the folder is free for any run.
    assert train(Spiky(set()), config, tmp_path, CPU, identity="recipe-b").steps == 2
