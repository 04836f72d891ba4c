"""All metrics together: networks loaded once, images in batches in, per-image values and features out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.metrics.frechet import frechet_distance
from harness.metrics.inception import InceptionFeatures
from harness.metrics.kid import kid_pairs
from harness.metrics.lpips import Lpips
from harness.metrics.pixel import mean_psnr, psnr, ssim

Values = NDArray[np.float64]
PER_IMAGE: tuple[str, ...] = ("psnr", "ssim", "lpips")
"""keys of `MetricSuite.per_image`"""


class MetricSuite:
    """The metric networks on one device. It keeps no results, so one suite serves any number of decoders.

    Typical use: features of the references once; for each decoder features and per-image values of each batch, then
    `set_metrics` on what was gathered.

    Args:
        device: where the networks run.
        offline: fetch no weights.
        batch_size: images in the networks at once; bounds memory and changes no result beyond float32 rounding.
        lpips_net: trunk of LPIPS; "alex" is the protocol's.

    Raises:
        MsbenchError: weights are absent and cannot be fetched.
    """

    def __init__(
        self,
        device: torch.device | str = "cpu",
        offline: bool = False,
        batch_size: int = 16,
        lpips_net: Literal["alex", "vgg"] = "alex",
    ) -> None:
        self.device = torch.device(device)
        self.batch_size = batch_size
        self._inception = InceptionFeatures.load(self.device, offline)
        self._lpips = Lpips.load(lpips_net, self.device, offline)

    def inception_features(self, images: Tensor) -> Values:
        """Inception pool3 features of uint8 images [B, 3, H, W]: float64 [B, 2048]."""
        parts = [self._inception.features(part.to(self.device)).cpu() for part in self._batches(images)]
        return torch.cat(parts).double().numpy()

    def per_image(self, reference: Tensor, reconstruction: Tensor) -> dict[str, Values]:
        """PSNR (dB, `inf` for an exact image), SSIM and LPIPS of each pair of uint8 images [B, 3, H, W]: float64 [B] each.

        Raises:
            ValueError: shapes or dtypes differ, or a side is shorter than 11 pixels.
        """
        found: dict[str, list[Tensor]] = {name: [] for name in PER_IMAGE}
        for ref, rec in zip(self._batches(reference), self._batches(reconstruction), strict=True):
            first, second = rec.to(self.device), ref.to(self.device)
            found["psnr"].append(psnr(first, second))
            found["ssim"].append(ssim(first, second))
            found["lpips"].append(self._lpips.distance(first, second).cpu().double())
        return {name: torch.cat(parts).numpy() for name, parts in found.items()}

    def _batches(self, images: Tensor) -> list[Tensor]:
        return [images[start : start + self.batch_size] for start in range(0, len(images), self.batch_size)]


def set_metrics(
    reference_features: NDArray[np.floating], reconstruction_features: NDArray[np.floating], per_image: Mapping[str, Values]
) -> dict[str, float]:
    """The numbers of one decoder over a whole set, keys as in `registry.METRICS`.

    Args:
        reference_features, reconstruction_features: [n, 2048], row i of both from pair i.
        per_image: [n] for each name of `PER_IMAGE`, in any order of images.

    Returns:
        rfid, kid, psnr, ssim, lpips. rfid and kid are NaN for fewer than two images. psnr is the mean of its finite values, and
        `inf` where every image is exact: JSON writers must turn that into null.

    Raises:
        ValueError: the numbers of images differ.
    """
    counts = {len(reference_features), len(reconstruction_features), *(len(values) for values in per_image.values())}
    if len(counts) != 1:
        raise ValueError(f"features and per-image values are of different numbers of images: {sorted(counts)}")
    enough = counts.pop() >= 2
    return {
        "rfid": frechet_distance(reference_features, reconstruction_features) if enough else float("nan"),
        "kid": kid_pairs(reference_features, reconstruction_features) if enough else float("nan"),
        "psnr": mean_psnr(per_image["psnr"]),
        "ssim": float(per_image["ssim"].mean()),
        "lpips": float(per_image["lpips"].mean()),
    }
