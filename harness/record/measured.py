"""One decoder as measured: per-image values and features, and the estimates that statistics make of them.

Noise seeds are averaged: a per-image value is the image's mean over seeds, rFID and KID are means of each seed's figure.
Decoders trained with several seeds average in the same way (`average`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.metrics.pixel import mean_psnr
from harness.metrics.registry import METRICS
from harness.record.run import Run
from harness.stats.estimate import Estimate
from harness.stats.extrapolate import Extrapolation, rfid_infinity
from harness.stats.kid import kid_statistic
from harness.stats.paired import mean_estimate, paired_difference
from harness.stats.rfid import rfid_statistic
from harness.stats.sets import SetStatistic, set_difference, set_estimate

Values = NDArray[np.float64]
FEW_FOR_A_LINE = 8
"""fewest images from which rFID is extrapolated: two in each of four parts"""


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
    """[n] for each per-image metric, averaged over seeds"""
    features: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...] = ()
    """(references, reconstructions) [n, 2048] each, one pair a seed; empty where they were not kept"""
    statistics: dict[str, SetStatistic] = field(default_factory=dict)
    """rfid and kid with their values without each unit, computed once"""

    def has(self, metric: str) -> bool:
        """The metric can be estimated."""
        if METRICS[metric].per_image:
            values = self.per_image.get(metric)
            return values is not None and len(values) > 0 and not bool(np.isnan(values).any())
        return len(self.features) > 0 and len(self.keys) >= 2

    def statistic(self, metric: str) -> SetStatistic:
        """rfid or kid, the mean over seeds."""
        if metric not in self.statistics:
            of = {"rfid": rfid_statistic, "kid": kid_statistic}[metric]
            parts = [of(reference, decoded, self.clusters) for reference, decoded in self.features]
            self.statistics[metric] = mean_statistic(parts)
        return self.statistics[metric]

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
        if metric == "psnr":
            return mean_psnr(self.per_image[metric])
        return float(self.per_image[metric].mean()) if METRICS[metric].per_image else self.statistic(metric).value

    def infinity(self) -> Extrapolation | None:
        """rFID of infinitely many images, of the first seed; None for too few images or without features."""
        if not self.features or len(self.keys) < FEW_FOR_A_LINE:
            return None
        return rfid_infinity(*self.features[0])

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
            tuple((reference[rows], decoded[rows]) for reference, decoded in self.features),
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
    complete = all(member.features for member in same)
    features = tuple(pair for member in same for pair in member.features) if complete else ()
    return Measured(label, first.keys, first.clusters, per_image, features)


def mean_statistic(parts: Sequence[SetStatistic]) -> SetStatistic:
    """The mean of statistics over the same units: all of a statistic is linear in the metric."""
    if len(parts) == 1:
        return parts[0]
    count = float(len(parts))

    def mean(arrays: list[Any]) -> Any:
        return reduce(np.add, arrays) / count

    return SetStatistic(
        float(mean([part.value for part in parts])),
        mean([part.without for part in parts]),
        mean([part.interaction for part in parts]),
        parts[0].n,
        parts[0].units,
    )


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
    mine = run.of(row)
    parts = [mine[mine["noise_seed"] == seed] for seed in run.seeds(row)]
    metrics = [name for name, facts in run.record.data.metrics.items() if facts.per_image and name in mine]
    per_image = {name: np.mean([part[name].to_numpy(np.float64) for part in parts], axis=0) for name in metrics}
    kept = run.features(row)
    features = tuple((kept[0], decoded) for decoded in kept[1]) if kept else ()
    return Measured(label, run.keys, clusters_of(run.keys, list(parts[0]["source_photo"])), per_image, features)
