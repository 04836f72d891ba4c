"""One decoder as measured: per-image values and features, and the estimates that statistics make of them.

Noise seeds are averaged: a per-image value is the image's mean over seeds, rFID and KID are means of each seed's figure.
Decoders trained with several seeds average in the same way (`average`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.metrics.metric import Whole
from harness.metrics.registry import METRICS
from harness.record.run import Run
from harness.stats.estimate import Estimate
from harness.stats.extrapolate import Extrapolation, rfid_infinity
from harness.stats.paired import mean_estimate, paired_difference
from harness.stats.sets import SetStatistic, set_difference, set_estimate

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """One decoder over one set of images."""

    label: str
    """what tables call it"""
    keys: tuple[str, ...]
    """the images, in order"""
    clusters: tuple[str, ...] | None
    """the photograph each was cut from; None where every image is a photograph of its own"""
    per_image: dict[str, Values]
    """[n] for each per-image column, averaged over seeds"""
    wholes: tuple[Whole, ...] = ()
    """features and columns, one set a seed; empty where features were not kept"""
    statistics: dict[str, list[SetStatistic]] = field(default_factory=dict)
    """set metrics with their values without each unit, one a seed, computed once"""

    def has(self, metric: str) -> bool:
        """The metric can be estimated."""
        if METRICS[metric].per_image:
            values = self.per_image.get(metric)
            return values is not None and len(values) > 0 and not bool(np.isnan(values).any())
        return len(self.wholes) > 0 and len(self.keys) >= 2

    def parts(self, metric: str) -> list[SetStatistic]:
        """A set metric of each seed."""
        if metric not in self.statistics:
            self.statistics[metric] = [METRICS[metric].over_set(whole, self.clusters) for whole in self.wholes]
        return self.statistics[metric]

    def statistic(self, metric: str) -> SetStatistic:
        """A set metric, the mean over seeds."""
        return mean_statistic(self.parts(metric))

    def per_seed(self, metric: str) -> list[float]:
        """The metric of each seed; NaN for a set metric of a single image."""
        if METRICS[metric].per_image:
            return [METRICS[metric].mean(whole.columns[metric]) for whole in self.wholes]
        return [one.value for one in self.parts(metric)] if self.has(metric) else [float("nan")] * len(self.wholes)

    def estimate(self, metric: str) -> Estimate:
        """The metric with its uncertainty over images.

        Raises:
            KeyError: the metric was not measured (`has`).
        """
        if METRICS[metric].per_image:
            return mean_estimate(self.per_image[metric], self.clusters)
        return set_estimate(self.statistic(metric))

    def value(self, metric: str) -> float:
        """The metric alone, without the resampling that its uncertainty takes.

        Raises:
            KeyError: the metric was not measured (`has`).
        """
        if METRICS[metric].per_image:
            return METRICS[metric].mean(self.per_image[metric])
        return self.statistic(metric).value

    def infinity(self) -> Extrapolation | None:
        """rFID of infinitely many images, of the first seed; None for a single image or without features."""
        if not self.has("rfid"):
            return None
        first = self.wholes[0]
        return rfid_infinity(first.reference_features, first.features, self.parts("rfid")[0].value)

    def reordered(self, keys: Sequence[str]) -> Measured:
        """The same images in another order.

        Raises:
            KeyError: an image is missing.
        """
        if tuple(keys) == self.keys:
            return self
        place = {key: index for index, key in enumerate(self.keys)}
        rows = np.array([place[key] for key in keys])
        return Measured(
            self.label,
            tuple(keys),
            None if self.clusters is None else tuple(self.clusters[row] for row in rows),
            {name: values[rows] for name, values in self.per_image.items()},
            tuple(whole.rows(rows) for whole in self.wholes),
        )


def difference(decoder: Measured, baseline: Measured, metric: str) -> Estimate:
    """Decoder minus baseline, paired by image.

    Raises:
        ValueError: they were measured on other images.
    """
    if decoder.keys != baseline.keys:
        raise ValueError(f"{decoder.label} and {baseline.label} were measured on other images")
    if METRICS[metric].per_image:
        return paired_difference(decoder.per_image[metric], baseline.per_image[metric], decoder.clusters)
    return set_difference(decoder.statistic(metric), baseline.statistic(metric))


def average(label: str, members: Sequence[Measured]) -> Measured:
    """The mean of several decoders over the same images (several training seeds)."""
    first = members[0]
    same = [member.reordered(first.keys) for member in members]
    names = [name for name in first.per_image if all(name in member.per_image for member in same)]
    per_image = {name: np.mean([member.per_image[name] for member in same], axis=0) for name in names}
    complete = all(member.wholes for member in same)
    wholes = tuple(whole for member in same for whole in member.wholes) if complete else ()
    return Measured(label, first.keys, first.clusters, per_image, wholes)


def mean_columns(parts: Sequence[Mapping[str, Values]]) -> dict[str, Values]:
    """Per-image columns averaged over seeds."""
    with np.errstate(invalid="ignore"):
        return {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]}


def mean_statistic(parts: Sequence[SetStatistic]) -> SetStatistic:
    """The mean of statistics over the same units: all of a statistic is linear in the metric."""
    linear = ("value", "without", "interaction")
    return replace(parts[0], **{name: sum(getattr(part, name) for part in parts) / len(parts) for name in linear})


def clusters_of(keys: Sequence[str], photographs: Sequence[Any]) -> tuple[str, ...] | None:
    """The photograph of each image, an image of none standing for itself; None where no two images share one."""
    named = [
        str(photo) if isinstance(photo, str) and photo else f"image {key}" for key, photo in zip(keys, photographs, strict=True)
    ]
    return tuple(named) if len(set(named)) < len(named) else None


def read_measured(run: Run, row: str, label: str) -> Measured:
    """One row of a run, from its folder's samples and features; `label` is what tables will call it.

    Raises:
        MsbenchError: its features are damaged.
    """
    columns, kept = [run.columns(row, seed) for seed in run.seeds(row)], run.features(row)
    photographs = run.of(row).drop_duplicates("key")["source_photo"]
    wholes = tuple(Whole(kept[0], *part) for part in zip(kept[1], columns, strict=True)) if kept else ()
    return Measured(label, run.keys, clusters_of(run.keys, list(photographs)), mean_columns(columns), wholes)
