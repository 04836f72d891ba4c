"""The figures of one decoder in a record: each metric, its interval over images and its spread over noise seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import JsonValue

from harness.cost.cost import Cost
from harness.decoder import Decoder
from harness.environment import source_sha256
from harness.metrics.registry import METRICS
from harness.metrics.suite import OCTAVE_COLUMNS, set_metrics
from harness.record.measured import Measured, clusters_of
from harness.record.schema import Details, Interval, IntervalNote, NoiseFacts, Result, RfidLine
from harness.run.quality import Gathered, Reference

LEVEL = 0.95
"""confidence of every interval in a record"""


def decoder_figures(
    label: str,
    decoder: Decoder,
    options: Mapping[str, JsonValue],
    dataset: str,
    kept: Gathered,
    reference: Reference,
    seeds: Sequence[int],
) -> tuple[Result, Details]:
    """One row of a record and what it rests on, from a decoder's passes, one a noise seed; without cost."""
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
    measured = Measured(label, keys, clusters, per_image, tuple((features, one.all_features()) for one in passes.values()))
    intervals: dict[str, Interval] = {}
    notes: dict[str, IntervalNote] = {}
    for metric in metrics:
        if not measured.has(metric):
            continue
        estimate = measured.estimate(metric)
        interval = estimate.interval(LEVEL)
        if interval.known and np.isfinite(estimate.value):
            intervals[metric] = (interval.low, interval.high)
        notes[metric] = IntervalNote(estimate.method, estimate.units, estimate.note)
    line = measured.infinity()
    octaves = [float(np.mean([one.values()[column] for one in passes.values()])) for column in OCTAVE_COLUMNS]
    spec = decoder.spec
    result = Result(
        label=label,
        decoder=label,
        options=options,
        dataset=dataset,
        n=len(keys),
        metrics=metrics,
        intervals=intervals,
        noise_spread=spread,
        octaves_db={str(ring): value for ring, value in enumerate(octaves)},
        rfid_infinity=None if line is None else line.infinity,
        ms_per_image={},
        gflops=None,
        parameters=spec.parameters,
        peak_memory_mb=None,
        trained_on=spec.trained_on,
    )
    details = Details(
        spec=spec,
        source_sha256=source_sha256(decoder),
        interval_level=LEVEL,
        interval_notes=notes,
        psnr_exact_images=int(np.isinf(per_image["psnr"]).sum()),
        clamped=kept.clamped,
        noise=NoiseFacts(
            kept.noisy,
            tuple(passes),
            {str(seed): figures for seed, figures in per_seed.items()},
            _image_spread(values) if len(passes) > 1 else None,
        ),
        rfid_infinity=None if line is None else RfidLine(line.infinity, line.bias, tuple(line.sizes), tuple(line.means)),
        rfid_warning=None if line is None else line.warning(),
        cost=None,
    )
    return result, details


def with_cost(result: Result, details: Details, cost: Cost) -> tuple[Result, Details]:
    """The same row with its cost."""
    times = {str(batch_size): value for batch_size, value in cost.ms_per_image.items()}
    row = replace(result, ms_per_image=times, gflops=cost.gflops, peak_memory_mb=cost.peak_memory_mb)
    return row, replace(details, cost=cost)


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation over seeds; 0 where there was nothing to vary."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _image_spread(values: dict[int, dict[str, Any]]) -> dict[str, float]:
    """Mean over images of one image's standard deviation over seeds; NaN where an exact image has none."""
    names = next(iter(values.values()))
    with np.errstate(invalid="ignore"):
        return {m: float(np.std([one[m] for one in values.values()], axis=0, ddof=1).mean()) for m in names}
