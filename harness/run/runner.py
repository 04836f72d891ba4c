"""One run: the quality pass over the images, then each decoder's cost, then the sheet; the record says how far it came."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness.cost.cost import measure_cost
from harness.cost.modes import in_mode
from harness.data.dataset import Dataset
from harness.data.registry import open_dataset
from harness.decoder import DTYPES, Decoder, Finished
from harness.distributed import current_group
from harness.environment import Start
from harness.errors import MsbenchError, UnknownNameError, plugin_boundary
from harness.files import folder_lock, write_text, writing_to
from harness.interrupt import Terminated
from harness.metrics.registry import DEFAULT_MARGINS, METRICS
from harness.metrics.suite import MetricSuite
from harness.record.protocol import DECODED, FINISHED, Protocol
from harness.record.record import Record, plain, read_record, write_record
from harness.record.schema import SCHEMA_VERSION, DatasetFacts, MetricFacts, RunData, SampleCounts, Setting
from harness.registry import build_by, name_clashes
from harness.report.progress import progress_bar
from harness.request.foreign import ForeignDecoder, refuse_options
from harness.request.requests import DecoderRequest
from harness.run.config import RunConfig, check_config, check_device, dataset_request, new_run_folder
from harness.run.figures import difference, draw_sheet, quality_figures, with_cost
from harness.run.journal import Journal, check_output, discard
from harness.run.latents import by_channel, effective_rate, sample_latents
from harness.run.quality import QualityPass
from harness.run.reconstruct import concatenate
from harness.stats.verdict import merge_margins
from harness.stopwatch import Progress, Stages

MARKER = ".msbench-images"
"""file in a folder of saved images that names the run they are of"""
PATIENCE = timedelta(days=7)
"""how long processes wait for one another: one may have the slower images, and one that has ended is noticed at once"""
_OF_INDICES = "token_agreement"  # what takes the place of the latents' error where they are indices


def evaluate(
    config: RunConfig | None = None,
    progress: Progress | None = None,
    command: str = "Python API",
    on_figures: Callable[[Record], None] | None = None,
    **asked: Any,
) -> Record:
    """Run the protocol and write the run's folder; with `config.resume` go on with what lies there.

    Under torchrun the processes share the images; rank 0 does the rest, and the others return the record as it was planned.

    Args:
        config: what is asked for; None = what `asked` says.
        progress: called with (stage, done, total); None = a bar, or lines where stderr is no terminal.
        command: how the run was started, for the record.
        on_figures: called with what stands of the record once quality is measured, and again after each decoder's cost.
        asked: fields of `RunConfig` by name; they go before those of `config`.

    Raises:
        MsbenchError: bad input, found before anything is computed or written; or a decoder or a file failed on the way, and
            the record's status and `failure` say what of the run stands.
        Terminated, KeyboardInterrupt: SIGTERM or SIGINT came; the record's status is "interrupted".
    """
    start = Start()
    if unknown := asked.keys() - {one.name for one in fields(RunConfig)}:
        raise UnknownNameError("field of RunConfig", min(unknown), (one.name for one in fields(RunConfig)))
    config = replace(config or RunConfig(()), **asked)
    config = replace(config, cost=None) if config.shard else config  # it is of decoders, not of images
    with nullcontext(progress) if progress else progress_bar() as report:
        return _evaluate(config, report, start, command, on_figures or (lambda record: None))


def _evaluate(config: RunConfig, report: Progress, start: Start, command: str, on_figures: Callable[[Record], None]) -> Record:
    with current_group(check_device(config.device), PATIENCE) as group, ExitStack() as held:
        device, stages = group.device, Stages(group.device)
        with group.together():
            check_config(config)
            # What one fetches or unpacks is then there for the others of this machine.
            dataset = open_dataset(dataset_request(config)) if group.local_rank == 0 else None
        with group.together():
            dataset = open_dataset(dataset_request(config)) if dataset is None else dataset
            pinned = (row.pinned(config.offline) for row in config.requests())
            rows, folder = {row.label: row for row in pinned}, config.output_dir or new_run_folder(config)
            _check_request(config, folder, dataset)
            with stages.stage("loading decoders"):
                decoders = {label: _built(config, row, device, dataset.info.resolution) for label, row in rows.items()}
                told = [*_match(decoders, dataset), *name_clashes([row.name for row in rows.values()])]
                if config.latent_noise:
                    told.append(f"latents were decoded with noise of {config.latent_noise:g} spreads of each channel added")
            _refuse_random_weights(decoders)
            with stages.stage("statistics of latents"):
                deviations = _deviations(config, decoders, dataset, device)
            if any(one.spec.codebook_sizes for one in decoders.values()) and _OF_INDICES not in config.extra_metrics:
                config = replace(config, extra_metrics=(*config.extra_metrics, _OF_INDICES))
            planned = _plan(config, dataset, start, command, decoders, told)
            data = replace(planned, setting=replace(planned.setting, processes=group.world))
            if group.writes:
                held.enter_context(folder_lock(folder))
                data = _same_run(folder, data) if config.resume else data
        folder, data = group.share((folder, data))
        if data.status in ("complete", "shard"):
            return Record(folder, data)
        run = _Run(config, folder, dataset, rows, decoders, stages, start, data, on_figures)
        with group.together():
            with stages.stage("loading metrics"):
                suite = MetricSuite(device, config.offline, extra=config.extra_metrics)
            if group.writes:
                _claim_images(config, folder)
                run.write(status="running")
        quality = QualityPass(config, dataset, rows, decoders, suite, group, folder, stages, deviations)
        if not group.writes:
            quality.run(lambda stage, done, total: None)
            return Record(folder, data)
        try:
            with writing_to(folder):
                return run.measure(quality, device, report)
        except (Terminated, KeyboardInterrupt) as error:
            run.write(status="interrupted")
            raise type(error)(f"what was measured is kept in {folder}, --resume goes on with it") from error
        except MsbenchError as error:
            line = " ".join(str(error).split())
            with suppress(OSError):  # where even this cannot be written, the line says so
                run.write(status="failed", failure=line)
            if run.data.results and "--resume" not in line:
                line += f"; what was measured is kept in {folder}, --resume goes on with it"
            raise MsbenchError(line) from error


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

    def measure(self, quality: QualityPass, device: torch.device, report: Progress) -> Record:
        """Everything, as far as it is not measured yet."""
        journal = quality.run(report)
        assert journal is not None
        if self.config.shard:
            facts = self.data.dataset
            counts = replace(facts.n_samples, effective=len(journal.keys()))
            return self.write(status="shard", dataset=replace(facts, n_samples=counts), timing=self.stages.timing())
        with self.stages.stage("statistics"):
            changes = quality_figures(self.data, journal)
        with self.stages.stage("writing"):
            journal.finish(self.folder)
            record = self.write(status="quality", **changes)
        self.on_figures(record)
        self.measure_rates(device, report)
        self.measure_cost(journal, device, report)
        with self.stages.stage("writing"):
            draw_sheet(self.folder, journal, self.config.seed)
        record = self.write(status="complete", timing=self.stages.timing())
        discard(self.folder)
        return record

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

    def measure_cost(self, journal: Journal, device: torch.device, report: Progress) -> None:
        """Each decoder's cost; one that fails does not keep the others from being measured."""
        config, info, failures = self.config, self.dataset.info, list[str]()
        if config.cost is None:
            return
        for index, (label, decoder) in enumerate(self.decoders.items()):
            if isinstance(decoder, Finished):
                continue
            report(f"timing {label}", index, len(self.decoders))
            latents = concatenate(journal.tensors[f"latents:{label}"]).to(device)
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


