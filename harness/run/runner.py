"""One run: the quality pass over the images, then each decoder's cost, then the sheet; the record says how far it came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.cost.cost import measure_cost
from harness.cost.modes import in_mode
from harness.data.dataset import Dataset
from harness.data.registry import open_dataset
from harness.data.types import Skipped
from harness.decoder import DTYPES, Decoder, Finished
from harness.environment import Start
from harness.errors import MsbenchError, UnknownNameError, plugin_boundary
from harness.files import folder_lock, write_text
from harness.metrics.registry import DEFAULT_MARGINS, METRICS
from harness.metrics.suite import MetricSuite
from harness.record.protocol import DECODED, FINISHED, Protocol
from harness.record.record import RECORD, Record, plain, read_record, write_record
from harness.record.run import files_sha256
from harness.record.schema import SCHEMA_VERSION, DatasetFacts, MetricFacts, RunData, SampleCounts, Setting
from harness.registry import build_by, name_clashes
from harness.report.progress import progress_bar
from harness.report.sheet import write_sheet
from harness.request.foreign import ForeignDecoder, refuse_options
from harness.request.requests import DecoderRequest
from harness.run.config import RunConfig, check_config, check_device, dataset_request, new_run_folder
from harness.run.figures import decoder_figures, with_cost
from harness.run.journal import Journal, new_state, seen_warnings
from harness.run.latents import by_channel, effective_rate, sample_latents
from harness.run.quality import QualityPass
from harness.run.reconstruct import concatenate
from harness.stats.verdict import merge_margins
from harness.stopwatch import Progress, Stages

MARKER = ".msbench-images"
"""file in a folder of saved images that names the run they are of"""
_OF_INDICES = "token_agreement"  # what takes the place of the latents' error where they are indices
_MAY_DIFFER = ("output_dir", "offline", "resume")


def evaluate(
    config: RunConfig | None = None,
    progress: Progress | None = None,
    command: str = "Python API",
    on_figures: Callable[[Record], None] | None = None,
    **asked: Any,
) -> Record:
    """Run the protocol and write the run's folder; with `config.resume` go on with what lies there.

    Args:
        config: what is asked for; None = what `asked` says.
        progress: called with (stage, done, total); None = a bar, or lines where stderr is no terminal.
        command: how the run was started, for the record.
        on_figures: called with what stands of the record once quality is measured, and again after each decoder's cost.
        asked: fields of `RunConfig` by name; they go before those of `config`.

    Raises:
        MsbenchError: bad input, found before anything is computed or written; or a decoder or a file failed on the way, and
            the record's status and `failure` say what of the run stands.
    """
    start = Start()
    if unknown := asked.keys() - {one.name for one in fields(RunConfig)}:
        raise UnknownNameError("field of RunConfig", min(unknown), (one.name for one in fields(RunConfig)))
    config = replace(config or RunConfig(()), **asked)
    with nullcontext(progress) if progress else progress_bar() as report:
        return _evaluate(config, report, start, command, on_figures or (lambda record: None))


def _evaluate(config: RunConfig, report: Progress, start: Start, command: str, on_figures: Callable[[Record], None]) -> Record:
    device = check_device(config.device)
    check_config(config)
    dataset = open_dataset(dataset_request(config))
    folder = config.output_dir or new_run_folder(config)
    for place, option in ((folder, "--output-dir"), (config.save_images, "--save-images")):
        if place is not None and dataset.holds(place):
            raise MsbenchError(f"{option} {place} lies in the dataset's folder: what is written there would become data")
    if not config.resume and (folder / RECORD).exists():
        raise MsbenchError(f"{folder} already holds a run; give another --output-dir, or --resume where it ended early")
    rows = {row.label: row for row in config.requests()}
    stages = Stages(device)
    with stages.stage("loading decoders"):
        decoders = {label: _built(config, row, device, dataset.info.resolution) for label, row in rows.items()}
        told = [*_match(decoders, dataset), *name_clashes([row.name for row in rows.values()])]
    _refuse_random_weights(decoders)
    deviations = {}
    for label, one in decoders.items() if config.latent_noise else ():
        with stages.stage("statistics of latents"):
            sample = sample_latents(one, dataset, config.seed, device)
        if not sample:
            raise MsbenchError(f"--latent-noise: the latents of {label} are no grid of numbers to add noise to: leave it out")
        deviations[label] = config.latent_noise * by_channel(sample)[1]
    if deviations:
        told.append(f"latents were decoded with noise of {config.latent_noise:g} spreads of each channel added")
    if any(one.spec.codebook_sizes for one in decoders.values()) and _OF_INDICES not in config.extra_metrics:
        config = replace(config, extra_metrics=(*config.extra_metrics, _OF_INDICES))
    data = _plan(config, dataset, start, command, decoders, told)
    with folder_lock(folder):
        journal = Journal(folder, new_state(decoders))
        if config.resume:
            earlier = _same_run(folder, data)
            if earlier.status == "complete":
                return Record(folder, earlier)
            data = replace(data, command=earlier.command, date=earlier.date)
            journal = _journal(folder, journal.state)
        with stages.stage("loading metrics"):
            suite = MetricSuite(device, config.offline, extra=config.extra_metrics)
        _claim_images(config, folder)
        run = _Run(config, folder, dataset, rows, decoders, journal, stages, start, data, on_figures)
        try:
            run.write(status="running")
            run.measure_quality(QualityPass(config, dataset, decoders, suite, device, journal, stages, deviations), report)
            run.measure_rates(device, report)
            run.measure_cost(device, report)
            run.draw_sheet()
            return run.end()
        except (MsbenchError, OSError) as error:
            line = " ".join(str(error).split())
            if isinstance(error, OSError):
                line = f"{folder} cannot be written ({line})"
            with suppress(OSError):  # where even this cannot be written, the line says so
                run.write(status="failed", failure=line)
            kept = f"; what was measured is kept in {folder}, --resume goes on with it" if run.data.results else ""
            raise MsbenchError(line + kept) from error


@dataclass(slots=True)
class _Run:
    """What is written while a run goes on."""

    config: RunConfig
    """what was asked for"""
    folder: Path
    """the run's folder"""
    dataset: Dataset
    """the images"""
    rows: Mapping[str, DecoderRequest]
    """what was asked of each decoder, by label"""
    decoders: Mapping[str, Decoder]
    """by label"""
    journal: Journal
    """what was measured so far"""
    stages: Stages
    """where the time goes"""
    start: Start
    """when it began, and on what"""
    data: RunData
    """the record as last written"""
    on_figures: Callable[[Record], None]
    """told what stands of the record"""

    def write(self, **changes: Any) -> Record:
        """Write the record with these fields changed."""
        self.data = replace(self.data, seconds=self.start.seconds(), **changes)
        return write_record(self.folder, self.data)

    def measure_quality(self, quality: QualityPass, report: Progress) -> None:
        """Every image through every decoder, and the figures."""
        reference_sha256 = quality.run(report)
        journal, config = self.journal, self.config
        name, seeds, extra = self.dataset.info.name, config.noise_seeds, config.extra_metrics
        with self.stages.stage("statistics"):
            rows = [
                decoder_figures(self.rows[label], decoder, name, journal, seeds, extra)
                for label, decoder in self.decoders.items()
            ]
        images = journal.images()
        info = self.dataset.info
        with self.stages.stage("writing"):
            journal.finish(self.decoders)
            record = self.write(
                status="quality",
                results=tuple(result for result, _ in rows),
                decoders={result.label: details for result, details in rows},
                dataset=DatasetFacts(
                    info,
                    SampleCounts(info.n_available, info.n_selected, len(images)),
                    tuple(self.dataset.skipped),
                    tuple(Skipped(**one) for one in journal.state["excluded"]),
                    files_sha256(images["key"], images["source_sha256"]),
                    reference_sha256,
                ),
                warnings=(
                    *self.data.warnings,
                    *seen_warnings(journal.state),
                    *sorted({notice for one in extra if (notice := METRICS[one].notice)}),
                ),
            )
        self.on_figures(record)

    def measure_rates(self, device: torch.device, report: Progress) -> None:
        """The effective rate of each row's latents; rows of one encoder share that of the first."""
        found: dict[str, dict[str, Any]] = {}
        results = list(self.data.results)
        for index, result in enumerate(results if self.config.effective_rate else ()):
            label, rate, decoder = result.label, result.rate, self.decoders[result.label]
            if rate is None or rate.kind != "nominal":
                continue
            encoder = decoder.spec.encoder_sha256 or label
            if encoder not in found:
                report(f"effective rate of {label}", index, len(results))
                with self.stages.stage("effective rate"):
                    found[encoder] = effective_rate(decoder, self.dataset, self.config.seed, device) | {"effective_of": label}
            results[index] = replace(result, rate=replace(rate, **found[encoder]))
        self.write(results=tuple(results))

    def measure_cost(self, device: torch.device, report: Progress) -> None:
        """Each decoder's cost; one that fails does not keep the others from being measured."""
        config, info, failures = self.config, self.dataset.info, list[str]()
        if config.cost is None:
            return
        for index, (label, decoder) in enumerate(self.decoders.items()):
            if isinstance(decoder, Finished):
                continue
            report(f"timing {label}", index, len(self.decoders))
            latents = concatenate(self.journal.tensors[f"latents:{label}"]).to(device)
            try:
                with self.stages.stage("measuring cost"), plugin_boundary(f"decoder {label}", "measuring its cost"):
                    fewer = partial(_built, config, self.rows[label], device, info.resolution) if info.demo else None
                    cost = measure_cost(decoder, latents, config.seed, config.cost, device, fewer=fewer)
            except MsbenchError as error:
                failures.append(str(error))
                continue
            result, details = with_cost(self.data.results[index], self.data.decoders[label], cost)
            results = (*self.data.results[:index], result, *self.data.results[index + 1 :])
            self.on_figures(self.write(results=results, decoders={**self.data.decoders, label: details}))
        report("timing", len(self.decoders), len(self.decoders))
        if failures:
            raise MsbenchError("; ".join(failures))

    def draw_sheet(self) -> None:
        """Originals beside every decoder, with each cell's PSNR and LPIPS."""
        if "shown:" not in self.journal.tensors:
            return
        originals, keys, captions = self.journal.pictures("shown:"), self.journal.state["shown"], {}
        for label in self.decoders:
            mine = self.journal.rows(label, self.config.seed).set_index("key").loc[keys]
            captions[label] = [_caption(*pair) for pair in zip(mine["psnr"], mine["lpips"], strict=True)]
        decoded = {label: self.journal.pictures(f"shown:{label}") for label in self.decoders}
        with self.stages.stage("writing"):
            write_sheet(self.folder / "sheet.png", originals, decoded, keys, captions)

    def end(self) -> Record:
        """The run is complete."""
        record = self.write(status="complete", timing=self.stages.timing())
        self.journal.discard()
        return record


