"""LPIPS v0.1 (Zhang et al., CVPR 2018), computed by the authors' own package with weights from the checked cache."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harness import weights
from harness.metrics.inception import ConvRelu, full_float32
from harness.metrics.metric import Check, Metric, Picture, distances, floor

LpipsNet = Literal["alex", "vgg"]
State = tuple[Tensor, ...]
"""Five maps of a reference's normalised features, float32 [B, C, H, W]: about 2 MB an image of 224 px."""


def _build(net: LpipsNet) -> nn.Module:
    """The package's network without any weights; nothing is downloaded, no random numbers are drawn."""
    import lpips

    with warnings.catch_warnings(), torch.device("meta"):
        # torchvision deprecates the argument by which the package asks for an untrained trunk.
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        network: nn.Module = lpips.LPIPS(pretrained=False, net=net, version="0.1", pnet_rand=True, verbose=False)
    return network


class Lpips(nn.Module):
    """Perceptual distance between images, frozen and in eval mode; build it with `Lpips.load`.

    Gradients flow to the images, not to the network, so it serves as a training loss too.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def load(cls, net: LpipsNet = "alex", device: torch.device | str = "cpu", offline: bool = False) -> Lpips:
        """The network `alex` (the metric) or `vgg` (the usual training loss) with its weights.

        Raises:
            MsbenchError: the weights are absent and cannot be fetched.
        """
        tensors = weights.load(f"lpips-{net}", offline=offline)
        network = _build(net)
        state: dict[str, Tensor] = {}
        for name, old in network.state_dict().items():
            if name.startswith("scaling_layer."):
                state[name] = old  # constants of the package
            elif name.startswith("net."):
                layer, leaf = name.split(".")[2:]
                state[name] = tensors[f"features.{layer}.{leaf}"]
            else:  # "lin0.…" and "lins.0.…" are two names of one head
                state[name] = tensors[f"lin{name.removeprefix('lins.').removeprefix('lin')[0]}.weight"]
        network.load_state_dict(state, assign=True)
        return cls(network).to(device)

    def train(self, mode: bool = True) -> Lpips:
        """Stays in eval mode whatever the parent does: the heads hold dropout."""
        return super().train(False)

    def forward(self, images: Tensor, references: Tensor) -> Tensor:
        """Distances of float images [B, 3, H, W] in [-1, 1]: [B], differentiable; 0 where equal, usually below 1."""
        distances: Tensor = self.network(images, references)
        return distances.flatten()


class FastLpips:
    """LPIPS of uint8 images against a state of their references; channels-last on a CPU, within 1e-4 of the plain form."""

    def __init__(self, device: torch.device, offline: bool = False) -> None:
        """Raises MsbenchError: the weights are absent and cannot be fetched."""
        network: Any = Lpips.load("alex", device, offline).network  # the package has no types
        self._format = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        for part in network.net.children():
            for name, layer in part.named_children():
                if isinstance(layer, nn.Conv2d):  # a ReLU follows
                    setattr(part, name, ConvRelu(layer))
                elif isinstance(layer, nn.ReLU):
                    setattr(part, name, nn.Identity())
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
        return self._scale(images.float() / 127.5 - 1.0).contiguous(memory_format=self._format)


def _normalised(maps: Tensor) -> Tensor:
    """Each pixel's vector divided, in place, by its length + 1e-10, as the lpips package does."""
    return maps.div_(torch.linalg.vector_norm(maps, dim=1, keepdim=True).add_(1e-10))


def by_package(reference: Picture, decoded: Picture) -> float:
    """By the lpips package, images by its own `im2tensor`.

    Raises:
        MsbenchError: the weights are absent and cannot be fetched.
    """
    import lpips

    with torch.inference_mode():
        return float(_plain().network(lpips.im2tensor(decoded), lpips.im2tensor(reference)).item())


@cache
def _plain() -> Lpips:
    return Lpips.load("alex")


METRIC = Metric(
    name="lpips",
    direction="lower",
    description="learned perceptual distance, AlexNet v0.1 (the lpips package's)",
    definition="alex v0.1 on [-1, 1]",
    title="LPIPS",
    headline=True,
    margin="0.01",
    weights=("lpips-alex",),
    load=lambda device, offline: distances(FastLpips(device, offline)),
    tolerance=floor(3e-5),
    check=Check(
        how="lpips package on PNG",
        reason="float32 network, one image at a time instead of batches",
        absolute=1e-5,
        pair=by_package,
    ),
)
