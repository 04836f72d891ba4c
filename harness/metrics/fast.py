"""The metric networks in the form a CPU runs fastest; every value stays within 1e-4 of the plain form's (tests compare them).

What is different on a CPU: convolutions run channels-last, batch normalisation is folded into them, and Inception's input is
resized in two passes instead of four gathers. On other devices the plain networks run. Everywhere LPIPS computes the
reference's features once, for any number of images compared with it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from harness.metrics.inception import InceptionFeatures
from harness.metrics.lpips import Lpips, to_signed
from harness.metrics.precision import full_float32
from harness.weights import WEIGHTS

_SIDE = 299
_LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)
"""torch-fidelity's layers up to pool3, in the order images pass them"""
_VERSION = "1"
"""raise it when a change here or in `inception.py` moves features: cached ones are then computed again"""

State = tuple[Tensor, ...]
"""Five maps of the reference's normalised features, float32 [B, C, H, W]: about 2 MB an image of 224 px."""


class FastInception:
    """Inception pool3 features of uint8 images."""

    def __init__(self, device: torch.device, offline: bool = False) -> None:
        """Raises MsbenchError: the weights are absent and cannot be fetched."""
        self._plain = InceptionFeatures.load(device, offline)
        self._folded = _folded(self._plain.network) if device.type == "cpu" else None
        self.identity = f"inception {WEIGHTS['inception'].content_sha256} pool3 form {_VERSION} float32 {device.type}"
        """weights, code version and kind of device: features of equal pixels under one identity differ by rounding at most"""

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features of uint8 images [B, 3, H, W] of any size: float32 [B, 2048]."""
        if self._folded is None:
            return self._plain.features(images)
        with full_float32(images.device):
            maps: Tensor = self._folded(resized(images))
            return maps.mean(dim=(2, 3))


class FastLpips:
    """LPIPS of uint8 images against a reference's state."""

    def __init__(self, device: torch.device, offline: bool = False) -> None:
        """Raises MsbenchError: the weights are absent and cannot be fetched."""
        network: Any = Lpips.load("alex", device, offline).network  # the package has no types
        self._format = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        self._trunk: Callable[[Tensor], tuple[Tensor, ...]] = network.net.to(memory_format=self._format)
        self._scale: Callable[[Tensor], Tensor] = network.scaling_layer
        self._heads: list[Tensor] = [head.model[-1].weight.flatten() for head in network.lins]

    @torch.no_grad()
    def reference_state(self, references: Tensor) -> State:
        """Features of uint8 reference images [B, 3, H, W], for any number of `distance_to`."""
        with full_float32(references.device):
            return tuple(_normalised(maps) for maps in self._trunk(self._input(references)))

    @torch.no_grad()
    def distance_to(self, state: State, images: Tensor) -> Tensor:
        """LPIPS of uint8 images [B, 3, H, W] against the references of `state`: float32 [B]."""
        with full_float32(images.device):
            found = [
                _normalised(maps).sub_(reference).square_().mean(dim=(2, 3)) @ head
                for maps, reference, head in zip(self._trunk(self._input(images)), state, self._heads, strict=True)
            ]
            return torch.stack(found).sum(dim=0)

    def _input(self, images: Tensor) -> Tensor:
        return self._scale(to_signed(images)).contiguous(memory_format=self._format)


def resized(images: Tensor) -> Tensor:
    """TensorFlow 1's bilinear resize to 299 px, then (x - 128) / 128, as torch-fidelity does, to the bit.

    Across first, then down: each pass gathers whole pixels or rows, where the plain form gathers four full images.

    Args:
        images: uint8 [B, 3, H, W].

    Returns:
        float32 [B, 3, 299, 299] in [-1, 1), channels-last in memory.
    """
    pixels = images.permute(0, 2, 3, 1).float().contiguous()
    pixels = _lerp(_lerp(pixels, 2), 1)
    return pixels.sub_(128).div_(128).permute(0, 3, 1, 2)


def _lerp(pixels: Tensor, dim: int) -> Tensor:
    """Dimension `dim` (1 or 2) of [B, H, W, C] brought to 299: output i lies at i · size / 299 of the input."""
    size = pixels.shape[dim]
    place = torch.arange(_SIDE, dtype=torch.float32, device=pixels.device) * torch.tensor(size / _SIDE, dtype=torch.float32)
    low = place.long()
    weight = (place - low.float()).view(-1, *(1,) * (3 - dim))
    start = pixels.index_select(dim, low)
    return (pixels.index_select(dim, (low + 1).clamp_max(size - 1)).sub_(start)).mul_(weight).add_(start)


def _normalised(maps: Tensor) -> Tensor:
    """Each pixel's vector divided by its length + 1e-10, as the lpips package does."""
    return maps / maps.square().sum(dim=1, keepdim=True).sqrt_().add_(1e-10)


def _folded(network: nn.Module) -> nn.Module:
    """Copies of torch-fidelity's layers up to pool3's input, batch normalisation folded into them, channels-last."""
    layers = nn.Sequential(*(copy.deepcopy(getattr(network, name)) for name in _LAYERS))
    for module in layers.modules():
        convolution, normalisation = getattr(module, "conv", None), getattr(module, "bn", None)
        if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(convolution, normalisation)
            module.bn = nn.Identity()
    return layers.to(memory_format=torch.channels_last).requires_grad_(False).eval()
