"""The averaged weights of an earlier step, kept as a second checkpoint."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from decoders.training.config import TrainConfig, ema_decay
from decoders.training.state import SNAPSHOT
from decoders.training.trainer import train
from harness.errors import MsbenchError

CPU = torch.device("cpu")
CONFIG = TrainConfig(max_steps=20, warmup=1, precision="fp32", log_every=1, learning_rate=1e-2, snapshot=0.75)


class Slope:
    """w: a constant gradient, so that every step moves the weight."""

    def __init__(self) -> None:
        self.module = nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.module.weight.fill_(1.0)

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        return self.module.weight.sum(), {}


def kept(folder: Path) -> tuple[int, float]:
    state = torch.load(folder / SNAPSHOT, weights_only=True)
    return state["step"], float(state["average"]["weight"])


def test_the_average_at_three_quarters_is_kept(tmp_path: Path) -> None:
    live: list[float] = []
    objective = Slope()
    train(objective, CONFIG, tmp_path, CPU, on_step=lambda *_: live.append(float(objective.module.weight.detach())))
    average = 0.0
    for step in range(1, 16):
        decay = ema_decay(step, CONFIG.ema_power)
        average = decay * average + (1.0 - decay) * live[step - 1]
    step, value = kept(tmp_path)
    assert step == 15
    assert value == pytest.approx(average, abs=1e-6)
    assert value != pytest.approx(float(objective.module.weight.detach()), abs=1e-4)


@pytest.mark.parametrize("stop", [6, 17])
def test_a_resumed_run_keeps_the_same_one(stop: int, tmp_path: Path) -> None:
    train(Slope(), CONFIG, tmp_path / "straight", CPU)
    train(Slope(), replace(CONFIG, stop_after=stop), tmp_path / "parts", CPU)
    train(Slope(), CONFIG, tmp_path / "parts", CPU, resume=True)
    assert kept(tmp_path / "parts") == kept(tmp_path / "straight")


def test_none_is_kept_unless_asked_and_an_old_one_is_removed(tmp_path: Path) -> None:
    train(Slope(), CONFIG, tmp_path, CPU)
    assert (tmp_path / SNAPSHOT).is_file()
    train(Slope(), replace(CONFIG, snapshot=None), tmp_path, CPU)
    assert not (tmp_path / SNAPSHOT).exists()


def test_a_damaged_one_is_told_before_training_goes_on(tmp_path: Path) -> None:
    train(Slope(), replace(CONFIG, stop_after=17), tmp_path, CPU)
    for content in (b"cut", None):
        (tmp_path / SNAPSHOT).write_bytes(content) if content else torch.save({"step": 15}, tmp_path / SNAPSHOT)
        with pytest.raises(MsbenchError, match=re.escape(SNAPSHOT)):
            train(Slope(), CONFIG, tmp_path, CPU, resume=True, on_step=lambda *_: pytest.fail("it went on"))
