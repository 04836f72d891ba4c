"""What a metric is: one entry that table, record, comparison, gate, `verify`, `ls` and --json all read.

A file of this folder holds one metric and its entry, `METRIC = Metric(…)`; a package adds its own through the entry-point group
`msbench.metrics`. Images are uint8 [B, 3, H, W] everywhere, the ones every other metric sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.errors import MsbenchError
from harness.stats.estimate import Clusters, unit_numbers
from harness.stats.sets import SetStatistic, grouped_statistic

Column = NDArray[np.float64]
"""One value an image, float64 [B] or [n]."""
Picture = NDArray[np.uint8]
"""One image as read from a PNG, uint8 [H, W, 3]."""
HERE = "msbench"


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as a per-image metric sees it."""

    images: Tensor
    """reconstructions, uint8 [B, 3, H, W] on the run's device"""
    references: Tensor
    """what they should be, likewise"""
    keys: tuple[str, ...] = ()
    """name of each image"""
    labels: tuple[str | None, ...] = ()
    """class of each image"""
    latents: Tensor | None = None
    """what the decoder decoded; None where there is no decoder"""
    encode: Callable[[Tensor], Tensor] | None = None
    """uint8 images -> latents by the decoder's own encoder; None where the code is no latent grid"""
    texts: tuple[str | None, ...] = ()
    """what stands written in each image; None where that is not known"""

    def rows(self, rows: slice) -> Batch:
        """Some of the images."""
        latents = None if self.latents is None else self.latents[rows]
        told = self.keys[rows], self.labels[rows], latents, self.encode, self.texts[rows]
        return Batch(self.images[rows], self.references[rows], *told)


@dataclass(frozen=True, slots=True)
class PerImage:
    """The per-image half of a metric, loaded once a run on one device."""

    measure: Callable[[Batch, Any], Column | Mapping[str, Column]]
    """(batch, what `prepare` gave for it) -> the metric's values, or columns of samples.parquet by name, its own among them"""
    prepare: Callable[[Tensor], Any] = lambda references: None
    """what is computed of reference images once, for every decoder and noise seed"""


def one_at_a_time(images: Tensor) -> tuple[Tensor, ...]:
    """Images [B, ...] one by one on a CPU: its caches hold one's maps, and no bit of a value depends on what is beside it.

    The whole batch elsewhere.
    """
    return tuple(torch.split(images, 1 if images.device.type == "cpu" else len(images)))


def distances(network: Any) -> PerImage:
    """Of a network with `reference_state(references)` and `distance_to(state, images)` -> Tensor [B]."""
    return PerImage(
        lambda batch, state: network.distance_to(state, batch.images).cpu().double().numpy(), network.reference_state
    )


@dataclass(frozen=True, slots=True)
class Whole:
    """A set of pairs as a whole-set metric sees it."""

    reference_features: NDArray[np.float32]
    """Inception pool3 of the references, [n, 2048]"""
    features: NDArray[np.float32]
    """of the reconstructions, row i of both from pair i"""
    columns: Mapping[str, Column]
    """per-image columns of the run"""

    def rows(self, rows: NDArray[np.intp]) -> Whole:
        """Some of the pairs."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Whole(self.reference_features[rows], self.features[rows], columns)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much worse the gate lets a figure get: `absolute + relative · |expected|`."""

    absolute: float
    """in the metric's own unit"""
    relative: float
    """as a fraction of the expected value"""
    source: str
    """where it comes from, for the report"""

    def amount(self, expected: float) -> float:
        """The tolerance of one figure in the metric's unit; 0 beside an infinite one."""
        return self.absolute + self.relative * abs(expected) if isfinite(expected) else 0.0


FLOOR_TIMES = 10
"""measured tolerance over the largest difference that batch size, threads, instruction sets or a second run made"""


