"""All metrics together: networks loaded once, images in batches in, per-image values and features out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.metrics import fast
from harness.metrics.dists import Dists
from harness.metrics.feature_cache import FeatureCache
from harness.metrics.frechet import frechet_distance
from harness.metrics.kid import kid_pairs
from harness.metrics.pixel import Moments, mean_psnr, psnr, ssim, ssim_moments
from harness.metrics.spectrum import OCTAVES, octave_difference, octave_power, octaves_for
from harness.stopwatch import Stages

Values = NDArray[np.float64]
IMAGE_PAIR = ("psnr", "ssim", "lpips", "spectral")
"""the per-image metrics that two images suffice for; `latent_error` needs the decoder's encoder as well"""
OCTAVE_COLUMNS: tuple[str, ...] = tuple(f"octave_{ring}_db" for ring in range(OCTAVES))
"""beside them: signed dB of each octave, finest (f ≥ 1/4) first, above 0 grain, below blur; NaN where an image is too small"""

_DISTS_BATCH = 4  # its features of one 256-px image take 33 MB


@dataclass(frozen=True, slots=True)
class Prepared:
    """Reference images and what is computed of them once, for every decoder and noise seed."""

    images: Tensor
    """uint8 [B, 3, H, W], on the suite's device"""
    features: NDArray[np.float32]
    """Inception features [B, 2048]"""
    power: Tensor
    """float64 [B, octaves] of `spectrum.octave_power`"""
    moments: tuple[Moments, ...]
    """windowed means for SSIM, of each part of the batch"""
    lpips: tuple[fast.State, ...]
    """features for LPIPS, of each part of the batch"""
    dists: tuple[tuple[Tensor, ...], ...] = ()
    """state of `Dists` for each `_DISTS_BATCH` images; empty unless asked for"""


class MetricSuite:
    """The metric networks on one device. It keeps no results, so one suite serves any number of decoders.

    Typical use: `prepare` each batch of references once; for each decoder features and per-image values of each batch, then
    `set_metrics` on what was gathered.

    Args:
        device: where the networks run.
        offline: fetch no weights.
        batch_size: images in the networks at once; bounds memory and changes no result beyond float32 rounding.
        extra: metrics beyond the usual ones, names of `registry.EXTRA`.
        stages: stopwatch of the run; None = one of its own.

    Raises:
        MsbenchError: weights are absent and cannot be fetched.
    """

    def __init__(
        self,
        device: torch.device | str = "cpu",
        offline: bool = False,
        batch_size: int = 16,
        extra: Collection[str] = (),
        stages: Stages | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.batch_size = batch_size
        self._stages = stages or Stages(self.device)
        with self._stages.stage("loading inception"):
            self._inception = fast.FastInception(self.device, offline)
        with self._stages.stage("loading lpips"):
            self._lpips = fast.FastLpips(self.device, offline)
        self._dists = Dists.load(self.device, offline) if "dists" in extra else None

    @property
    def extractor(self) -> str:
        """Identity of what makes the features: weights, code version and kind of device."""
        return self._inception.identity

    def inception_features(self, images: Tensor) -> NDArray[np.float32]:
        """Inception pool3 features of uint8 images [B, 3, H, W]: [B, 2048], as the network gives them."""
        with self._stages.stage("inception"):
            parts = [self._inception.features(part.to(self.device)).cpu() for part in _batches(images, self.batch_size)]
            return torch.cat(parts).float().numpy()

    def prepare(self, images: Tensor, cache: FeatureCache | None = None, keys: Sequence[bytes] = ()) -> Prepared:
        """What the metrics need of reference images, uint8 [B, 3, H, W].

        Args:
            images: the batch.
            cache: where features computed before are looked up, and new ones kept; None = all are computed.
            keys: `pixels_sha256` of each image, for the cache.
        """
        images = images.to(self.device)
        parts = _batches(images, self.batch_size)
        with self._stages.stage("spectrum"):
            power = octave_power(images, octaves_for(*images.shape[-2:]))
        with self._stages.stage("ssim"):
            moments = tuple(ssim_moments(part) for part in parts)
        with self._stages.stage("lpips"):
            lpips = tuple(self._lpips.reference_state(part) for part in parts)
        dists: tuple[tuple[Tensor, ...], ...] = ()
        if self._dists is not None:
            with self._stages.stage("dists"):
                dists = tuple(self._dists.reference_state(part) for part in _batches(images, _DISTS_BATCH))
        with self._stages.stage("reference features"):
            if cache is None:
                features = self.inception_features(images)
            else:
                features = cache.features(keys, lambda missing: self.inception_features(images[missing]))
        return Prepared(images, features, power, moments, lpips, dists)

    def per_image(self, reference: Prepared, reconstruction: Tensor) -> dict[str, Values]:
        """`IMAGE_PAIR`, `OCTAVE_COLUMNS` and the extra metrics of each pair of uint8 images [B, 3, H, W], float64 [B] each; an
        exact image's PSNR is `inf`.

        Raises:
            ValueError: shapes or dtypes differ, or a side is shorter than 11 pixels.
        """
        reconstruction = reconstruction.to(self.device)
        pairs = list(zip(_batches(reconstruction, self.batch_size), _batches(reference.images, self.batch_size), strict=True))
        found: dict[str, list[Tensor]] = {}
        with self._stages.stage("psnr"):
            found["psnr"] = [psnr(image, original) for image, original in pairs]
        with self._stages.stage("ssim"):
            found["ssim"] = [ssim(*pair, moments) for pair, moments in zip(pairs, reference.moments, strict=True)]
        with self._stages.stage("lpips"):
            states = zip(pairs, reference.lpips, strict=True)
            found["lpips"] = [self._lpips.distance_to(state, image).cpu().double() for (image, _), state in states]
        values = {name: torch.cat(column).numpy() for name, column in found.items()}
        with self._stages.stage("spectrum"):
            rings = reference.power.shape[1]
            octaves = octave_difference(octave_power(reconstruction, rings), reference.power)
            values["spectral"] = octaves.abs().mean(dim=1).numpy()
            for ring, column in enumerate(OCTAVE_COLUMNS):
                values[column] = octaves[:, ring].numpy() if ring < rings else np.full(len(octaves), np.nan)
        if self._dists is not None:
            with self._stages.stage("dists"):
                parts = zip(reference.dists, _batches(reconstruction, _DISTS_BATCH), strict=True)
                distances = [self._dists.distance_to(state, part).cpu().double() for state, part in parts]
                values["dists"] = torch.cat(distances).numpy()
        return values


def _batches(images: Tensor, size: int) -> list[Tensor]:
    return [images[start : start + size] for start in range(0, len(images), size)]


def set_metrics(
    reference_features: NDArray[np.floating], reconstruction_features: NDArray[np.floating], per_image: Mapping[str, Values]
) -> dict[str, float]:
    """The numbers of one decoder over a whole set, keys as in `registry.METRICS`.

    Args:
        reference_features, reconstruction_features: [n, 2048], row i of both from pair i.
        per_image: [n] for each name of `PER_IMAGE` (and of extra metrics), in any order of images.

    Returns:
        rfid and kid, NaN for fewer than two images; then the mean of each per-image metric. psnr is the mean of its finite
        values, and `inf` where every image is exact: JSON writers must turn that into null.

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
        **{name: mean_psnr(values) if name == "psnr" else float(values.mean()) for name, values in per_image.items()},
    }
