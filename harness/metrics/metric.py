"""What a metric is: one entry that table, record, comparison, gate, `verify`, `ls` and --json all read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Column = NDArray[np.float64]
"""One value an image, float64 [B] or [n]."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as a per-image metric sees it."""

    images: Tensor
    """reconstructions, uint8 [B, 3, H, W] on the run's device"""
    references: Tensor
    """what they should be, likewise"""
    keys: tuple[str, ...]
    """name of each image"""
    labels: tuple[str | None, ...]
    """class of each image"""
    latents: Tensor | None = None
    """what the decoder decoded; None where there is no decoder"""
    encode: Callable[[Tensor], Tensor] | None = None
    """uint8 images -> latents by the decoder's own encoder; None where the code is no latent grid"""


class PerImage(Protocol):
    """The per-image half of a metric, loaded once a run on one device."""

    def prepare(self, references: Tensor) -> Any:
        """What is computed of reference images once, for every decoder and noise seed; None where nothing is."""
        ...

    def measure(self, batch: Batch, prepared: Any) -> Mapping[str, Column]:
        """Columns of samples.parquet: the metric's own name -> its values, and whatever else it wants to keep."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """A set of pairs as a whole-set metric sees it."""

    reference_features: NDArray[np.float32]
    """Inception pool3 of the references, [n, 2048]"""
    features: NDArray[np.float32]
    """of the reconstructions, row i of both from pair i"""
    columns: Mapping[str, Column]
    """per-image columns of the run"""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much worse the gate lets a figure get: `absolute + relative · |expected|`."""

    absolute: float
    """in the metric's own unit"""
    relative: float
    """as a fraction of the expected value"""
    source: str
    """where it comes from, for the report"""


@dataclass(frozen=True, slots=True)
class Check:
    """How `verify` computes the figure again, by another route."""

    how: str
    """the route, in a few words"""
    absolute: float
    """tolerance of one value"""
    relative: float
    """tolerance as a share of the value"""
    reason: str
    """where the tolerance comes from"""
    pair: Callable[[NDArray[np.uint8], NDArray[np.uint8]], float] | None = None
    """per image: (reference, reconstruction) uint8 [H, W, 3] as read from PNG -> value"""
    whole: Callable[[Whole], float] | None = None
    """of the set: the value again"""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: `load` or `whole` gives its figure; a whole-set metric may load per-image columns of its own beside it."""

    name: str
    """key in records and tables"""
    direction: Literal["higher", "lower"]
    """which way is better"""
    description: str
    """one line for people"""
    definition: str
    """versioned text that fixes the computation: figures of two runs compare where it is equal"""
    title: str
    """column header, without its arrow"""
    digits: int = 3
    """decimals in a table"""
    unit: str = ""
    """unit of the number"""
    margin: str = ""
    """default loss that counts as none: "0.2" or "5%"; empty = none"""
    weights: tuple[str, ...] = ()
    """files of `harness.weights` it needs"""
    extra: bool = False
    """computed on request only (`--extra-metrics`)"""
    load: Callable[[torch.device, bool], PerImage] | None = None
    """(device, offline) -> the per-image half"""
    whole: Callable[[Whole], float] | None = None
    """the figure of a whole set; None = the mean of the per-image values"""
    statistic: Callable[..., Any] | None = None
    """(Whole, clusters) -> `harness.stats.sets.SetStatistic` with its values without each unit; None = grouped jackknife"""
    tolerance: Tolerance | None = None
    """of the gate; None = the gate's default"""
    check: Check | None = None
    """how `verify` computes it again; None = it says "not checked\""""
