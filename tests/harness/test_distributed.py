"""Two real processes on one CPU: the same weights in both, and those of one process with two passes a step."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decoders.training.config import TrainConfig, step_seed
from decoders.training.trainer import train
from harness.distributed import Group, current_group
from harness.errors import MsbenchError

CPU = torch.device("cpu")
CONFIG = TrainConfig(max_steps=6, warmup=2, precision="fp32", log_every=2, learning_rate=1e-2, ema_power=3.0)
FLOPS = 2 * (2 * 4 * 8 * 6) + 3 * (2 * 4 * 6 * 1)
"""a step's: the first layer forward and its weight's gradient; the second also its input's"""


class Regression:
    """A small network, started differently in each process, with a part that only odd draws use and one that none does."""

    def __init__(self, rank: int) -> None:
        torch.manual_seed(rank)
        self.module = nn.ModuleDict(
            {name: nn.Linear(*size, bias=False) for name, size in {"a": (8, 6), "b": (6, 1), "unused": (2, 2)}.items()}
        )
        self.module.register_parameter("sometimes", nn.Parameter(torch.ones(1)))
        self.poison: int | None = None
        self.calls = 0
        self.group: Group | None = None

    def use_group(self, group: Group) -> None:
        self.group = group

    def samples(self, progress: float) -> int:
        return 4

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        x = torch.randn(4, 8, generator=generator)
        value = (self.module["b"](self.module["a"](x).tanh()) - x[:, :1]).square().mean()
        if int(torch.randint(2, (), generator=generator)):
            value = value + 0.1 * (self.module.sometimes - 3.0).square().sum()
        if self.calls == self.poison:
            value = value * float("nan")
        self.calls += 1
        return value, {}


def digest(module: nn.Module) -> str:
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in module.state_dict().values())).hexdigest()


def worker(folder: Path, case: str) -> dict[str, Any]:
    """What each process does; `case` names the variation."""
    with current_group(CPU) as group:
        objective = Regression(group.rank)
        config = CONFIG
        if case == "poison" and group.rank == 1:
            objective.poison = 3
        if case == "minutes" and group.rank == 1:
            config = replace(config, max_minutes=1e-6)  # this process alone finds its time used up
        if case == "parts":
            train(objective, replace(config, stop_after=3), folder, CPU, group=group)
            objective = Regression(group.rank + 5)
        try:
            result = train(objective, config, folder, CPU, resume=case == "parts", group=group)
        except MsbenchError as error:
            return {"error": str(error)}
        return {
            "sha256": digest(objective.module),
            "weights": [value.flatten().tolist() for value in objective.module.state_dict().values()],
            "steps": result.steps,
            "flops": result.flops_per_step,
            "used": objective.group is not None,
            "sum": group.sum(group.rank + 1.0),
            "max": group.max(float(group.rank)),
            "any": [group.any(group.rank == 1), group.any(False)],
        }


def two_processes(folder: Path, case: str = "") -> list[dict[str, Any]]:
    """Run `worker` in two processes with torchrun's environment; their reports by rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    root = Path(__file__).resolve().parents[2]
    common["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, __file__, str(folder), case]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, env={**common, "RANK": str(rank)}, **pipes) for rank in range(2)]  # type: ignore[call-overload]
    try:
        outputs = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, problems) in zip(started, outputs, strict=True):
        assert process.returncode == 0, problems
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def alone(folder: Path, passes: int = 1) -> Regression:
    objective = Regression(0)
    result = train(objective, replace(CONFIG, accumulate=passes), folder, CPU)
    assert result.flops_per_step == passes * FLOPS
    return objective


@pytest.mark.slow
def test_two_processes_end_in_the_same_weights(tmp_path: Path) -> None:
    first, second = two_processes(tmp_path / "two")
    assert first["sha256"] == second["sha256"]
    assert first["sha256"] != digest(alone(tmp_path / "one").module)
    assert (first["steps"], first["used"], second["used"]) == (6, True, True)
    assert first["flops"] == 2 * FLOPS
    for report in (first, second):
        assert (report["sum"], report["max"], report["any"]) == (3.0, 1.0, [True, False])
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["log.csv", "state.pt"]
    assert len((tmp_path / "two" / "log.csv").read_text().splitlines()) == 1 + 3
    # A run of two processes does not go on in one.
    with pytest.raises(MsbenchError, match="2 processes trained this run, not 1"):
        train(Regression(0), CONFIG, tmp_path / "two", CPU, resume=True)
    # Stopped and resumed, it ends in the same weights again.
    assert [report["sha256"] for report in two_processes(tmp_path / "parts", "parts")] == [first["sha256"]] * 2


def test_two_processes_are_one_that_accumulates_two_passes(tmp_path: Path) -> None:
    first, second = two_processes(tmp_path / "two")
    assert first["sha256"] == second["sha256"]
    # A thread that outlives its group can abort the process at its exit.
    assert first["threads_left"] == second["threads_left"] == []
    expected = [value.flatten().tolist() for value in alone(tmp_path / "one", 2).module.state_dict().values()]
    for got, want in zip(first["weights"], expected, strict=True):
        assert got == pytest.approx(want, rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_processes_stop_together(tmp_path: Path) -> None:
    reports = two_processes(tmp_path / "nan", "poison")
    assert all("diverged at step 3" in report["error"] for report in reports)
    reports = two_processes(tmp_path / "minutes", "minutes")
    assert reports[0]["steps"] == reports[1]["steps"] <= 1
    assert reports[0]["sha256"] == reports[1]["sha256"]


def test_one_process_is_a_group_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with current_group(CPU) as group:
        assert (group.rank, group.world, group.writes) == (0, 1, True)
        assert (group.any(True), group.max(2.0), group.sum(2.0)) == (True, 2.0, 2.0)
        module = nn.Linear(2, 1)
        group.broadcast(module)
        group.average_gradients(module.parameters())
        assert module.weight.grad is None
        group.barrier()


def test_a_world_without_addresses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MsbenchError, match="start with torchrun") as error, current_group(CPU):
        pass
    assert "\n" not in str(error.value)


def test_ranks_draw_from_seeds_of_their_own() -> None:
    assert [step_seed(3, 7, 0), step_seed(3, 8)] == [step_seed(3, 7), step_seed(3, 7) + 1]
    starts = sorted(step_seed(seed, 0, rank) for seed in range(50) for rank in range(16))
    assert min(b - a for a, b in itertools.pairwise(starts)) > 50_000


def group_threads() -> list[str]:
    """Names of this process's threads that belong to a process group or its store (Linux; empty elsewhere)."""
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").glob("*")]
    return sorted(name for name in names if "gloo" in name or "tcpstore" in name)


if __name__ == "__main__":
    report = worker(Path(sys.argv[1]), sys.argv[2])
    print(json.dumps({**report, "threads_left": group_threads()}))
