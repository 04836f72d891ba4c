"""The one training loop: any objective, a budget of steps, time or FLOPs, EMA, exact resume, guards, one or more processes."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from decoders.training.config import TrainConfig, autocast_dtype, check_config, ema_decay, learning_rate, step_seed
from decoders.training.guard import GradientGuard
from decoders.training.log import RunLog
from decoders.training.state import SNAPSHOT, STATE, load_snapshot, load_state, save_snapshot, save_state
from decoders.training.throughput import Meter, flop_counter, measure_peak
from harness.distributed import Group
from harness.errors import MsbenchError
from harness.interrupt import Terminated, terminable


class Objective(Protocol):
    """What is trained, and on what loss.

    It may also have: `samples(progress)` (images of one step, for samples/s); `phase(progress)`, another value of which says
    that steps cost something else from now on; `extra_state()` and `load_extra_state(state)`; `use_group(group)`, which
    synchronises what it keeps beside `module`.
    """

    @property
    def module(self) -> nn.Module:
        """The module whose parameters are trained and averaged."""
        ...

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
    new_steps: int
    """those of this call"""
    flops_per_step: int
    """training FLOPs of one step, as last counted, over all processes: products and convolutions, 2 a multiply-add"""
    pflops: float
    """10^15 FLOPs of training so far, over all resumes and processes"""
    samples_per_s: float | None
    """over the whole run; None where the objective has no `samples`"""
    mfu: float
    """training FLOPs a second over the whole run, as a share of `peak`"""
    peak: float
    """FLOP/s of a large matrix product in the run's precision, measured at its start, summed over the processes"""
    skipped: int
    """steps the gradient guard left out, over all resumes"""


def train(
    objective: Objective,
    config: TrainConfig,
    folder: Path,
    device: torch.device,
    resume: bool = False,
    on_step: Callable[[int, float, float], None] | None = None,
    identity: str = "",
    group: Group | None = None,
) -> TrainResult:
    """Train until the budget is used up; the module ends with its averaged weights.

    Args:
        folder: gets `state.pt` (for resume) and `log.csv`; with several processes one that all of them see.
        resume: go on from `state.pt`.
        on_step: called with (step, loss, progress in 0..1), the loss being this process's own.
        identity: what the run is, such as a hash of its recipe; a saved state of another one is refused.
        group: the processes that train together; None = this one alone.

    Raises:
        MsbenchError: no budget or a number out of its range, a saved state or log that is missing, damaged or another run's, a
            loss or gradient that is no longer finite, or gradients that keep exploding.
        Terminated: SIGTERM came to one of the processes; the state is written.
    """
    check_config(config)
    run = _Run(objective, config, folder, device, identity, group or Group(device=device))
    if resume:
        run.restore()
    run.begin()
    first, saved, ended = run.step, time.monotonic(), False
    with terminable(finish=True) as told:
        while (progress := run.progress()) < 1.0 and not (ended := run.group.any(bool(told))):
            if config.stop_after is not None and run.step - first >= config.stop_after:
                break
            if config.snapshot is not None and progress >= config.snapshot and run.group.writes:
                save_snapshot(folder, run.average, run.step)
            value = run.advance(progress)
            if on_step is not None:
                on_step(run.step, value, progress)
            if time.monotonic() - saved > config.save_every_seconds:
                run.save()
                saved = time.monotonic()
    run.save()
    if run.log is not None:
        run.log.close()
    if ended:
        raise Terminated(f"step {run.step} is kept in {run.state_path}, --resume goes on with it")
    run.module.load_state_dict(run.average.state_dict())
    run.module.eval()
    run.group.barrier()  # nobody goes on to read what rank 0 has not written yet
    return run.result(run.step - first, progress >= 1.0)


