"""The noise-free controls' objective: the same network from random weights on L1 + LPIPS (or MSE), no noise, no teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from decoders.denoiser import Denoiser
from decoders.flow import Flow
from decoders.sampling import predict
from decoders.settings import Weight
from decoders.training.crops import CropConfig
from decoders.training.data import TrainingImages
from decoders.training.perceptual import Perceptual
from decoders.training.scales import ScalesObjective, no_noise
from decoders.training.terms import Terms


@dataclass(frozen=True, slots=True)
class RegressionLossConfig(CropConfig):
    """Crops and weights of the noise-free control."""

    mse: Weight = 0.0
    """weight of the squared distance to the image, at every scale; alone, it trains the rate-bound decoder"""
    l1: Weight = 1.0
    """weight of the L1 distance to the image, at every scale"""
    lpips: Weight = 0.15
    """weight of LPIPS, at the finest scale; 0 leaves the perceptual network out"""


class RegressionObjective(ScalesObjective):
    """MSE and L1 of each scale's output, every scale fed by the network's own coarser output; λ·LPIPS of the finest."""

    def __init__(
        self, module: Denoiser, flow: Flow, data: TrainingImages, config: RegressionLossConfig, perceptual: Perceptual
    ) -> None:
        super().__init__(module, flow, data, config)
        self.config, self.perceptual = config, perceptual

    def loss(self, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.loss`."""
        config = self.config
        pyramid, latents, _, zeros = self.draw(generator, progress)
        terms = Terms(zeros.device)
        conditions = self.module.project(latents)
        x = torch.zeros_like(pyramid[0])
        for scale, clean in enumerate(pyramid):
            start = self.flow.start(scale, x, no_noise)
            output = predict(self.module, self.flow, start, conditions[scale], scale, zeros, zeros).estimate
            terms.add_distances(config.mse, config.l1, output, clean, f"_{scale}")
            x = output
        terms.add_perceptual(config.lpips, progress >= config.lpips_from, lambda: self.perceptual(x, pyramid[-1], generator))
        return terms.total, terms.parts
