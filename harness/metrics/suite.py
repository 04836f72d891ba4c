"""All metrics together: networks loaded once, images in batches in, per-image values and features out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.errors import MsbenchError
from harness.metrics.feature_cache import FeatureCache
from harness.metrics.inception import FastInception
from harness.metrics.metric import Batch, Column
from harness.metrics.registry import METRICS


class MetricSuite:
    """The metric networks on one device. It keeps no results, so one suite serves any number of decoders.

    Typical use: for each batch of references `reference_features`, and `prepare` of every metric in `names`; for each decoder
    `measure` of every metric, and `inception_features`. What concerns the whole set then comes from `Metric.over_set`.

    Args:
        device: where the networks run.
        offline: fetch no weights.
        batch_size: images in the networks at once, at most; bounds memory and changes no result beyond float32 rounding.
        extra: metrics beyond the usual ones, names of `registry.EXTRA`.
        inception: the features' network; None = it is loaded here.

    Raises:
        MsbenchError: weights are absent and cannot be fetched, or a metric of another package failed.
    """

    def __init__(
        self,
        device: torch.device | str = "cpu",
        offline: bool = False,
        batch_size: int = 16,
        extra: Collection[str] = (),
        inception: FastInception | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.batch_size = batch_size
        self._inception = inception or FastInception(self.device, offline)
        self._halves = {}
        for name, metric in METRICS.items():
            if metric.load is not None and (not metric.extra or name in extra):
                with metric.named():
                    self._halves[name] = metric.load(self.device, offline)

    @property
    def names(self) -> tuple[str, ...]:
        """Metrics to `prepare` and `measure`."""
        return tuple(self._halves)

    @property
    def extractor(self) -> str:
        """Identity of what makes the features: weights, code version and kind of device."""
        return self._inception.identity

    def inception_features(self, images: Tensor) -> NDArray[np.float32]:
        """Inception pool3 features of uint8 images [B, 3, H, W]: [B, 2048], as the network gives them."""
        parts = [self._inception.features(part.to(self.device)).cpu() for part in torch.split(images, self.batch_size)]
        return torch.cat(parts).float().numpy()

    def reference_features(self, images: Tensor, cache: FeatureCache, keys: Sequence[bytes]) -> NDArray[np.float32]:
        """As `inception_features`, those computed before from the cache, by the images' `pixels_sha256`; new ones go there."""
        return cache.features(keys, lambda missing: self.inception_features(images[missing]))

    def prepare(self, name: str, references: Tensor) -> list[Any]:
        """What metric `name` needs of references, uint8 [B, 3, H, W] on the suite's device, for any number of `measure`."""
        with METRICS[name].named():
            return [self._halves[name].prepare(part) for part in torch.split(references, self._size(name))]

    def measure(self, name: str, batch: Batch, prepared: Sequence[Any]) -> dict[str, Column]:
        """Columns of metric `name`, float64 [B] each, from the batch and what `prepare` gave for its references.

        Raises:
            ValueError: shapes or dtypes differ, or a side is too short.
            MsbenchError: a metric of another package failed or gave something else than columns.
        """
        size, count, metric = self._size(name), len(batch.images), METRICS[name]
        found: dict[str, list[Any]] = {}
        with metric.named():
            for start, state in zip(range(0, count, size), prepared, strict=True):
                values = self._halves[name].measure(batch.rows(slice(start, start + size)), state)
                for column, part in (values if isinstance(values, Mapping) else {name: values}).items():
                    found.setdefault(column, []).append(part)
            columns = {column: np.concatenate(parts).astype(np.float64) for column, parts in found.items()}
        wrong = [f"{column} of shape {list(values.shape)}" for column, values in columns.items() if values.shape != (count,)]
        wrong += [f"a column {column!r}, which is another metric" for column in columns if column in METRICS and column != name]
        if metric.per_image and name not in columns:
            wrong.append(f"no column {name!r}")
        if wrong:
            raise MsbenchError(
                f"metric {name!r} of {metric.origin}: wanted one number for each of {count} images, got {wrong[0]}"
            )
        return columns

    def _size(self, name: str) -> int:
        return min(self.batch_size, METRICS[name].at_once)
