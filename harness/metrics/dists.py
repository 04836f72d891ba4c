"""DISTS, deep image structure and texture similarity (Ding et al., 2020, arXiv 2004.07728), with the authors' weights.

How it is computed here:

- Both images go in as they are, whatever their size. The authors' script first shrinks an image whose shorter side exceeds
  256 px: up to that size the two agree, above it they do not.
- Stage 0 is the image in [0, 1]; stages 1 to 5 are VGG16's relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 of the image
  normalised by ImageNet's mean and deviation, with L2 pooling in place of max pooling.
- Everything is float32, without TF32 or autocast. The paper's 1 - Σ (α l + β s) is summed as Σ α (1 - l) + β (1 - s), with
  1 - l = (μx - μy)² / (μx² + μy² + c) and 1 - s = Var(x - y) / (σx² + σy² + c): the same numbers without their cancellation.

VGG16 is slow on a CPU, so this metric is computed on request only.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from harness import weights
from harness.metrics.inception import full_float32
from harness.metrics.metric import Metric, distances

_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Convolutions of each stage: their positions in torchvision's `vgg16().features`."""
_C = 1e-6
"""c1 and c2 of the paper, as the authors' code sets them."""
_POOL_FLOOR = 1e-12
"""keeps the slope of the pooling's root finite at zero, as in the authors' code"""

Stages = tuple[Tensor, ...]
"""The image in [0, 1] and its five stages of features, float32 [B, C, H, W] each; about 33 MB an image of 256 px."""


class Dists:
    """Perceptual distance that forgives a texture's exact layout.

    Args:
        tensors: `features.N.{weight,bias}` of VGG16, torchvision's names.
        alpha: texture weights [1475], at least 0.
        beta: structure weights [1475], at least 0; alpha and beta together are scaled to sum 1.
        device: where it runs.
    """

    def __init__(self, tensors: Mapping[str, Tensor], alpha: Tensor, beta: Tensor, device: torch.device | str = "cpu") -> None:
        self._stages = [
            [(tensors[f"features.{n}.weight"].to(device), tensors[f"features.{n}.bias"].to(device)) for n in layers]
            for layers in _STAGES
        ]
        self._mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
        self._deviation = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)
        # A Hann window over 5 points without its zero ends is (1, 2, 1) / 2.
        window = torch.tensor([1.0, 2.0, 1.0], device=device)
        self._kernel = (window[:, None] * window / 16).view(1, 1, 3, 3)
        total = alpha.sum() + beta.sum()
        self._alpha, self._beta = (alpha / total).to(device), (beta / total).to(device)

    @classmethod
    def load(cls, device: torch.device | str = "cpu", offline: bool = False) -> Dists:
        """The network with its weights: VGG16's from `lpips-vgg`, α and β from `dists`.

        Raises:
            MsbenchError: weights are absent and cannot be fetched.
        """
        fitted = weights.load("dists", offline=offline)
        return cls(weights.load("lpips-vgg", offline=offline), fitted["alpha"], fitted["beta"], device)

    @torch.no_grad()
    def reference_state(self, references: Tensor) -> Stages:
        """Features of uint8 reference images [B, 3, H, W], for any number of `distance_to`: half of a distance's time."""
        with full_float32(references.device):
            return self._features(references.float() / 255)

    @torch.no_grad()
    def distance_to(self, state: Stages, images: Tensor) -> Tensor:
        """Distances of uint8 images [B, 3, H, W]: float32 [B], lower is better; 0 where equal, at most 2, symmetric.

        Needs about 100 MB an image of 256 px; hand over a few at a time.

        Raises:
            ValueError: the images have not the references' shape.
        """
        if images.shape != state[0].shape:
            raise ValueError(f"images are {list(images.shape)}, references {list(state[0].shape)}")
        with full_float32(images.device):
            return self._compare(self._features(images.float() / 255), state)

    def _features(self, images: Tensor) -> Stages:
        found = [images]
        hidden = (images - self._mean) / self._deviation
        for stage in self._stages:
            if len(found) > 1:
                hidden = self._pool(hidden)
            for weight, bias in stage:
                hidden = torch.relu(functional.conv2d(hidden, weight, bias, padding=1))
            found.append(hidden)
        return tuple(found)

    def _pool(self, hidden: Tensor) -> Tensor:
        """L2 pooling: the root of the blurred square at every second pixel."""
        channels = hidden.shape[1]
        kernel = self._kernel.expand(channels, 1, 3, 3)
        blurred = functional.conv2d(hidden.square(), kernel, stride=2, padding=1, groups=channels)
        return (blurred + _POOL_FLOOR).sqrt()

    def _compare(self, first: Stages, second: Stages) -> Tensor:
        texture = torch.cat([texture_distance(x, y) for x, y in zip(first, second, strict=True)], dim=1)
        structure = torch.cat([structure_distance(x, y) for x, y in zip(first, second, strict=True)], dim=1)
        return (self._alpha * texture + self._beta * structure).sum(dim=1)


def texture_distance(first: Tensor, second: Tensor) -> Tensor:
    """1 - l of each channel, where l compares spatial means: [B, C, H, W] twice → [B, C] in [0, 2]."""
    x, y = first.mean(dim=(2, 3)), second.mean(dim=(2, 3))
    return (x - y).square() / (x.square() + y.square() + _C)


def structure_distance(first: Tensor, second: Tensor) -> Tensor:
    """1 - s of each channel, where s compares what varies in space: [B, C, H, W] twice → [B, C] in [0, 2]."""
    return _variance(first - second) / (_variance(first) + _variance(second) + _C)


def _variance(maps: Tensor) -> Tensor:
    """Population variance over the pixels: [B, C, H, W] → [B, C]."""
    return maps.var(dim=(2, 3), correction=0)


METRIC = Metric(
    name="dists",
    direction="lower",
    description="deep structure and texture distance (Ding et al.), VGG16, no resize",
    definition="VGG16 with L2 pooling, the authors' weights, images in [0, 1] as they are, without resize",
    title="DISTS",
    weights=("lpips-vgg", "dists"),
    extra=True,
    load=lambda device, offline: distances(Dists.load(device, offline)),
    at_once=4,  # features of one 256-px image take 33 MB
)
