"""The figures of one decoder in a record: each metric, its interval over images and its spread over noise seeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from harness.cost.cost import Cost
from harness.data.types import Skipped
from harness.decoder import DecoderSpec
from harness.metrics.metric import Column, Whole
from harness.metrics.registry import METRICS
from harness.metrics.spectral import OCTAVE_COLUMNS
from harness.record import schema
from harness.record.measured import Measured, clusters_of, mean_columns
from harness.record.run import FILE, REFERENCE, files_sha256, pixels_id
from harness.record.schema import Details, Interval, IntervalNote, NoiseFacts, Result, RfidLine
from harness.report.sheet import write_sheet
from harness.run.journal import PIXELS, Journal, seen_notes, seen_warnings
from harness.run.rate import rate_of

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
"""confidence of every interval in a record"""
_MAY_DIFFER = ("output_dir", "offline", "resume")
_SPEC = TypeAdapter(DecoderSpec)


def difference(asked: schema.RunData, other: schema.RunData, who: str, may: Collection[str] = ()) -> str:
    """In what a run was asked for something else than another one, in words; empty where they are of one plan.

    Args:
        who: what the words call the other one.
        may: options that may differ, beside those of where it runs.
    """
    for name, value in asked.config.items():
        if name not in {*_MAY_DIFFER, *may} and other.config.get(name) != value:
            return f"{name} is {value!r}, {who} has {other.config.get(name)!r}"
    same = asked.protocol == other.protocol and asked.metrics == other.metrics and asked.dataset.info == other.dataset.info
    return "" if same else f"{who} is of another protocol, metric or dataset: measure again"


def quality_figures(data: schema.RunData, journal: Journal) -> dict[str, Any]:
    """The fields of a record that follow from all that was measured; `data` is the record as it was planned."""
    config: Mapping[str, Any] = data.config
    info, images, extra = data.dataset.info, journal.images(), config["extra_metrics"]
    skipped, excluded = (tuple(Skipped(**one) for one in journal.left_out(why)) for why in ("skipped", "excluded"))
    rows = [decoder_figures(label, info.name, journal, config["noise_seeds"], extra) for label in journal.state["decoders"]]
    notices = {notice for one in extra if (notice := METRICS[one].notice)}
    return {
        "results": tuple(result for result, _ in rows),
        "decoders": {result.label: details for result, details in rows},
        "dataset": replace(
            data.dataset,
            n_samples=schema.SampleCounts(info.n_available, info.n_selected, len(images)),
            skipped=skipped,
            excluded=excluded,
            source_sha256=files_sha256(images["key"], images["source_sha256"]),
            reference_sha256=pixels_id(images["key"], map(bytes, journal.array(PIXELS))),
        ),
        "warnings": (*data.warnings, *seen_warnings(journal.state), *sorted(notices)),
    }


def draw_sheet(folder: Path, journal: Journal, seed: int) -> None:
    """Originals beside every decoder, with each cell's PSNR and LPIPS."""
    if not (keys := sorted(key for key, *_ in journal.state["shown"])):
        return
    captions, decoded = {}, {}
    for label in journal.state["decoders"]:
        mine = journal.rows(label, seed).set_index("key").loc[keys]
        captions[label] = [_caption(*pair) for pair in zip(mine["psnr"], mine["lpips"], strict=True)]
        decoded[label] = journal.pictures(f"shown:{label}")
    write_sheet(folder / "sheet.png", journal.pictures("shown:"), decoded, keys, captions)


def _caption(psnr: float, lpips: float) -> str:
    return "exact" if np.isinf(psnr) else f"{psnr:.1f} dB · LPIPS {lpips:.3f}"


def decoder_figures(
    label: str, dataset: str, journal: Journal, noise_seeds: int = 1, extra: Collection[str] = ()
) -> tuple[Result, Details]:
    """One row of a record and what it rests on, from all that was measured of a decoder; without cost.

    Args:
        label: of the row.
        dataset: name of the images.
        journal: their values and features.
        noise_seeds: how many noise seeds were asked for; a decoder that draws nothing has values for one.
        extra: metrics beyond the usual ones.
    """
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
    spec = _SPEC.validate_python(seen["spec"])
    result = Result(
        label=label,
        decoder=seen["name"],
        options=seen["asked"],
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
        rate=rate_of(seen["code"], spec),
    )
    details = Details(
        spec=spec,
        source_sha256=seen["file"],
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
        by_label={name: _by_label(name, measured.per_image[name], images["label"]) for name in found if METRICS[name].by_label},
    )
    return result, details


def with_cost(result: Result, details: Details, cost: Cost) -> tuple[Result, Details]:
    """The same row with its cost."""
    times = {str(batch_size): value for batch_size, value in cost.ms_per_image.items()}
    row = replace(result, ms_per_image=times, gflops=cost.gflops, peak_memory_mb=cost.peak_memory_mb)
    disturbed, estimated = any(cell.disturbed for cell in cost.cells), any(cell.estimated for cell in cost.cells)
    row = replace(row, disturbed=disturbed, time_estimated=estimated)
    return row, replace(details, cost=cost)


def _by_label(name: str, values: Column, labels: pd.Series[str]) -> dict[str, float]:
    """The metric's figure over the images of each label, in the order of labels; empty where there are none."""
    return {label: METRICS[name].mean(values[labels == label]) for label in sorted(labels.dropna().unique())}


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation over seeds; 0 where there was nothing to vary."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _image_spread(values: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mean over images of one image's standard deviation over seeds; NaN where an exact image has none."""
    with np.errstate(invalid="ignore"):
        return {m: float(np.std([one[m] for one in values], axis=0, ddof=1).mean()) for m in values[0]}
