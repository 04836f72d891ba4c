"""All conventions of one row, in one pass over its pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.errors import MsbenchError, UnknownNameError
from harness.explain.convention import Convention, Distance, Kept, Pairs, Side
from harness.explain.registry import CONVENTIONS, METRICS
from harness.explain.sources import Batch, Sources, open_sources
from harness.metrics.inception import FastInception
from harness.record.record import Record
from harness.record.run import open_run
from harness.record.schema import SCHEMA_VERSION
from harness.stats.rfid import rfid_to_statistics, rfid_value

if TYPE_CHECKING:
    from harness.stopwatch import Progress

_BATCH = 16  # pictures at once


@dataclass(frozen=True, slots=True)
class Finding:
    """One convention of one row."""

    convention: Convention
    """which"""
    value: float | None
    """the metric under it; None where it was not computed"""
    protocol: float | None
    """the metric as the run has it"""
    source: str
    """what it was computed from; "needs …" where it was not"""

    @property
    def shift(self) -> float | None:
        """Value less the protocol's, in the convention's own unit."""
        if self.value is None or self.protocol is None:
            return None
        return self.value - self.protocol * self.convention.scale


@dataclass(frozen=True, slots=True)
class Explanation:
    """What came of a row."""

    label: str
    """the row"""
    n: int
    """its images"""
    noise_seed: int
    """everything is of this one"""
    protocol: Mapping[str, float | None]
    """metric -> value as the run has it"""
    findings: tuple[Finding, ...]
    """every convention, in the registry's order"""

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        rows = [
            {
                "metric": one.convention.metric,
                "convention": one.convention.name,
                "value": one.value,
                "shift": one.shift,
                "source": one.source,
                "users": [{"name": user.name, "url": user.url} for user in one.convention.users],
            }
            for one in self.findings
        ]
        head = {"schema_version": SCHEMA_VERSION, "label": self.label, "n": self.n, "noise_seed": self.noise_seed}
        return {**head, "protocol": dict(self.protocol), "conventions": rows}


def explain(
    run: Path | Record,
    decoder: str | None = None,
    *,
    images: Path | None = None,
    data_dir: Path | None = None,
    redo: bool = False,
    statistics: Path | None = None,
    metrics: Sequence[str] = METRICS,
    progress: Progress | None = None,
) -> Explanation:
    """Compute a row's metrics under every convention that what is there allows.

    Args:
        run: a run's folder, or its record.
        decoder: label of the row, or the decoder's name; None = the only row.
        images: folder of `run --save-images`; None = where the record says, if it is still there.
        data_dir: where the original files lie; None = where the record says.
        redo: run the decoder again where a convention needs it.
        statistics: an .npz with `mu` and `sigma` of somebody's reference.
        metrics: those to look at.
        progress: called with (stage, done, total).

    Raises:
        MsbenchError: no such run or row, files that are missing, damaged or not the run's, or weights that cannot be had.
    """
    opened = open_run(run)
    sources = open_sources(opened, _row(opened.record, decoder), images, data_dir, redo, statistics)
    wanted = [one for one in CONVENTIONS if one.metric in metrics]
    needs = [_needs(one, sources) for one in wanted]
    report = progress or (lambda stage, done, total: None)
    values: dict[int, float] = {}
    for place, (one, need) in enumerate(zip(wanted, needs, strict=True)):
        if not need and isinstance(one.measure, Kept):
            report("samples and features", place, len(wanted))
            rows = one.measure.rows(len(opened.keys))
            assert not isinstance(rows, str)  # else it needs something
            values[id(one)] = one.measure.of(sources.whole.rows(rows))
    drawn = [one for one, need in zip(wanted, needs, strict=True) if not need and not isinstance(one.measure, Kept)]
    values |= _pictures(sources, drawn, report)
    protocol = {metric: _protocol(sources, metric) for metric in metrics}
    findings = tuple(
        Finding(one, values.get(id(one)), protocol[one.metric], f"needs {need}" if need else _origin(one, sources))
        for one, need in zip(wanted, needs, strict=True)
    )
    return Explanation(sources.result.label, len(opened.keys), sources.seed, protocol, findings)


