"""Inception features for rFID and KID: torch-fidelity's network (a port of the 2015-12-05 TensorFlow graph, TF1 resize)."""

from __future__ import annotations

import io
from typing import Literal

import torch
from torch import Tensor, nn

from harness import weights
from harness.metrics.precision import full_float32

Tap = Literal["64", "192", "768", "2048"]
"""Layer whose spatial mean is taken, named by its width; "2048" (pool3) is the one rFID and KID are defined on."""
_CLASSES, _WIDTH = 1008, 2048


def torch_fidelity_state_dict(offline: bool = False) -> dict[str, Tensor]:
    """The weights as torch-fidelity loads them, for its `feature_extractor_weights_path` (after `torch.save`).

    torch-fidelity loads strictly and so wants a classifier, which our sources do not share: it is NaN, so that no metric that
    needs it (the inception score) can look valid.

    Raises:
        MsbenchError: the weights are absent and cannot be fetched.
    """
    state = weights.load("inception", offline=offline)
    state["fc.weight"] = torch.full((_CLASSES, _WIDTH), torch.nan)
    state["fc.bias"] = torch.full((_CLASSES,), torch.nan)
    return state


class InceptionFeatures(nn.Module):
    """The frozen feature extractor; build it with `InceptionFeatures.load`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def load(cls, device: torch.device | str = "cpu", offline: bool = False, tap: Tap = "2048") -> InceptionFeatures:
        """The network with its weights.

        Raises:
            MsbenchError: the weights are absent and cannot be fetched.
        """
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        file = io.BytesIO()  # torch-fidelity takes weights as a file only
        torch.save(torch_fidelity_state_dict(offline), file)
        file.seek(0)
        # Its constructor draws initial weights first; the caller's random state must not notice.
        with torch.random.fork_rng(devices=[]):
            network = FeatureExtractorInceptionV3("inception-v3-compat", [tap], feature_extractor_weights_path=file)
        return cls(network).to(device)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features of uint8 images [B, 3, H, W] of any size: float32 [B, D], D = 2048 unless another tap was asked for."""
        with full_float32(images.device):
            (features,) = self.network(images)
        return torch.as_tensor(features)

    def forward(self, images: Tensor) -> Tensor:
        """Same as `features`."""
        return self.features(images)
