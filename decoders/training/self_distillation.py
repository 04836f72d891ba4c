"""Self-distillation by step doubling: the network learns to do in one step what a frozen copy of it does in two."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from decoders.denoiser import Denoiser
from decoders.flow import Flow
from decoders.sampling import integrate
from decoders.training.adversary import Adversary
from decoders.training.data import TrainingImages
from decoders.training.distillation import DistillationLossConfig
from decoders.training.scales import ScalesObjective

POWERS_OF_TWO = tuple(2**power for power in range(1, 31))
"""numbers of teacher steps that halve down to one"""


class SelfDistillationObjective(ScalesObjective):
    """Progressive distillation (Salimans & Ho, 2202.00512) on every scale's path: 4 steps, then 2, then 1.

    Stage i of S = log₂(teacher_steps) takes the share 1/S of the budget. In it one student step of width 2^(i-S+1) is matched
    (MSE) to two half steps of the network as it stood when the stage began. Neither images' detail nor LPIPS enter.
    """

    def __init__(
        self,
        module: Denoiser,
        teacher: Denoiser,
        flow: Flow,
        data: TrainingImages,
        config: DistillationLossConfig,
        adversary: Adversary | None = None,
    ) -> None:
        super().__init__(module, flow, data, config.batch, config.crop, adversary)
        self.teacher = teacher.eval().requires_grad_(False)
        self.config = config
        self.stages = int(math.log2(config.teacher_steps))
        self.stage = 0

    def extra_state(self) -> dict[str, Any]:
        """State a resumed run needs beside weights and optimiser: the stage and the copy it began with."""
        return {**super().extra_state(), "stage": self.stage, "teacher": self.teacher.state_dict()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Inverse of `extra_state`."""
        super().load_extra_state(state)
        self.stage = int(state["stage"])
        self.teacher.load_state_dict(state["teacher"])

    def phase(self, progress: float) -> str:
        """The adversary works in the last stage alone."""
        return super().phase(self._moment(self._stage_at(progress), progress))

    def _stage_at(self, progress: float) -> int:
        return min(int(progress * self.stages), self.stages - 1)

    def _moment(self, stage: int, progress: float) -> float:
        """Progress as the adversary sees it: not begun before the last stage, whose steps alone end in an image."""
        return progress if stage == self.stages - 1 else -1.0

    def enter_stage(self, progress: float) -> None:
        """Freeze the network as the new teacher when the budget has moved on to the next stage."""
        stage = self._stage_at(progress)
        if stage != self.stage:
            self.stage = stage
            self.teacher.load_state_dict(self.module.state_dict())

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.loss`."""
        self.enter_stage(progress)
        pyramid, latents, normal, zeros = self.draw(generator)
        count, device = len(zeros), zeros.device
        steps = self.config.teacher_steps // 2 ** (self.stage + 1)
        width = 1.0 / steps
        with torch.no_grad():
            teacher_conditions = self.teacher.project(latents)
        conditions = self.module.project(latents)
        total = torch.zeros((), device=device)
        parts: dict[str, float] = {}
        for scale, clean in enumerate(pyramid):
            pair = self.flow.training_pair(scale, clean, normal, torch.rand(count, generator=generator).to(device))
            time = torch.randint(steps, (count,), generator=generator).to(device) * width
            start = pair.at(time)
            with torch.no_grad():
                target = start
                for half in (0.0, 0.5):
                    at, condition = time + half * width, teacher_conditions[scale]
                    target = integrate(self.teacher, self.flow, target, condition, scale, at, pair.corruption, width / 2)
            end = integrate(self.module, self.flow, start, conditions[scale], scale, time, pair.corruption, width)
            doubling = F.mse_loss(end, target)
            total = total + doubling
            parts[f"doubling_{scale}"] = float(doubling.detach())
        total, parts = self.judged(total, parts, end, clean, generator, self._moment(self.stage, progress))
        return total, parts | {"stage": float(self.stage)}
