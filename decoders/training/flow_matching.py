"""The flow objective: velocity matching with an image-predicting network, every scale in every step, LPIPS on the estimate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from decoders.denoiser import Denoiser
from decoders.flow import CascadeFlow, Flow, TrainingPair, halve
from decoders.sampling import Prediction, predict, sample
from decoders.settings import Count, Positive, Share, Weight
from decoders.training.crops import CropConfig, CropObjective
from decoders.training.data import TrainingImages
from decoders.training.perceptual import Perceptual
from decoders.training.scales import Draws
from harness.distributed import Group


@dataclass(frozen=True, slots=True)
class FlowLossConfig(CropConfig):
    """Crops, time sampling and weights of flow training; coarser scales see whole images, twice the pixels at each."""

    batch: Count = 8
    """crops of the finest scale a step"""
    single_scale_batch: Count = 16
    """crops a step where there is one scale"""
    rollouts: Share = 0.5
    """part of a cascade's coarse inputs that the network itself sampled; the others are the image's, corrupted"""
    rollout_steps: Count = 2
    """Euler steps of a rollout at each coarser scale"""
    lpips: Weight = 0.15
    """weight of LPIPS (VGG) on the clean-image estimate where τ > 0.5"""
    at_start: Share = 0.1
    """share of samples at τ = 0, where a one-step student lives"""
    weighting: Literal["velocity", "image"] = "velocity"
    """error that is squared: the velocity's, or the clean image's (which weighs late times less)"""
    time_floor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    """smallest 1 - τ at which an image prediction's velocity is compared"""
    time_sampling: Literal["logit-normal", "uniform"] = "logit-normal"
    """distribution of τ on paths that begin in pure noise; bridges draw τ uniformly"""
    logit_std: Positive = 1.0
    """spread of the logit-normal τ"""


class FlowObjective(CropObjective):
    """Loss on the velocity (rectified flow, 2209.03003) that the predicted image implies, each scale over its running mean."""

    def __init__(
        self, module: Denoiser, flow: Flow, data: TrainingImages, config: FlowLossConfig, perceptual: Perceptual
    ) -> None:
        self.module, self.flow, self.data = module, flow, data
        self.config, self.crops, self.perceptual = config, config, perceptual
        self.running = [0.0] * flow.scales
        self.group: Group | None = None

    def use_group(self, group: Group) -> None:
        """Keep one running mean for all processes, so that a resumed run goes on with the same one everywhere."""
        self.group = group

    def extra_state(self) -> dict[str, list[float]]:
        """State a resumed run needs beside weights and optimiser."""
        return {"running": list(self.running)}

    def load_extra_state(self, state: dict[str, list[float]]) -> None:
        """Inverse of `extra_state`."""
        self.running = list(state["running"])

    def samples(self, progress: float) -> int:
        """Images of a step, over all scales."""
        return sum(self.crops_of(scale, progress)[0] for scale in range(self.flow.scales))

    def crops_of(self, scale: int, progress: float) -> tuple[int, int]:
        """Crops of a step at a scale, and their side."""
        shrink, config, side = self.flow.scales - 1 - scale, self.config, self.data.images.shape[-1]
        batch = config.single_scale_batch if self.flow.scales == 1 else config.batch * 2**shrink
        return replace(config, batch=batch).at(1.0 if shrink else progress, side)

    def sample_time(self, scale: int, count: int, generator: torch.Generator) -> Tensor:
        """τ [count]: logit-normal from pure noise, uniform for bridges, a share at exactly 0."""
        if scale == 0 and self.config.time_sampling == "logit-normal":
            time = torch.sigmoid(self.config.logit_std * torch.randn(count, generator=generator))
        else:
            time = torch.rand(count, generator=generator)
        return torch.where(torch.rand(count, generator=generator) < self.config.at_start, 0.0, time)

    def matching(self, scale: int, pair: TrainingPair, time: Tensor, predicted: Prediction) -> Tensor:
        """The error [B, 3, h, w] that is squared."""
        if self.config.weighting == "image":
            return predicted.estimate - pair.clean
        target = pair.end - pair.start
        if self.module.config.prediction == "velocity":
            return predicted.velocity - target
        capped = time.clamp(max=1.0 - self.config.time_floor)
        # Both velocities are taken at the capped time, so that their difference is exactly the estimate's error, weighted.
        return self.flow.velocity(scale, pair.at(capped), predicted.estimate, capped) - target

    @torch.no_grad()
    def rollout(self, scale: int, latents: Tensor, generator: torch.Generator) -> Tensor | None:
        """What the network itself hands over to `scale`: the end of the scale before, or None for no latents."""
        if len(latents) == 0:
            return None
        steps = (self.config.rollout_steps,) * scale
        return sample(self.module, self.flow, latents, steps, Draws(len(latents), generator, latents.device))

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.loss`."""
        device = next(self.module.parameters()).device
        scales = self.flow.scales
        total = torch.zeros((), device=device)
        parts: dict[str, float] = {}
        for scale in range(scales):
            shrink, grid = scales - 1 - scale, self.module.config.down_factor
            count, crop = self.crops_of(scale, progress)
            clean, latents = self.data.encoded_crops(count, crop, grid, generator, grid * 2**shrink, device)
            for _ in range(shrink):
                clean = halve(clean)

            normal = Draws(count, generator, device).normal
            uniform = torch.rand(count, generator=generator).to(device)
            own = round(self.config.rollouts * count) if scale > 0 and isinstance(self.flow, CascadeFlow) else 0
            pair = self.flow.training_pair(scale, clean, normal, uniform, self.rollout(scale, latents[:own], generator))
            time = self.sample_time(scale, count, generator).to(device)
            x = pair.at(time)
            condition = self.module.project_scale(latents, scale)
            predicted = predict(self.module, self.flow, x, condition, scale, time, pair.corruption)
            matching = self.matching(scale, pair, time, predicted).square().mean()
            late = time > 0.5
            value = float(matching.detach())
            if self.group is not None:
                value = self.group.sum(value) / self.group.world
            self.running[scale] = value if self.running[scale] == 0.0 else 0.95 * self.running[scale] + 0.05 * value
            total = total + matching / self.running[scale]
            parts[f"velocity_{scale}"] = value
            if self.config.lpips > 0 and progress >= self.config.lpips_from and bool(late.any()):
                lpips = self.perceptual(predicted.estimate[late], pair.clean[late], generator)
                total = total + self.config.lpips * lpips
                parts[f"lpips_{scale}"] = float(lpips.detach())
            else:
                parts[f"lpips_{scale}"] = float("nan")
        return total, parts