def _build(config: RunConfig, row: DecoderRequest, device: torch.device, resolution: int) -> Decoder:
    """The decoder of a row, by its name or from the object that the caller gave."""
    live = config.live()
    if row.label not in live:
        return row.build(device, config.dtype, config.offline, resolution)
    options = replace(row.options(device, config.dtype, resolution=resolution), name=row.name)
    refuse_options("an object", options)
    return build_by(partial(ForeignDecoder, live[row.label]), type(live[row.label]).__name__, options)


def _built(config: RunConfig, row: DecoderRequest, device: torch.device, resolution: int, steps: int | None = None) -> Decoder:
    """The decoder of a row in the run's mode, with other steps where they are given."""
    return in_mode(_build(config, replace(row, steps=steps or row.steps), device, resolution), config.mode, device)


def _match(decoders: Mapping[str, Decoder], dataset: Dataset) -> list[str]:
    """Let decoders that have finished images find those of the dataset; returns what a reader must know.

    Raises:
        MsbenchError: one has none of them.
    """
    samples, lines = {entry.key: entry.name for entry in dataset.entries}, list[str]()
    for label, decoder in decoders.items():
        if isinstance(decoder, Finished):
            with plugin_boundary(f"decoder {label}", "matching its images"):
                lines += decoder.match(samples)
    return lines


