"""A metric suite without networks."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.metrics.metric import PerImage
from harness.metrics.registry import METRICS
from harness.metrics.suite import MetricSuite


class LightSuite(MetricSuite):
    """LPIPS is a mean absolute difference, features are 48 means of patches."""

    def __init__(self, device: torch.device | str = "cpu", offline: bool = False, extra: Collection[str] = ()) -> None:
        self.device, self.batch_size = torch.device(device), 16
        names = ("psnr", "ssim", "spectral", "latent_error", *(name for name in extra if name == "token_agreement"))
        self._halves = {name: load(self.device, offline) for name in names if (load := METRICS[name].load) is not None}
        self._halves["lpips"] = PerImage(
            lambda batch, _: (batch.images.float() - batch.references.float()).abs().mean(dim=(1, 2, 3)).double().cpu().numpy()
        )

    @property
    def extractor(self) -> str:
        return "light"

    def inception_features(self, images: Tensor) -> NDArray[np.float32]:
        return F.adaptive_avg_pool2d(images.float(), 4).flatten(1).cpu().numpy()
