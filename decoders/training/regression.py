"""The noise-free controls' objective: the same network from random weights on L1 + LPIPS (or MSE), no noise, no teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from decoders.denoiser import Denoiser
from decoders.flow import Flow
from decoders.sampling import predict
from decoders.settings import Count, Weight
from decoders.training.data import TrainingImages
from decoders.training.perceptual import Perceptual
from decoders.training.scales import ScalesObjective, no_noise
from decoders.training.terms import Terms


@dataclass(frozen=True, slots=True)
class RegressionLossConfig:
    """Batch and weights of the noise-free control."""

    batch: Count = 16
    """crops a step"""
    crop: Count = 128
    """side of a crop in full-resolution pixels"""
    mse: Weight = 0.0
    """weight of the squared distance to the image, at every scale; alone, it trains the rate-bound decoder"""
    l1: Weight = 1.0
    """weight of the L1 distance to the image, at every scale"""
    lpips: Weight = 0.15
    """weight of LPIPS, at every scale; 0 leaves the perceptual network out"""


class RegressionObjective(ScalesObjective):
    """MSE, L1 and λ·LPIPS of each scale's output, every scale fed by the network's own coarser output (detached)."""

    def __init__(
        self, module: Denoiser, flow: Flow, data: TrainingImages, config: RegressionLossConfig, perceptual: Perceptual
    ) -> None:
        super().__init__(module, flow, data, config.batch, config.crop)
        self.config, self.perceptual = config, perceptual

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.loss`."""
        config = self.config
        pyramid, latents, _, zeros = self.draw(generator)
        terms = Terms(zeros.device)
        conditions = self.module.project(latents)
        x = torch.zeros_like(pyramid[0])
        for scale, clean in enumerate(pyramid):
            start = self.flow.start(scale, x, no_noise)
            output = predict(self.module, self.flow, start, conditions[scale], scale, zeros, zeros).estimate
            terms.add_distances(config.mse, config.l1, output, clean, f"_{scale}")
            if config.lpips > 0:
                terms.add(f"lpips_{scale}", config.lpips, self.perceptual(output, clean, generator))
            x = output.detach()
        return terms.total, terms.parts