def _row(record: Record, decoder: str | None) -> str:
    """The label of the row asked for, by label or decoder name."""
    rows = record.data.results
    if decoder is None and len(rows) > 1:
        names = ", ".join(row.label for row in rows)
        raise MsbenchError(f"{record.folder} holds {names}: name one, as {record.folder}:{rows[0].label}")
    found = [row.label for row in rows if decoder in (None, row.label)] or [row.label for row in rows if decoder == row.decoder]
    if len(found) != 1:
        raise UnknownNameError(f"row of {record.folder}", str(decoder), [row.label for row in rows])
    return found[0]


def _streams(measure: Pairs | Distance) -> list[str]:
    """Streams of pictures that a convention needs."""
    if isinstance(measure, Pairs):
        return [measure.reference, measure.decoded]
    return [side.stream for side in (measure.reference, measure.decoded) if side]


def _needs(one: Convention, sources: Sources) -> str:
    """What a convention needs that is not there; empty where it can be computed."""
    measure, features = one.measure, "features.safetensors: run it again"
    has = sources.whole.features.shape[1] > 0
    if one.metric not in sources.result.metrics:
        return f"a run that measured {one.metric}"
    if isinstance(measure, Kept):
        rows = measure.rows(len(sources.run.keys))
        return features if measure.features and not has else rows if isinstance(rows, str) else ""
    if isinstance(measure, Distance):
        if measure.statistics and sources.statistics is None:
            return "statistics of a reference, by --statistics"
        if not has and (measure.decoded is None or (measure.reference is None and not measure.statistics)):
            return features
    return next((lack for stream in _streams(measure) if (lack := sources.lacks(stream))), "")


def _origin(one: Convention, sources: Sources) -> str:
    """What a convention was computed from."""
    if isinstance(one.measure, Kept):
        return "features" if one.measure.features else "samples"
    found = [sources.origin(stream) for stream in _streams(one.measure)]
    if isinstance(one.measure, Distance):
        kept = one.measure.decoded is None or (one.measure.reference is None and not one.measure.statistics)
        found += ["features"] * kept + ["statistics"] * one.measure.statistics
    return ", ".join(dict.fromkeys(found))


def _pictures(sources: Sources, wanted: Iterable[Convention], report: Progress) -> dict[int, float]:
    """Values of conventions on pictures, by the identity of each: every picture is read, made and decoded once."""
    per_image = [(id(one), one.measure) for one in wanted if isinstance(one.measure, Pairs)]
    distances = [(id(one), one.measure) for one in wanted if isinstance(one.measure, Distance)]
    sides = {side for _, measure in distances for side in (measure.reference, measure.decoded) if side}
    network = FastInception(torch.device("cpu"), offline=False) if sides else None
    found: dict[int, list[float]] = {name: [] for name, _ in per_image}
    features: dict[Side, list[NDArray[np.float32]]] = {side: [] for side in sides}
    keys = sources.run.keys
    for start in range(0, len(keys) if per_image or sides else 0, _BATCH):
        report("reading pictures", start, len(keys))
        batch = Batch(sources, keys[start : start + _BATCH])
        for name, measure in per_image:
            pairs = zip(batch[measure.reference], batch[measure.decoded], strict=True)
            found[name] += [measure.of(reference, decoded) for reference, decoded in pairs]
        for side in sides:
            assert network is not None
            inputs = torch.stack([side.view(image) for image in batch[side.stream]])
            features[side].append(network.pooled(inputs).numpy())
    report("reading pictures", len(keys), len(keys))
    values = {name: _mean(np.array(column)) for name, column in found.items()}
    whole = {side: np.concatenate(parts) for side, parts in features.items()}
    for name, distance in distances:
        decoded = whole[distance.decoded] if distance.decoded else sources.whole.features
        if distance.statistics:
            assert sources.statistics is not None  # else it needs them
            values[name] = rfid_to_statistics(sources.statistics.mean, sources.statistics.covariance, decoded)
        else:
            values[name] = rfid_value(
                whole[distance.reference] if distance.reference else sources.whole.reference_features, decoded
            )
    return values


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of finite values, or infinity where there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.inf


def _protocol(sources: Sources, metric: str) -> float | None:
    """A metric of the row under its first noise seed, as the run has it."""
    noise = sources.run.record.data.decoders[sources.result.label].noise
    return noise.per_seed.get(str(sources.seed), {}).get(metric, sources.result.metrics.get(metric))
