"""The schema of `record.json`: one dataclass a section, a line under each field. `msbench schema` prints it.

Written by `harness.run`, read by everybody else through `harness.record.record.read_record`. NaN and infinities are null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from harness.cost.cost import Cost
from harness.data.types import DatasetInfo, Skipped
from harness.decoder import DecoderSpec
from harness.record.protocol import Protocol
from harness.stopwatch import Timing

SCHEMA_VERSION = 3
Status = Literal["running", "quality", "complete", "failed", "interrupted", "shard"]
"""running: images are measured; quality: their figures stand, cost not yet; failed: what stands is kept, `failure` says why;
interrupted: told to end, --resume goes on; shard: all of one part of the images, for `msbench merge`"""
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class MetricFacts:
    """What the figures of one metric mean; two runs compare on a metric where `definition` agrees."""

    definition: str
    """versioned text that fixes the computation"""
    direction: Literal["higher", "lower"]
    """which way is better"""
    unit: str
    """unit of the number; empty where it has none"""
    per_image: bool
    """one value an image stands in samples.parquet; else a value of the whole set"""


@dataclass(frozen=True, slots=True)
class Rate:
    """What the code of an image takes, the mean over images."""

    bits_per_image: float
    """bits of the whole code"""
    bits_per_pixel: float
    """the same over the pixels of the image"""
    kind: Literal["nominal", "tokens", "files"]
    """nominal: 16 bits for each number of the latents; tokens: log2 K for each index into K entries; files: actual bytes"""
    codebook_sizes: tuple[int, ...] = ()
    """entries of each codebook; empty where the code is no indices"""
    perplexity: tuple[float, ...] = ()
    """of each codebook: e to the entropy of the indices seen, at most its size and at most their number"""
    tokens: int = 0
    """indices seen, of all codebooks together"""
    effective_bits_per_image: float | None = None
    """of numbers: log2 of the levels, over the range seen, of the coarsest uniform quantisation that costs less than 0.1 dB of
    PSNR; null where it was not measured"""
    effective_bits_per_pixel: float | None = None
    """the same over the pixels of the image"""
    effective_step: float | None = None
    """step of that quantisation in spreads of each channel"""
    effective_of: str | None = None
    """label of the row that it was measured with: the first of those with these latents"""


@dataclass(frozen=True, slots=True)
class Result:
    """One row of a table. In JSON the metrics stand beside the other keys: `"psnr": 24.6`."""

    label: str
    """name of the row, unique in the record"""
    decoder: str
    """registry name"""
    options: Mapping[str, JsonValue]
    """what was asked of this decoder beside its defaults: steps, scales, checkpoint"""
    dataset: str
    """dataset name as the user wrote it"""
    n: int
    """images behind the figures"""
    metrics: Mapping[str, float | None]
    """metric -> value over the set, the mean over noise seeds; null where it has none"""
    intervals: Mapping[str, Interval]
    """metric -> [low, high] at `Details.interval_level`, where there is one"""
    noise_spread: Mapping[str, float | None] | None
    """metric -> standard deviation over noise seeds; null with a single seed"""
    octaves_db: Mapping[str, float | None]
    """octave, "0" the finest -> mean difference of its power to the reference's in dB"""
    rfid_infinity: float | None
    """rFID extrapolated to infinitely many images; null where the set is too small for it"""
    ms_per_image: Mapping[str, float]
    """batch size -> median milliseconds an image; empty without cost"""
    gflops: float | None
    """GFLOPs an image over all steps; null where not counted"""
    parameters: int
    """parameters that decoding uses"""
    peak_memory_mb: float | None
    """MiB that one image needs above weights and latents"""
    trained_on: str
    """training data in a few words"""
    disturbed: bool = False
    """other work ran on the machine while this row was timed: its times say nothing"""
    time_estimated: bool = False
    """a time of this row follows from decodes of fewer steps; on demo sets alone"""
    rate: Rate | None = None
    """what its code takes; null where it has none, and in records of earlier versions"""


@dataclass(frozen=True, slots=True)
class IntervalNote:
    """How an interval came about."""

    method: str
    """a few words"""
    units: int
    """independent units (photographs) it rests on"""
    note: str
    """what a reader must know; may be empty"""


