"""A convention: one way the field computes a metric, what it needs and who uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.metrics.metric import Whole

Image = NDArray[np.uint8] | NDArray[np.float32]
"""One picture [H, W, 3] in [0, 255]; uint8, or float32 where it was not rounded."""
Rows = Callable[[int], "NDArray[np.intp] | str"]
"""Number of images -> the rows that count, or what would be needed for any."""
View = Callable[[Image], Tensor]
"""A picture -> what the Inception network sees of it, float32 [3, 299, 299] in [-1, 1]."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who computes it this way."""

    name: str
    """a few words"""
    url: str
    """where that can be read"""


@dataclass(frozen=True, slots=True)
class Kept:
    """Computed from what the run kept: samples, and features where asked for."""

    of: Callable[[Whole], float]
    """the value of the pairs that count"""
    features: bool
    """it needs features, not samples alone"""
    rows: Rows = np.arange
    """which pairs count"""


@dataclass(frozen=True, slots=True)
class Pairs:
    """The mean over images of a value of two pictures."""

    of: Callable[[Image, Image], float]
    """(reference, reconstruction) -> value; infinite ones are left out of the mean"""
    reference: str = "reference"
    """stream of the first, see `sources`"""
    decoded: str = "decoded"
    """stream of the second"""


@dataclass(frozen=True, slots=True)
class Side:
    """Features of one stream of pictures."""

    stream: str
    """see `sources`"""
    view: View
    """how each reaches the network"""


@dataclass(frozen=True, slots=True)
class Distance:
    """rFID of two sides."""

    reference: Side | None
    """None: the features that the run kept, or statistics from a file"""
    decoded: Side | None
    """None: the features that the run kept"""
    statistics: bool = False
    """the reference is a file of a mean and a covariance"""


@dataclass(frozen=True, slots=True)
class Convention:
    """One way to compute a metric."""

    metric: str
    """the metric's name in records"""
    name: str
    """unique within the metric"""
    measure: Kept | Pairs | Distance
    """how it is computed, and from what"""
    users: tuple[User, ...] = ()
    """who uses it; empty where nobody's code was read"""
    setting: str = ""
    """of a way that touches every metric at once: its name; empty where it concerns this metric alone"""
    images: int | None = None
    """number of images it is of; None = as many as the run"""
    scale: float = 1.0
    """what the metric's unit is multiplied by"""