def _built(config: RunConfig, row: DecoderRequest, device: torch.device, resolution: int, steps: int | None = None) -> Decoder:
    """The decoder of a row in the run's mode, by its name or from the caller's object; with other steps where given."""
    row, given = replace(row, steps=steps or row.steps), config.live()
    if row.label not in given:
        decoder = row.build(device, config.dtype, config.offline, resolution)
    else:
        thing, options = given[row.label], replace(row.options(device, config.dtype, resolution=resolution), name=row.name)
        refuse_options("an object", options)
        decoder = build_by(partial(ForeignDecoder, thing), type(thing).__name__, options)
    return in_mode(decoder, config.mode, device)


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


def _deviations(
    config: RunConfig, decoders: Mapping[str, Decoder], dataset: Dataset, device: torch.device
) -> dict[str, torch.Tensor]:
    """Standard deviations of the noise that is added to latents, [C, 1, 1] each; none where none is asked for."""
    found = {}
    for label, one in decoders.items() if config.latent_noise else ():
        sample = sample_latents(one, dataset, config.seed, device)
        if not sample:
            raise MsbenchError(f"--latent-noise: the latents of {label} are no grid of numbers to add noise to: leave it out")
        found[label] = config.latent_noise * by_channel(sample)[1]
    return found


def _plan(
    config: RunConfig, dataset: Dataset, start: Start, command: str, decoders: Mapping[str, Decoder], warnings: Sequence[str]
) -> RunData:
    """The record of a run that has not measured anything yet."""
    info = dataset.info
    everything = config.max_samples is None or config.max_samples >= info.n_available
    protocol = Protocol(
        dataset="folder" if ":" in info.name else info.name,
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
    keys = hashlib.sha256("\n".join(entry.key for entry in dataset.entries).encode())
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
        dataset=DatasetFacts(info, SampleCounts(info.n_available, info.n_selected, 0), (), (), "", "", keys.hexdigest()),
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
    """The record of the run to go on with: its own where it is finished, else what is planned, as it was begun.

    Raises:
        MsbenchError: there is none, or it was asked for something else.
    """
    earlier = read_record(folder).data
    if differing := difference(data, earlier, f"the run in {folder}"):
        raise MsbenchError(f"--resume: {differing}")
    return earlier if earlier.status in ("complete", "shard") else replace(data, command=earlier.command, date=earlier.date)


def _check_request(config: RunConfig, folder: Path, dataset: Dataset) -> None:
    """Raise `MsbenchError` where what is written would become data or replace a run, or a needed text is unknown."""
    for place, option in ((folder, "--output-dir"), (config.save_images, "--save-images")):
        if place is not None and dataset.holds(place):
            raise MsbenchError(f"{option} {place} lies in the dataset's folder: what is written there would become data")
    check_output(folder, config.resume)
    for name in config.extra_metrics:
        if METRICS[name].needs_text and any(entry.text is None for entry in dataset.entries):
            raise MsbenchError(
                f"--extra-metrics {name} needs images whose text is known, and {config.dataset} does not say it: take "
                "--dataset text (what is read in an original is no truth)"
            )


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