def _plan(
    config: RunConfig, dataset: Dataset, start: Start, command: str, decoders: Mapping[str, Decoder], warnings: Sequence[str]
) -> RunData:
    """The record of a run that has not measured anything yet."""
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
        latent_noise=config.latent_noise,
        margins=merge_margins(DEFAULT_MARGINS, config.margins, METRICS),
        subset=info.subset,
        partial=info.partial,
        reconstructions=FINISHED if all(isinstance(one, Finished) for one in decoders.values()) else DECODED,
    )
    measured = [one for one in METRICS.values() if not one.extra or one.name in config.extra_metrics]
    dtypes = {value: name for name, value in DTYPES.items()}
    asked = plain({**asdict(replace(config, decoders=config.texts())), "dtype": dtypes[config.dtype]})
    del asked["resume"]
    return RunData(
        schema_version=SCHEMA_VERSION,
        status="running",
        failure=None,
        protocol=protocol,
        protocol_hash=protocol.hash(),
        metrics={one.name: MetricFacts(one.definition, one.direction, one.unit, one.per_image) for one in measured},
        higher_is_better={one.name: one.direction == "higher" for one in measured},
        results=(),
        decoders={},
        dataset=DatasetFacts(info, SampleCounts(info.n_available, info.n_selected, 0), (), (), "", ""),
        setting=Setting(config.device, dtypes[config.dtype], config.mode, config.batch_size),
        config=asked,
        command=command,
        date=start.date,
        seconds=0.0,
        environment=plain(start.facts),
        warnings=tuple(warnings),
        timing=None,
    )


