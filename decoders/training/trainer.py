"""The one training loop: any objective, a time or step budget, EMA, exact resume, a log, a guard against divergence."""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from harness.errors import MsbenchError
from harness.files import atomic_path


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Budget and optimiser of one training run."""

    max_steps: int | None = None
    """optimiser steps in all; None = bounded by time alone"""
    max_minutes: float | None = None
    """wall-clock budget over all resumes; None = bounded by steps alone"""
    stop_after: int | None = None
    """leave early after this many steps, as a killed run would; the schedule still aims at `max_steps`"""
    learning_rate: float = 4e-4
    """peak, reached after `warmup` steps, then a cosine to zero over the budget"""
    warmup: int = 100
    """steps of linear warm-up"""
    weight_decay: float = 0.01
    """AdamW"""
    beta2: float = 0.99
    """AdamW"""
    clip_norm: float = 1.0
    """gradient norm above which gradients are scaled down"""
    ema_power: float = 12.0
    """averaging horizon grows with the run: decay (1 - 1/t)^(power+1), about t / power steps (Karras et al., 2312.02696)"""
    precision: str = "auto"
    """fp32, bf16 (autocast), or auto: bf16 where the hardware multiplies it"""
    seed: int = 0
    """every random draw of step t comes from (seed, t)"""
    save_every_seconds: float = 120.0
    """wall-clock between checkpoints of the run's state"""
    log_every: int = 10
    """steps between rows of log.csv"""


class Objective(Protocol):
    """What is trained, and on what loss."""

    module: nn.Module
    """the module whose parameters are trained and averaged"""

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Loss of one step, drawn with `generator`, and named parts of it for the log. `progress` runs from 0 to 1."""
        ...


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What one call of `train` did."""

    steps: int
    """optimiser steps so far, over all resumes"""
    seconds: float
    """time spent so far, over all resumes"""
    finished: bool
    """the budget is used up (false after `stop_after`)"""
    curve: list[tuple[int, float]]
    """(step, loss averaged over the rows' interval)"""


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype of autocast, or None for plain fp32. `auto` takes bf16 on GPUs and on CPUs with AMX."""
    if precision not in ("auto", "fp32", "bf16"):
        raise MsbenchError(f"unknown precision {precision!r}: use auto, fp32 or bf16")
    if precision == "auto":
        amx = device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())
        return torch.bfloat16 if device.type == "cuda" or amx else None
    return torch.bfloat16 if precision == "bf16" else None


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Linear warm-up by steps, then a cosine over the budget."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    return config.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def train(
    objective: Objective,
    config: TrainConfig,
    folder: Path,
    device: torch.device,
    resume: bool = False,
    on_step: Callable[[int, float, float], None] | None = None,
) -> TrainResult:
    """Train until the budget is used up; the module ends with its averaged weights.

    Args:
        folder: gets `state.pt` (for resume) and `log.csv`.
        resume: go on from `state.pt` where there is one.
        on_step: called with (step, loss, progress in 0..1).

    Raises:
        MsbenchError: no budget, or the loss or a gradient is no longer finite.
    """
    if config.max_steps is None and config.max_minutes is None:
        raise MsbenchError("training needs a budget: give --max-steps or --max-minutes")
    dtype = autocast_dtype(config.precision, device)
    module = objective.module
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=(0.9, config.beta2), weight_decay=config.weight_decay, fused=True
    )
    average = copy.deepcopy(module).requires_grad_(False)
    state_path, log_path = folder / "state.pt", folder / "log.csv"
    folder.mkdir(parents=True, exist_ok=True)
    step, spent = 0, 0.0
    curve: list[tuple[int, float]] = []
    if resume and state_path.exists():
        step, spent, curve = _restore(state_path, module, average, optimizer, objective)
    started = saved = time.monotonic()
    window: list[float] = []

    def progress_now() -> float:
        by_steps = step / config.max_steps if config.max_steps else 0.0
        by_time = (spent + time.monotonic() - started) / (60.0 * config.max_minutes) if config.max_minutes else 0.0
        return max(by_steps, by_time)

    def save() -> None:
        _save(state_path, module, average, optimizer, objective, step, spent + time.monotonic() - started, curve)

    module.train()
    first = step
    while (progress := progress_now()) < 1.0:
        if config.stop_after is not None and step - first >= config.stop_after:
            break
        generator = torch.Generator().manual_seed((config.seed << 32) + step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, progress)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            loss, parts = objective.loss(generator, progress)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm))
        value = float(loss.detach())
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise MsbenchError(f"training diverged at step {step}: loss {value}, gradient norm {norm}; lower the learning rate")
        optimizer.step()
        step += 1
        decay = (1.0 - 1.0 / step) ** (config.ema_power + 1.0)
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1.0 - decay)
            for kept, live in zip(average.buffers(), module.buffers(), strict=True):
                kept.copy_(live)
        window.append(value)
        if step % config.log_every == 0:
            curve.append((step, sum(window) / len(window)))
            _log(log_path, {"step": step, "loss": curve[-1][1], "grad_norm": norm, "seconds": spent + time.monotonic() - started, **parts})
            window.clear()
        if on_step is not None:
            on_step(step, value, progress)
        if time.monotonic() - saved > config.save_every_seconds:
            save()
            saved = time.monotonic()
    finished = progress_now() >= 1.0
    save()
    seconds = spent + time.monotonic() - started
    module.load_state_dict(average.state_dict())
    module.eval()
    return TrainResult(step, seconds, finished, curve)


def config_dict(config: TrainConfig) -> dict[str, Any]:
    """The configuration as a model card states it."""
    return asdict(config)


def _save(
    path: Path, module: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, objective: Objective,
    step: int, seconds: float, curve: list[tuple[int, float]],
) -> None:  # fmt: skip
    state = {
        "module": module.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "extra": getattr(objective, "extra_state", dict)(),
        "step": step,
        "seconds": seconds,
        "curve": curve,
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def _restore(
    path: Path, module: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, objective: Objective
) -> tuple[int, float, list[tuple[int, float]]]:
    state = torch.load(path, weights_only=True, map_location="cpu")
    try:
        module.load_state_dict(state["module"])
        average.load_state_dict(state["average"])
    except RuntimeError as error:
        raise MsbenchError(f"{path}: the saved run trained another architecture; start afresh without --resume") from error
    optimizer.load_state_dict(state["optimizer"])
    if hasattr(objective, "load_extra_state"):
        objective.load_extra_state(state["extra"])
    return int(state["step"]), float(state["seconds"]), [(int(a), float(b)) for a, b in state["curve"]]


def _log(path: Path, row: dict[str, float]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(row))
        if fresh:
            writer.writeheader()
        writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
