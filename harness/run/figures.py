"""The figures of one decoder in a record: each metric, its interval over images and its spread over noise seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.metrics.registry import METRICS
from harness.metrics.suite import OCTAVE_COLUMNS, set_metrics
from harness.record.measured import Measured, clusters_of
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


def decoder_figures(name: str, kept: Gathered, reference: Reference, seeds: Sequence[int]) -> Figures:
    """Metrics of one decoder from its passes, one a noise seed."""
    features = np.concatenate(reference.features)
    passes = kept.different(seeds)
    values = {seed: {m: v for m, v in one.values().items() if m in METRICS} for seed, one in passes.items()}
    per_seed = {seed: set_metrics(features, one.all_features(), values[seed]) for seed, one in passes.items()}
    first = per_seed[seeds[0]]
    metrics = {metric: float(np.mean([figures[metric] for figures in per_seed.values()])) for metric in first}
    spread = None
    if len(seeds) > 1:
        spread = {metric: _deviation([figures[metric] for figures in per_seed.values()]) for metric in first}
    keys = tuple(example.key for example in reference.examples)
    per_image = {m: np.mean([values[seed][m] for seed in passes], axis=0) for m in values[seeds[0]]}
    clusters = clusters_of(keys, [example.source_photo for example in reference.examples])
    measured = Measured(name, keys, clusters, per_image, tuple((features, one.all_features()) for one in passes.values()))
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
    octaves = [float(np.mean([one.values()[column] for one in passes.values()])) for column in OCTAVE_COLUMNS]
    details: dict[str, Any] = {
        "psnr_exact_images": int(np.isinf(per_image["psnr"]).sum()),
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


def _image_spread(values: dict[int, dict[str, Any]]) -> dict[str, float]:
    """Mean over images of one image's standard deviation over seeds; NaN where an exact image has none."""
    names = next(iter(values.values()))
    with np.errstate(invalid="ignore"):
        return {m: float(np.std([one[m] for one in values.values()], axis=0, ddof=1).mean()) for m in names}
