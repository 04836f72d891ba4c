"""The figures of one decoder in a record: each metric, its interval over images and its spread over noise seeds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.metrics.metric import Whole
from harness.metrics.registry import METRICS
from harness.metrics.spectral import OCTAVE_COLUMNS
from harness.record.measured import Measured, clusters_of, mean_columns
from harness.run.quality import Gathered, Reference

LEVEL = 0.95
"""confidence of every interval in a record"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a record holds of one decoder's quality."""

    metrics: dict[str, float]
    """metric -> value over the whole set, the mean over noise seeds; NaN where it has none"""
    intervals: dict[str, list[float]]
    """metric -> [low, high] over images, where there is one"""
    noise_spread: dict[str, float] | None
    """metric -> standard deviation over noise seeds; None with a single seed"""
    octaves_db: list[float]
    """mean over images of each octave's difference, finest first, in dB; NaN where images are too small"""
    details: dict[str, Any]
    """what the figures rest on"""


def decoder_figures(
    name: str, kept: Gathered, reference: Reference, seeds: Sequence[int], extra: Collection[str] = ()
) -> Figures:
    """Metrics of one decoder from its passes, one a noise seed."""
    features = np.concatenate(reference.features)
    passes = kept.different(seeds)
    keys = tuple(example.key for example in reference.examples)
    clusters = clusters_of(keys, [example.source_photo for example in reference.examples])
    wholes = tuple(Whole(features, one.all_features(), one.values()) for one in passes.values())
    measured = Measured(name, keys, clusters, mean_columns([whole.columns for whole in wholes]), wholes)
    found = {name: measured.per_seed(name) for name, metric in METRICS.items() if not metric.extra or name in extra}
    per_seed = {seed: {metric: one[place] for metric, one in found.items()} for place, seed in enumerate(passes)}
    metrics = {metric: float(np.mean(one)) for metric, one in found.items()}
    spread = {metric: _deviation(one) for metric, one in found.items()} if len(seeds) > 1 else None
    values = [{m: v for m, v in one.columns.items() if m in METRICS} for one in wholes]
    intervals, notes = {}, {}
    for metric in metrics:
        if not measured.has(metric):
            continue
        estimate = measured.estimate(metric)
        interval = estimate.interval(LEVEL)
        if interval.known and np.isfinite(estimate.value):
            intervals[metric] = [interval.low, interval.high]
        notes[metric] = {"method": estimate.method, "units": estimate.units, "note": estimate.note}
    line = measured.infinity()
    octaves = [float(np.mean([one.columns[column] for one in wholes])) for column in OCTAVE_COLUMNS]
    details: dict[str, Any] = {
        "psnr_exact_images": int(np.isinf(measured.per_image["psnr"]).sum()),
        "interval_level": LEVEL,
        "interval_notes": notes,
        "noise": {
            "drawn": kept.noisy,
            "seeds": list(passes),
            "per_seed": {str(seed): figures for seed, figures in per_seed.items()},
            "image_spread": _image_spread(values) if len(passes) > 1 else None,
        },
        "rfid_infinity": None
        if line is None
        else {"value": line.infinity, "bias": line.bias, "sizes": list(line.sizes), "means": list(line.means)},
        "rfid_warning": None if line is None else line.warning(),
    }
    return Figures(metrics, intervals, spread, octaves, details)


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation over seeds; 0 where there was nothing to vary."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _image_spread(values: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mean over images of one image's standard deviation over seeds; NaN where an exact image has none."""
    with np.errstate(invalid="ignore"):
        return {m: float(np.std([one[m] for one in values], axis=0, ddof=1).mean()) for m in values[0]}
