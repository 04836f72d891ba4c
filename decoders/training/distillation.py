"""Distillation into one step a scale: matched to the teacher's end from the same noise, to the real image, or to both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from decoders.denoiser import Condition, Denoiser
from decoders.flow import Flow
from decoders.sampling import integrate, predict
from decoders.settings import Count, Share, Weight
from decoders.training.crops import CropConfig
from decoders.training.data import TrainingImages
from decoders.training.perceptual import Perceptual
from decoders.training.scales import ScalesObjective
from decoders.training.terms import Terms

DistillationName = Literal["paired", "direct", "paired+direct"]


@dataclass(frozen=True, slots=True)
class DistillationLossConfig(CropConfig):
    """Objective, crops, teacher and weights of distillation."""

    lpips_from: Share = 0.0
    """as `CropConfig.lpips_from`: a student starts from its teacher, and has nothing to gain from squared error alone"""
    objective: DistillationName = "paired"
    """paired (the teacher's end), direct (the real image), or both"""
    teacher_steps: Count = 4
    """Euler steps of the teacher at each scale"""
    paired: Weight = 40.0
    """weight of the MSE to the teacher's end, from the same start"""
    l1: Weight = 1.0
    """weight of the L1 distance to the real image"""
    lpips: Weight = 0.15
    """weight of LPIPS at the finest scale: to the real image, or to the teacher's end where the objective is `paired`"""


class DistillationObjective(ScalesObjective):
    """Per scale, from the student's own previous output: MSE(teacher ODE end, same noise) and / or L1, and λ·LPIPS (design §3).

    Teacher and student start from the very same tensor: with different noise the student would be driven to the mean.
    """

    def __init__(
        self,
        module: Denoiser,
        teacher: Denoiser,
        flow: Flow,
        data: TrainingImages,
        config: DistillationLossConfig,
        perceptual: Perceptual,
    ) -> None:
        super().__init__(module, flow, data, config)
        self.teacher = teacher.eval().requires_grad_(False)
        self.config, self.perceptual = config, perceptual

    @torch.no_grad()
    def teacher_end(self, start: Tensor, condition: Condition, scale: int) -> Tensor:
        """The teacher's end of one scale's path after `teacher_steps` Euler steps from `start`."""
        count = self.config.teacher_steps
        zeros = torch.zeros(len(start), device=start.device)
        x = start
        for index in range(count):
            x = integrate(self.teacher, self.flow, x, condition, scale, zeros + index / count, 1.0 / count)
        return x

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.loss`."""
        config = self.config
        pyramid, latents, normal, zeros = self.draw(generator, progress)
        terms = Terms(zeros.device)
        paired, direct = config.objective != "direct", config.objective != "paired"
        with torch.no_grad():
            teacher_conditions = self.teacher.project(latents) if paired else []
        conditions = self.module.project(latents)
        x = torch.zeros_like(pyramid[0])
        for scale, clean in enumerate(pyramid):
            start = self.flow.start(scale, x, normal)
            predicted = predict(self.module, self.flow, start, conditions[scale], scale, zeros, zeros)
            end = start + predicted.velocity
            if paired:
                target = self.teacher_end(start.detach(), teacher_conditions[scale], scale)
                terms.add(f"paired_{scale}", config.paired, F.mse_loss(end, target))
            if direct:
                terms.add(f"l1_{scale}", config.l1, F.l1_loss(predicted.estimate, clean))
            x = end
        output, wanted = (predicted.estimate, pyramid[-1]) if direct else (x, target)
        late = progress >= config.lpips_from
        terms.add_perceptual(config.lpips, late, lambda: self.perceptual(output, wanted, generator))
        return terms.total, terms.parts
