"""The distillation objective: one step a scale, matched to the teacher's end from the same noise and to the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from decoders.denoiser import Denoiser
from decoders.flow import Flow
from decoders.sampling import integrate
from decoders.training.data import TrainingImages
from decoders.training.perceptual import Perceptual
from decoders.training.regression import image_pyramid


@dataclass(frozen=True, slots=True)
class DistillationLossConfig:
    """Batch, teacher and weights of distillation."""

    batch: int = 12
    """crops a step"""
    crop: int = 128
    """side of a crop in full-resolution pixels"""
    teacher_steps: int = 4
    """Euler steps of the teacher at each scale"""
    paired: float = 1.0
    """weight of the MSE to the teacher's end, from the same start"""
    l1: float = 1.0
    """weight of the L1 distance to the real image"""
    lpips: float = 0.15
    """weight of LPIPS (VGG) to the real image, at every scale"""
    joint_from: float = 0.7
    """progress from which the coarser outputs are no longer detached"""


class DistillationObjective:
    """Per scale, from the student's own previous output: MSE(teacher ODE end, same noise) + L1 + λ·LPIPS (design §3).

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
        self.module = module
        self.teacher = teacher.eval().requires_grad_(False)
        self.flow = flow
        self.data = data
        self.config = config
        self.perceptual = perceptual

    @torch.no_grad()
    def teacher_end(self, start: Tensor, condition: Tensor, scale: int) -> Tensor:
        """The teacher's end of one scale's path after `teacher_steps` Euler steps from `start`."""
        count = self.config.teacher_steps
        zeros = torch.zeros(len(start), device=start.device)
        x = start
        for index in range(count):
            x = integrate(self.teacher, self.flow, x, condition, scale, zeros + index / count, zeros, 1.0 / count)
        return x

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.loss`."""
        device = next(self.module.parameters()).device
        count, grid = self.config.batch, self.module.config.down_factor
        multiple = grid * 2 ** (self.flow.scales - 1)
        images, latents = self.data.crops(count, self.config.crop, grid, generator, multiple)
        assert latents is not None, "distillation needs cached latents"
        images, latents = images.to(device), latents.to(device)
        zeros = torch.zeros(count, device=device)
        total = torch.zeros((), device=device)
        parts: dict[str, float] = {}
        with torch.no_grad():
            teacher_conditions = self.teacher.project(latents)
        conditions = self.module.project(latents)

        def normal(shape: tuple[int, ...]) -> Tensor:
            return torch.randn((count, *shape), generator=generator).to(device)

        pyramid = image_pyramid(images, self.flow.scales)
        x = torch.zeros_like(pyramid[0])
        for scale, clean in enumerate(pyramid):
            start = self.flow.start(scale, x, normal)
            estimate = self.module(start, conditions[scale], scale, zeros, zeros).float()
            end = start + self.flow.velocity(scale, start, estimate, zeros)
            target = self.teacher_end(start.detach(), teacher_conditions[scale], scale)
            paired, l1 = F.mse_loss(end, target), F.l1_loss(estimate, clean)
            lpips = self.perceptual(estimate, clean, generator)
            total = total + self.config.paired * paired + self.config.l1 * l1 + self.config.lpips * lpips
            named = {"paired": paired, "l1": l1, "lpips": lpips}
            parts |= {f"{name}_{scale}": float(value.detach()) for name, value in named.items()}
            x = end if progress >= self.config.joint_from else end.detach()
        return total, parts
