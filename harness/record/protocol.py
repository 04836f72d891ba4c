"""The protocol of a run: all that decides what its quality numbers mean, and nothing else; its hash guards comparisons."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from harness.metrics.registry import DEFAULT_MARGINS


@dataclass(frozen=True, slots=True)
class Protocol:
    """Two runs compare only where these agree; batch size, threads and decoder are not among them."""

    dataset: str
    """dataset name; of folder:PATH only "folder", since the hashes of its files say which images they are"""
    split: str | None
    """which part of it"""
    resolution: int
    """side of every image in pixels"""
    preprocessing: str
    """versioned name of the way from file to pixels"""
    max_samples: int | None
    """size of the stratified subset; None = everything"""
    subset_seed: int
    """seed of the subset; 0 where everything is taken"""
    noise_seed: int
    """run seed from which each sample's noise comes"""
    noise_seeds: int = 1
    """each sample is decoded under this many seeds from there on; figures are means over them"""
    margins: str = DEFAULT_MARGINS
    """losses that count as none, stated before the run, for the verdict "non-inferior within the margin\""""
    extra_metrics: str = ""
    """metrics beyond the usual ones, sorted, separated by commas"""
    quantisation: str = "clamp [-1, 1], round half to even once, uint8"
    """how reconstructions become pixels"""
    rfid: str = "inception-2015-12-05 pool3, TF1 resize, float64, exact"
    """variant of rFID"""
    kid: str = "cubic kernel, unbiased, full set, pair cross terms left out"
    """variant of KID"""
    psnr: str = "per image over [0, 255], mean of finite dB"
    """variant of PSNR"""
    ssim: str = "gaussian 11/1.5 RGB, population covariance, data range 255, borders cropped"
    """variant of SSIM"""
    lpips: str = "alex v0.1 on [-1, 1]"
    """variant of LPIPS"""
    spectral: str = "luminance, Hann window, 5 octaves, mean |dB| over a floor of 1/12"
    """variant of the spectral error"""
    latent_error: str = "relative L2 of the latents of the rounded reconstruction"
    """variant of latent faithfulness"""

    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the fields as JSON."""
        text = json.dumps({"schema": 2, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
