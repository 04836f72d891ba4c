"""One run: the quality pass over the images, then each decoder's cost, then the record."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.cost.cost import measure_cost
from harness.cost.modes import in_mode
from harness.data.dataset import Dataset
from harness.data.registry import open_dataset
from harness.decoder import Decoder, DecoderOptions
from harness.environment import Start
from harness.errors import MsbenchError
from harness.metrics.registry import DEFAULT_MARGINS, METRICS
from harness.metrics.suite import MetricSuite
from harness.record.protocol import Protocol
from harness.record.record import Record, plain, write_record
from harness.record.run import write_features, write_samples
from harness.record.schema import (
    SCHEMA_VERSION,
    DatasetFacts,
    Details,
    MetricFacts,
    Result,
    RunData,
    SampleCounts,
    Setting,
)
from harness.registry import build_decoder
from harness.report.sheet import write_sheet
from harness.run.config import DTYPES, RunConfig, check_config, check_device, new_run_folder
from harness.run.figures import decoder_figures, with_cost
from harness.run.quality import Gathered, Progress, Reference, quality_pass
from harness.stats.verdict import merge_margins
from harness.stopwatch import Stages, Timing

if TYPE_CHECKING:
    import pandas as pd


def evaluate(config: RunConfig, progress: Progress | None = None) -> Record:
    """Run the protocol and write the run's folder.

    Raises:
        MsbenchError: bad input; checked before anything is computed or written.
    """
    start = Start()
    report = progress or (lambda stage, done, total: None)
    device = check_device(config.device)
    check_config(config)
    dataset = open_dataset(
        config.dataset,
        data_dir=config.data_dir,
        resolution=config.resolution,
        max_samples=config.max_samples,
        seed=config.seed,
        allow_upsampling=config.allow_upsampling,
        split=config.split,
        offline=config.offline,
    )
    folder = config.output_dir or new_run_folder(config)
    if (folder / "record.json").exists():
        raise MsbenchError(f"{folder} already holds a run; give another --output-dir")
    options = DecoderOptions(
        device=device, dtype=config.dtype, checkpoint=config.checkpoint, steps=config.steps, scales=config.scales
    )
    stages = Stages(device)
    with stages.stage("loading decoders"):
        decoders = {name: in_mode(build_decoder(name, options), config.mode, device) for name in config.decoders}
    _refuse_random_weights(decoders)
    with stages.stage("loading metrics"):
        suite = MetricSuite(device, config.offline, extra=config.extra_metrics)
    gathered, reference = quality_pass(config, dataset, decoders, suite, device, report, stages)
    with stages.stage("statistics"):
        seeds = config.noise_seed_list()
        options = plain({"steps": config.steps, "scales": config.scales, "checkpoint": config.checkpoint})
        given = {key: value for key, value in options.items() if value is not None}
        name = dataset.info.name
        rows = {
            label: decoder_figures(label, decoder, given, name, gathered[label], reference, seeds, config.extra_metrics)
            for label, decoder in decoders.items()
        }
    if config.cost is not None:
        for index, (label, decoder) in enumerate(decoders.items()):
            report(f"timing {label}", index, len(decoders))
            latents = torch.cat(gathered[label].latents)
            with stages.stage("measuring cost"):
                cost = measure_cost(decoder, latents, config.seed, config.cost, device)
                rows[label] = with_cost(*rows[label], cost)
        report("timing", len(decoders), len(decoders))
    with stages.stage("writing"):
        write_features(
            folder,
            np.concatenate(reference.features),
            {
                name: {seed: one.all_features() for seed, one in kept.different(seeds).items()}
                for name, kept in gathered.items()
            },
        )
        write_samples(folder, samples_frame(gathered, reference, seeds))
    record = write_record(folder, record_data(config, dataset, rows, reference, start, stages.timing()))
    if reference.shown:
        draw_sheet(folder / "sheet.png", gathered, reference)
    return record


def _refuse_random_weights(decoders: dict[str, Decoder]) -> None:
    """Raise `MsbenchError` where a decoder has no quality to measure."""
    random = [name for name, decoder in decoders.items() if decoder.spec.trained_on == "random weights"]
    if random:
        raise MsbenchError(
            f"--decoder {','.join(random)}: random weights have a cost but no quality; leave it out and use `msbench speed`"
        )


def record_data(
    config: RunConfig,
    dataset: Dataset,
    rows: Mapping[str, tuple[Result, Details]],
    reference: Reference,
    start: Start,
    timing: Timing,
) -> RunData:
    """The content of record.json."""
    info = dataset.info
    everything = config.max_samples is None or config.max_samples >= info.n_available
    protocol = Protocol(
        dataset=info.name.partition(":")[0],
        split=info.split,
        resolution=info.resolution,
        preprocessing=info.preprocessing,
        max_samples=None if everything else config.max_samples,
        subset_seed=0 if everything else config.seed,
        noise_seed=config.seed,
        noise_seeds=config.noise_seeds,
        margins=merge_margins(DEFAULT_MARGINS, config.margins, METRICS),
        extra_metrics=",".join(sorted(config.extra_metrics)),
    )
    sources = hashlib.sha256("".join(f"{e.key}\0{e.source_sha256}\n" for e in reference.examples).encode()).hexdigest()
    measured = [one for one in METRICS.values() if not one.extra or one.name in config.extra_metrics]
    dtypes = {value: name for name, value in DTYPES.items()}
    return RunData(
        schema_version=SCHEMA_VERSION,
        status="complete",
        failure=None,
        protocol=protocol,
        protocol_hash=protocol.hash(),
        metrics={one.name: MetricFacts(one.definition, one.direction, one.unit, one.per_image) for one in measured},
        higher_is_better={one.name: one.direction == "higher" for one in measured},
        results=tuple(result for result, _ in rows.values()),
        decoders={label: details for label, (_, details) in rows.items()},
        dataset=DatasetFacts(
            info,
            SampleCounts(info.n_available, info.n_selected, len(reference.examples)),
            tuple(dataset.skipped),
            (),
            sources,
            reference.pixels.hexdigest(),
        ),
        setting=Setting(config.device, dtypes[config.dtype], config.mode, config.batch_size),
        config=plain(asdict(config)),
        command=" ".join(["msbench", *sys.argv[1:]]),
        date=start.date,
        seconds=start.seconds(),
        environment=plain(start.facts),
        warnings=(),
        timing=timing,
    )


def samples_frame(gathered: dict[str, Gathered], reference: Reference, seeds: Sequence[int]) -> pd.DataFrame:
    """One row per decoder, noise seed and image: key, label, source_photo, source_sha256, each per-image metric and octave.

    A decoder that draws no noise has rows for the first seed alone.
    """
    import pandas as pd

    base = {
        "key": [example.key for example in reference.examples],
        "label": [example.label for example in reference.examples],
        "source_photo": [example.source_photo for example in reference.examples],
        "source_sha256": [example.source_sha256 for example in reference.examples],
    }
    frames = [
        pd.DataFrame({"decoder": name, "noise_seed": seed, **base, **one.values()})
        for name, kept in gathered.items()
        for seed, one in kept.different(seeds).items()
    ]
    return pd.concat(frames, ignore_index=True)


def draw_sheet(path: Path, gathered: dict[str, Gathered], reference: Reference) -> None:
    """The sheet of images: originals beside every decoder, with each cell's PSNR and LPIPS."""
    captions = {}
    for name, kept in gathered.items():
        values = kept.passes[0].values()
        captions[name] = [_caption(values["psnr"][i], values["lpips"][i]) for i in reference.shown_index]
    keys = [reference.examples[i].key for i in reference.shown_index]
    write_sheet(path, reference.shown, {name: kept.shown for name, kept in gathered.items()}, keys, captions)


def _caption(psnr: float, lpips: float) -> str:
    return "exact" if np.isinf(psnr) else f"{psnr:.1f} dB · LPIPS {lpips:.3f}"
