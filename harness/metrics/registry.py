"""The metrics by name: direction, unit, and the weights they need. Light to import; `msbench ls metrics` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a table says about a metric."""

    name: str
    """key in records and tables"""
    direction: Literal["higher", "lower"]
    """which way is better"""
    unit: str
    """unit of the number; empty where it has none"""
    description: str
    """one line for people"""
    per_image: bool
    """True: one value per image, the table shows their mean. False: defined on the whole set only"""
    weights: tuple[str, ...]
    """weights files it needs (names of `harness.weights.WEIGHTS`)"""
    extra: bool = False
    """True: slow, computed on request only (`--extra-metrics`)"""


METRICS: dict[str, MetricInfo] = {
    info.name: info
    for info in (
        MetricInfo(
            "rfid",
            "lower",
            "",
            "Fréchet distance of Inception-2015 pool3 features, references against reconstructions",
            False,
            ("inception",),
        ),
        MetricInfo(
            "kid",
            "lower",
            "",
            "kernel distance of the same features (cubic, unbiased, a pair's own cross term left out)",
            False,
            ("inception",),
        ),
        MetricInfo("psnr", "higher", "dB", "peak signal-to-noise ratio over [0, 255], mean over images", True, ()),
        MetricInfo("ssim", "higher", "", "structural similarity, Gaussian window 11 / 1.5 on RGB (scikit-image's)", True, ()),
        MetricInfo(
            "lpips", "lower", "", "learned perceptual distance, AlexNet v0.1 (the lpips package's)", True, ("lpips-alex",)
        ),
        MetricInfo(
            "spectral",
            "lower",
            "dB",
            "mean over octaves of how far an image's power spectrum is from its reference's, up or down",
            True,
            (),
        ),
        MetricInfo(
            "latent_error",
            "lower",
            "",
            "latent faithfulness ‖E(D(z)) - z‖ / ‖z‖; only decoders of one encoder compare",
            True,
            (),
        ),
        MetricInfo(
            "dists",
            "lower",
            "",
            "deep structure and texture distance (Ding et al.), VGG16, no resize",
            True,
            ("lpips-vgg", "dists"),
            extra=True,
        ),
    )
}
"""Every metric, in the order tables show them."""

PER_IMAGE: tuple[str, ...] = tuple(info.name for info in METRICS.values() if info.per_image and not info.extra)
"""Metrics that every run computes for every image."""
EXTRA: tuple[str, ...] = tuple(info.name for info in METRICS.values() if info.extra)
"""Metrics a run computes on request."""
REQUIRED_WEIGHTS: tuple[str, ...] = tuple(
    dict.fromkeys(name for info in METRICS.values() if not info.extra for name in info.weights)
)
"""Weights files every evaluation needs."""