def floor(absolute: float, relative: float = 0.0) -> Tolerance:
    """A measured tolerance, one digit, rounded up; results/regression/README.md says how it was measured."""
    source = f"{FLOOR_TIMES} x the largest difference between batch sizes, threads and instruction sets"
    return Tolerance(absolute, relative, source)


@dataclass(frozen=True, slots=True)
class Check:
    """How `verify` computes the figure again, by another route: exactly one of `pair` and `whole`."""

    how: str
    """the route, in a few words"""
    reason: str
    """where the tolerance comes from"""
    absolute: float = 0.0
    """tolerance of one value"""
    relative: float = 0.0
    """tolerance as a share of `scale`"""
    scale: Callable[[Whole], float] | None = None
    """of a whole-set metric: what `relative` is a share of; None = the value"""
    pair: Callable[[Picture, Picture], float | Mapping[str, float]] | None = None
    """per image: (reference, reconstruction) -> value, or every column by name"""
    whole: Callable[[Whole], float] | None = None
    """of the set: the value again"""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Without `whole` and `statistic` its figure is the mean of the values that `load` gives; with one of them it
    is of the whole set, and `load` may add columns for it."""

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
    digits: int | None = 3
    """decimals in a table; None = three significant digits"""
    unit: str = ""
    """unit of the number"""
    headline: bool = False
    """in the first block of every table"""
    ranked: bool = True
    """decoders compete in it: the best is shown"""
    margin: str = ""
    """default loss that counts as none: "0.2" or "5%"; empty = none"""
    weights: tuple[str, ...] = ()
    """files of `harness.weights` it needs"""
    extra: bool = False
    """computed on request only (`--extra-metrics`)"""
    needs_text: bool = False
    """computed only where `Batch.texts` says what stands written in every image"""
    by_label: bool = False
    """of a per-image metric: its mean is also given for each label of the dataset"""
    load: Callable[[torch.device, bool], PerImage] | None = None
    """(device, offline) -> the per-image half"""
    at_once: int = 16
    """images its per-image half gets at once, at most"""
    skip_infinite: bool = False
    """infinite values are left out of the mean, unless all are"""
    whole: Callable[[Whole], float] | None = None
    """the figure of a whole set of at least two pairs"""
    statistic: Callable[[Whole, Clusters], SetStatistic] | None = None
    """the same with its values without each unit, where it knows them; None = `whole` by a grouped jackknife"""
    tolerance: Tolerance | None = None
    """of the gate; None = the gate's default"""
    check: Check | None = None
    """how `verify` computes it again; None = it says "not checked\""""
    notice: str = ""
    """what whoever uses its figures must know, a warning of every run that computes it"""
    origin: str = HERE
    """distribution it comes from; the registry fills it in"""

    @property
    def per_image(self) -> bool:
        """One value an image, the figure is their mean; else it is defined on the whole set only."""
        return self.whole is None and self.statistic is None

    def mean(self, values: NDArray[np.floating]) -> float:
        """The figure of a per-image metric from its values [n]; NaN for none."""
        if self.skip_infinite and np.isfinite(values).any():
            values = values[~np.isinf(values)]
        return float(values.mean()) if len(values) else float("nan")

    def over_set(self, whole: Whole, clusters: Clusters = None) -> SetStatistic:
        """The figure of a whole-set metric, with its values without each unit (or group of units).

        Raises:
            MsbenchError: a metric of another package failed.
        """
        with self.named():
            if self.statistic is not None:
                return self.statistic(whole, clusters)
            assert self.whole is not None
            value, units = self.whole, unit_numbers(clusters, len(whole.features))
            return grouped_statistic(lambda rows: value(whole.rows(rows)), units)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Turns whatever another package's metric raises into one line that names both."""
        try:
            yield
        except MsbenchError:
            raise
        except (Exception, SystemExit) as error:
            if self.origin == HERE:
                raise
            raise MsbenchError(f"metric {self.name!r} of {self.origin}: {type(error).__name__}: {error}") from error