class _Run:
    """One run's state: live and averaged weights, optimiser, counters and log."""

    def __init__(
        self, objective: Objective, config: TrainConfig, folder: Path, device: torch.device, identity: str, group: Group
    ) -> None:
        self.log = RunLog(folder, config.tensorboard) if group.writes else None
        self.objective = objective
        # Channels last: on AVX2 a 3×3 training step runs 1.2× faster, a per-pixel norm 3.7×; tensor cores want it as well.
        self.module = objective.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config, self.device = config, device
        self.identity, self.group = identity, group
        self.state_path = folder / STATE
        folder.mkdir(parents=True, exist_ok=True)
        self.dtype = autocast_dtype(config.precision, device)
        group.broadcast(self.module)
        if group.world > 1 and hasattr(objective, "use_group"):
            objective.use_group(group)
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, betas=(0.9, config.beta2), weight_decay=config.weight_decay, fused=True
        )
        self.average = copy.deepcopy(self.module).requires_grad_(False)
        self.meter = Meter(group.sum(measure_peak(device, self.dtype)))
        self.step = 0
        self.window: list[float] = []  # losses since the last row of the log
        self.guard = GradientGuard(config.max_grad_norm_ratio, config.warmup)
        self._before = 0.0  # seconds spent by earlier parts of this run
        self._started = time.monotonic()

    def begin(self) -> None:
        """Start the clock and the log at the current step."""
        self._started = time.monotonic()
        self.meter.mark(self._before)
        if self.step == 0 and self.group.writes:
            self.state_path.with_name(SNAPSHOT).unlink(missing_ok=True)
        if self.log is not None:
            self.log.trim(self.step)
        self.module.train()

    def seconds(self) -> float:
        """Time spent, over all resumes."""
        return self._before + time.monotonic() - self._started

    def progress(self) -> float:
        """Share of the budget that is used up: by steps, time or FLOPs, in whichever process it is most."""
        config = self.config
        by_steps = self.step / config.max_steps if config.max_steps else 0.0
        by_time = self.seconds() / (60.0 * config.max_minutes) if config.max_minutes else 0.0
        by_flops = self.meter.flops / (1e15 * config.max_pflops) if config.max_pflops else 0.0
        return self.group.max(max(by_steps, by_time, by_flops))

    def result(self, new_steps: int, finished: bool) -> TrainResult:
        """What there is to say of the run."""
        meter, seconds = self.meter, self.seconds()
        rates = meter.rates(seconds)
        return TrainResult(
            steps=self.step,
            seconds=seconds,
            finished=finished,
            new_steps=new_steps,
            flops_per_step=meter.per_step,
            pflops=meter.flops / 1e15,
            samples_per_s=rates.get("samples_per_s"),
            mfu=rates["mfu"],
            peak=meter.peak,
            skipped=self.guard.skipped,
        )

    def advance(self, progress: float) -> float:
        """One step of the optimiser, or one skipped; returns its loss."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step, progress)
        loss, parts = self._backward(progress)
        self.group.average_gradients(self.parameters)
        norm = self.group.max(float(torch.nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)))
        value = float(loss)
        if self.group.any(not (math.isfinite(value) and math.isfinite(norm))):
            raise MsbenchError(
                f"training diverged at step {self.step}: loss {value}, gradient norm {norm}; lower the learning rate"
            )
        self.step += 1
        if not self.guard.skips(norm, self.step):
            self.optimizer.step()
            self._average()
        self.window.append(value)
        if self.step % config.log_every == 0:
            self._log(norm, parts)
        return value

    def _backward(self, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Loss and gradients of this step, means over its passes; the FLOPs of the first steps are counted."""
        passes, losses, parts = self.config.accumulate, [], dict[str, float]()
        phase, samples = (getattr(self.objective, name, lambda progress: None)(progress) for name in ("phase", "samples"))
        counter = flop_counter() if self.meter.wants_count(phase) else None
        # A compiled network's operations are not seen by the counter: counted steps run uncompiled.
        stance = torch.compiler.set_stance("force_eager") if counter is not None else contextlib.nullcontext()
        self.optimizer.zero_grad(set_to_none=True)
        with stance, counter or contextlib.nullcontext():
            for index in range(passes):
                draws = self.group.rank * passes + index
                generator = torch.Generator().manual_seed(step_seed(self.config.seed, self.step, draws))
                with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                    loss, found = self.objective.loss(generator, progress)
                (loss / passes).backward()  # type: ignore[no-untyped-call]
                losses.append(loss.detach())
                parts = {name: parts.get(name, 0.0) + value / passes for name, value in found.items()}
        counted = None if counter is None else int(self.group.sum(counter.get_total_flops()))
        self.meter.add(counted, (samples or 0) * self.group.world * passes)
        if self.meter.per_step == 0 and self.config.max_steps is None and self.config.max_minutes is None:
            raise MsbenchError("no FLOPs were counted in a step, so --max-pflops would never end: give --max-steps")
        return torch.stack(losses).mean(), parts

    def _log(self, norm: float, parts: dict[str, float]) -> None:
        mean = sum(self.window) / len(self.window)
        self.window.clear()
        seconds = self.seconds()
        row = {"step": self.step, "loss": mean, "grad_norm": norm, "seconds": seconds, "skipped": self.guard.skipped}
        if self.log is not None:
            self.log.write({**row, **self.meter.row(seconds), **parts})

    def _average(self) -> None:
        decay = ema_decay(self.step, self.config.ema_power)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.module.parameters()), 1.0 - decay)
            for kept, live in zip(self.average.buffers(), self.module.buffers(), strict=True):
                kept.copy_(live)

    def save(self) -> None:
        """Write `state.pt`, in the process that writes."""
        if not self.group.writes:
            return
        state: dict[str, Any] = {
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "extra": getattr(self.objective, "extra_state", dict)(),
            "step": self.step,
            "seconds": self.seconds(),
            "window": self.window,
            "guard": self.guard.state(),
            "meter": self.meter.state(),
        }
        save_state(self.state_path, state, self.identity, self.group.world)

    def restore(self) -> None:
        """Go on from `state.pt`.

        Raises:
            MsbenchError: there is none, or it is damaged or another run's, or the snapshot beside it is damaged.
        """
        load_snapshot(self.state_path.parent)  # damage is told now, not after training
        state = load_state(self.state_path, self.identity, self.group.world)
        try:
            self.module.load_state_dict(state["module"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.meter.load_state(state["meter"])
            self.guard.load_state(state["guard"])
            if hasattr(self.objective, "load_extra_state"):
                self.objective.load_extra_state(state["extra"])
            self.step, self._before = int(state["step"]), float(state["seconds"])
            self.window = [float(loss) for loss in state["window"]]
            if self.step < 0 or not 0.0 <= self._before < math.inf:
                raise ValueError(f"step {self.step} after {self._before} s")
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise MsbenchError(
                f"{self.state_path}: damaged, of an older msbench or of another architecture ({reason}); "
                "start afresh in another folder"
            ) from error