def _same_run(folder: Path, data: RunData) -> RunData:
    """The record of the run to go on with.

    Raises:
        MsbenchError: there is none, or it was asked for something else.
    """
    earlier = read_record(folder).data
    for name, value in data.config.items():
        if name not in _MAY_DIFFER and earlier.config.get(name) != value:
            raise MsbenchError(f"--resume: {name} is {value!r}, the run in {folder} has {earlier.config.get(name)!r}")
    if earlier.protocol != data.protocol or earlier.metrics != data.metrics or earlier.dataset.info != data.dataset.info:
        raise MsbenchError(f"--resume: the run in {folder} was of another protocol, metric or dataset: measure again elsewhere")
    return earlier


def _journal(folder: Path, fresh: dict[str, Any]) -> Journal:
    """What the run in a folder has measured.

    Raises:
        MsbenchError: parts are damaged, or a decoder is another one now.
    """
    journal = Journal.read(folder)
    if not journal.state:
        journal.state = fresh
    for label, seen in journal.state["decoders"].items():
        if any(seen.get(part) != fresh["decoders"][label][part] for part in ("spec", "file")):
            raise MsbenchError(f"--resume: decoder {label} is another one now (its spec, weights or file): measure again")
    return journal


def _claim_images(config: RunConfig, folder: Path) -> None:
    """Make the folder of saved images this run's own.

    Raises:
        MsbenchError: it holds something else, or cannot be written to.
    """
    place = config.save_images
    if place is None:
        return
    marker, mine = place / MARKER, f"{folder.resolve()}\n"
    try:
        if place.exists() and any(place.iterdir()) and not (config.resume and marker.is_file() and marker.read_text() == mine):
            raise MsbenchError(f"--save-images {place} already holds images or other files: give a new folder")
        write_text(marker, mine)
    except OSError as error:
        raise MsbenchError(f"--save-images {place} cannot be written to ({error.strerror or error})") from error


def _refuse_random_weights(decoders: Mapping[str, Decoder]) -> None:
    """Raise `MsbenchError` where a decoder has no quality to measure."""
    random = [name for name, decoder in decoders.items() if decoder.spec.trained_on == "random weights"]
    if random:
        raise MsbenchError(f"--decoder {','.join(random)}: random weights have a cost but no quality; use `msbench speed`")


def _caption(psnr: float, lpips: float) -> str:
    return "exact" if np.isinf(psnr) else f"{psnr:.1f} dB · LPIPS {lpips:.3f}"