@dataclass(frozen=True, slots=True)
class NoiseFacts:
    """What was seen of a decoder's randomness."""

    drawn: bool
    """it drew from the noise it was given"""
    seeds: tuple[int, ...]
    """noise seeds with values of their own"""
    per_seed: Mapping[str, Mapping[str, float | None]]
    """seed -> metric -> value"""
    image_spread: Mapping[str, float | None] | None
    """metric -> mean over images of one image's standard deviation over seeds; null with one seed"""
    global_draws: bool = False
    """it drew from a global random generator: it was run image by image, each seeded by its key"""
    batch_dependence: float | None = None
    """largest difference in uint8 levels between one batch and the same images in batches of other sizes; null: not probed"""


@dataclass(frozen=True, slots=True)
class RfidLine:
    """rFID over the number of images."""

    value: float
    """its value at infinitely many"""
    bias: float
    """how far the figure lies above that"""
    sizes: tuple[int, ...]
    """images a part"""
    means: tuple[float, ...]
    """mean rFID of the parts of each size"""


@dataclass(frozen=True, slots=True)
class Details:
    """What one row rests on."""

    spec: DecoderSpec
    """the decoder's own words"""
    source_sha256: str | None
    """SHA-256 of the module file that defines the decoder; null where there is none"""
    interval_level: float
    """confidence of the intervals"""
    interval_notes: Mapping[str, IntervalNote]
    """metric -> how its interval came about"""
    psnr_exact_images: int
    """images equal to their reference: their PSNR is infinite and left out of the mean"""
    clamped: float
    """share of output values outside [-1, 1]"""
    noise: NoiseFacts
    """its randomness"""
    rfid_infinity: RfidLine | None
    """the extrapolation; null where it does not hold"""
    rfid_warning: str | None
    """what the number of images does to rFID; null where there is nothing to say"""
    cost: Cost | None
    """null where cost was not measured"""
    files_sha256: str | None = None
    """of finished images: hash over keys and file hashes; null for decoders that decode"""
    notes: tuple[str, ...] = ()
    """what its values and its code showed that a reader must know, a few words each"""
    by_label: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """metric -> label -> mean over its images, of metrics that ask for it, where images have labels"""


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Images on their way from the dataset to the figures."""

    original: int
    """images the dataset holds"""
    selected: int
    """images chosen by --max-samples"""
    effective: int
    """images behind the figures"""


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """The images."""

    info: DatasetInfo
    """which set"""
    n_samples: SampleCounts
    """how many"""
    skipped: tuple[Skipped, ...]
    """files that gave no image"""
    excluded: tuple[Skipped, ...]
    """images left out of every decoder's figures because a decoder failed on them (--keep-going) or has none of them"""
    source_sha256: str
    """hash over keys and file hashes"""
    reference_sha256: str
    """version of its definition, and hash over keys and hashes of pixels: see `record.run.pixels_id`"""
    keys_sha256: str = ""
    """hash over the keys of all selected images, a line each; empty in records of earlier versions"""


@dataclass(frozen=True, slots=True)
class Setting:
    """How the run was computed: what times depend on and figures should not."""

    device: str
    """cpu, cuda, cuda:N or mps"""
    dtype: str
    """arithmetic of the decoders: fp32, bf16 or fp16"""
    mode: str
    """eager, compile or cudagraph"""
    batch_size: int
    """images a call"""
    processes: int = 1
    """that measured the images together"""


@dataclass(frozen=True, slots=True)
class RunData:
    """Everything in record.json."""

    schema_version: int
    """of this layout"""
    status: Status
    """how far the run came"""
    failure: str | None
    """one line; null unless `status` is failed"""
    protocol: Protocol
    """all that decides what the figures mean, beside the metrics' definitions"""
    protocol_hash: str
    """equal hashes compare"""
    metrics: Mapping[str, MetricFacts]
    """every metric of the run"""
    higher_is_better: Mapping[str, bool]
    """metric -> direction, as other tools write it"""
    results: tuple[Result, ...]
    """one row a decoder, in the order asked for"""
    decoders: Mapping[str, Details]
    """label -> what the row rests on"""
    dataset: DatasetFacts
    """the images"""
    setting: Setting
    """device, dtype, mode and batch size"""
    config: Mapping[str, JsonValue]
    """the options of the run, by the names of `RunConfig`"""
    command: str
    """how it was started; "Python API" where it was no command"""
    date: str
    """start, UTC, ISO 8601"""
    seconds: float
    """wall-clock of the whole run"""
    environment: Mapping[str, JsonValue]
    """machine, libraries, git commit: see `harness.environment.environment`"""
    warnings: tuple[str, ...]
    """what a reader must know, one line each"""
    timing: Timing | None
    """null until the run is complete"""
