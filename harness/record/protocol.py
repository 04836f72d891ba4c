"""The protocol of a run: all that decides what its quality numbers mean, beside the metrics' own definitions.

Its hash guards comparisons. It covers the fields that differ from their defaults alone, so that a later field, whose default
says what was done before there was one, changes nobody's hash. A default therefore never changes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Any

from harness.metrics.registry import DEFAULT_MARGINS

DECODED, FINISHED = "decoded", "finished images"
"""where reconstructions come from"""


@dataclass(frozen=True, slots=True)
class Protocol:
    """Two runs compare only where these agree; batch size, threads and decoder are not among them."""

    dataset: str = "photos"
    """dataset name; of folder:PATH only "folder", since the hashes of its files say which images they are"""
    split: str | None = None
    """which part of it"""
    resolution: int = 256
    """side of every image in pixels"""
    preprocessing: str = "native-grid-crop-v1"
    """versioned name of the way from file to pixels"""
    max_samples: int | None = None
    """size of the subset; None = everything"""
    subset_seed: int = 0
    """seed of the subset; 0 where everything is taken"""
    noise_seed: int = 0
    """run seed from which each sample's noise comes"""
    noise_seeds: int = 1
    """each sample is decoded under this many seeds from there on; figures are means over them"""
    margins: str = ",".join(sorted(DEFAULT_MARGINS.split(",")))
    """losses that count as none, stated before the run, for the verdict "non-inferior within the margin\""""
    quantisation: str = "clamp [-1, 1], round half to even once, uint8"
    """how reconstructions become pixels"""
    padding: str = "edge repeated right and below to a multiple of the decoder's factor, cut off again"
    """how a decoder gets a side that its factor does not divide"""
    subset: str = ""
    """how the subset was drawn: "stratified by class", "unlabelled", …; empty for everything"""
    partial: bool = False
    """the dataset should hold more images than it did"""
    latent_noise: float = 0.0
    """noise added to latents, in spreads of each channel"""
    reconstructions: str = DECODED
    """where they come from; finished images alone draw no noise, and compare with whatever has the same reference pixels"""

    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the fields that differ from their defaults, as JSON."""
        return hash_of({field.name: getattr(self, field.name) for field in fields(self)})


def hash_of(values: dict[str, Any]) -> str:
    """`Protocol.hash` of a record's fields."""
    defaults = {field.name: field.default for field in fields(Protocol)}
    stated = {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:16]
