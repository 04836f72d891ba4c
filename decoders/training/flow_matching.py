"""The flow objective: velocity matching with an image-predicting network, every scale in every step, LPIPS on the estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from decoders.denoiser import Denoiser
from decoders.flow import Flow, TrainingPair, halve
from decoders.sampling import Prediction, predict
from decoders.settings import Count, Positive, Share, Weight
from decoders.training.data import TrainingImages
from decoders.training.distributed import Group
from decoders.training.perceptual import Perceptual


@dataclass(frozen=True, slots=True)
class FlowLossConfig:
    """Crops, time sampling and weights of flow training."""

    batch: Count = 8
    """crops of the finest scale a step; each coarser scale gets twice as many"""
    single_scale_batch: Count = 16
    """crops a step where there is one scale"""
    crops: Annotated[tuple[Count, ...], Field(min_length=1)] = (128, 160, 192)
    """crop side in full-resolution pixels, finest scale first (the last serves all coarser ones)"""
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


class FlowObjective:
    """Loss on the velocity (rectified flow, 2209.03003) that the predicted image implies, each scale over its running mean."""

    def __init__(
        self, module: Denoiser, flow: Flow, data: TrainingImages, config: FlowLossConfig, perceptual: Perceptual
    ) -> None:
        self.module, self.flow, self.data = module, flow, data
        self.config, self.perceptual = config, perceptual
        self.running = [0.0] * flow.scales
        self.group: Group | None = None
        counts = [config.batch * 2 ** (flow.scales - 1 - scale) for scale in range(flow.scales)]
        self.samples_per_step = sum(counts) if flow.scales > 1 else config.single_scale_batch

    def use_group(self, group: Group) -> None:
        """Keep one running mean for all processes, so that a resumed run goes on with the same one everywhere."""
        self.group = group

    def extra_state(self) -> dict[str, list[float]]:
        """State a resumed run needs beside weights and optimiser."""
        return {"running": list(self.running)}

    def load_extra_state(self, state: dict[str, list[float]]) -> None:
        """Inverse of `extra_state`."""
        self.running = list(state["running"])

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

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.loss`."""
        device = next(self.module.parameters()).device
        scales = self.flow.scales
        total = torch.zeros((), device=device)
        parts: dict[str, float] = {}
        for scale in range(scales):
            shrink = scales - 1 - scale
            count = self.config.single_scale_batch if scales == 1 else self.config.batch * 2**shrink
            crop = self.config.crops[min(shrink, len(self.config.crops) - 1)]
            grid = self.module.config.down_factor
            clean, latents = self.data.encoded_crops(count, crop, grid, generator, grid * 2**shrink, device)
            for _ in range(shrink):
                clean = halve(clean)

            def normal(shape: tuple[int, ...], count: int = count) -> Tensor:
                return torch.randn((count, *shape), generator=generator).to(device)

            pair = self.flow.training_pair(scale, clean, normal, torch.rand(count, generator=generator).to(device))
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
            if self.config.lpips > 0 and bool(late.any()):
                lpips = self.perceptual(predicted.estimate[late], pair.clean[late], generator)
                total = total + self.config.lpips * lpips
                parts[f"lpips_{scale}"] = float(lpips.detach())
            else:
                parts[f"lpips_{scale}"] = float("nan")
        return total, parts
