"""The figures of one decoder in a record: each metric, its interval over images and its spread over noise seeds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.cost.cost import Cost
from harness.cost.modes import eager_of
from harness.decoder import Decoder
from harness.environment import source_sha256
from harness.metrics.metric import Whole
from harness.metrics.registry import METRICS
from harness.metrics.spectral import OCTAVE_COLUMNS
from harness.record.measured import Measured, clusters_of, mean_columns
from harness.record.record import plain
from harness.record.run import FILE, REFERENCE, files_sha256
from harness.record.schema import Details, Interval, IntervalNote, NoiseFacts, Result, RfidLine
from harness.request.requests import DecoderRequest
from harness.run.journal import Journal, seen_notes
from harness.run.rate import rate_of

LEVEL = 0.95
"""confidence of every interval in a record"""


def decoder_figures(
    request: DecoderRequest,
    decoder: Decoder,
    dataset: str,
    journal: Journal,
    noise_seeds: int = 1,
    extra: Collection[str] = (),
) -> tuple[Result, Details]:
    """One row of a record and what it rests on, from all that was measured of a decoder; without cost.

    Args:
        request: what was asked for.
        decoder: what was measured.
        dataset: name of the images.
        journal: their values and features.
        noise_seeds: how many noise seeds were asked for; a decoder that draws nothing has values for one.
        extra: metrics beyond the usual ones.
    """
    label = request.label
    images, seeds, seen = journal.images(), journal.seeds(label), journal.state["decoders"][label]
    rows = journal.rows(label, seeds[0])
    keys, references = tuple(images["key"]), journal.array(REFERENCE)
    clusters = clusters_of(keys, list(images["source_photo"]))
    wholes = tuple(Whole(references, journal.features(label, seed), journal.columns(label, seed)) for seed in seeds)
    measured = Measured(label, keys, clusters, mean_columns([whole.columns for whole in wholes]), wholes)
    found = {name: measured.per_seed(name) for name, metric in METRICS.items() if not metric.extra or name in extra}
    per_seed = {str(seed): {metric: one[place] for metric, one in found.items()} for place, seed in enumerate(seeds)}
    values = [{m: v for m, v in one.columns.items() if m in METRICS} for one in wholes]
    intervals: dict[str, Interval] = {}
    notes: dict[str, IntervalNote] = {}
    for metric in found:
        if not measured.has(metric):
            continue
        estimate = measured.estimate(metric)
        interval = estimate.interval(LEVEL)
        if interval.known and np.isfinite(estimate.value):
            intervals[metric] = (interval.low, interval.high)
        notes[metric] = IntervalNote(estimate.method, estimate.units, estimate.note)
    line = measured.infinity()
    octaves = [float(np.mean([one.columns[column] for one in wholes])) for column in OCTAVE_COLUMNS]
    spec = decoder.spec
    result = Result(
        label=label,
        decoder=request.name,
        options=plain(request.asked()),
        dataset=dataset,
        n=len(keys),
        metrics={metric: float(np.mean(one)) for metric, one in found.items()},
        intervals=intervals,
        noise_spread={metric: _deviation(one) for metric, one in found.items()} if noise_seeds > 1 else None,
        octaves_db={str(ring): value for ring, value in enumerate(octaves)},
        rfid_infinity=None if line is None else line.infinity,
        ms_per_image={},
        gflops=None,
        parameters=spec.parameters,
        peak_memory_mb=None,
        trained_on=spec.trained_on,
        rate=rate_of(seen["code"], decoder),
    )
    details = Details(
        spec=spec,
        source_sha256=getattr(eager_of(decoder), "source_sha256", None) or source_sha256(eager_of(decoder)),
        interval_level=LEVEL,
        interval_notes=notes,
        psnr_exact_images=int(np.isinf(measured.per_image["psnr"]).sum()),
        clamped=seen["clamped"] / max(1, seen["values"]),
        noise=NoiseFacts(
            seen["noisy"],
            seeds,
            per_seed,
            _image_spread(values) if len(seeds) > 1 else None,
            seen["alone"],
            seen["batch_dependence"],
        ),
        rfid_infinity=None
        if line is None or line.infinity is None
        else RfidLine(line.infinity, line.value - line.infinity, line.sizes, line.means),
        rfid_warning=None if line is None else line.warning(),
        cost=None,
        files_sha256=files_sha256(keys, rows[FILE]) if FILE in rows else None,
        notes=tuple(seen_notes(journal.state, label)),
    )
    return result, details


def with_cost(result: Result, details: Details, cost: Cost) -> tuple[Result, Details]:
    """The same row with its cost."""
    times = {str(batch_size): value for batch_size, value in cost.ms_per_image.items()}
    row = replace(result, ms_per_image=times, gflops=cost.gflops, peak_memory_mb=cost.peak_memory_mb)
    disturbed, estimated = any(cell.disturbed for cell in cost.cells), any(cell.estimated for cell in cost.cells)
    row = replace(row, disturbed=disturbed, time_estimated=estimated)
    return row, replace(details, cost=cost)


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation over seeds; 0 where there was nothing to vary."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _image_spread(values: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mean over images of one image's standard deviation over seeds; NaN where an exact image has none."""
    with np.errstate(invalid="ignore"):
        return {m: float(np.std([one[m] for one in values], axis=0, ddof=1).mean()) for m in values[0]}
