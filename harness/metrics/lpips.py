"""LPIPS v0.1 (Zhang et al., CVPR 2018), computed by the authors' own package with weights from the checked cache."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor, nn

from harness import weights
from harness.metrics.precision import full_float32

LpipsNet = Literal["alex", "vgg"]


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

    @torch.no_grad()
    def distance(self, images: Tensor, references: Tensor) -> Tensor:
        """Distances of uint8 images [B, 3, H, W]: float32 [B]."""
        with full_float32(images.device):
            distances: Tensor = self(to_signed(images), to_signed(references))
        return distances


def to_signed(images: Tensor) -> Tensor:
    """uint8 → float32 in [-1, 1]."""
    return images.float() / 127.5 - 1.0
