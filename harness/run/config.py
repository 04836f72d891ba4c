"""What a run was asked for, checked before anything is computed or written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from harness.cost.cost import CostProtocol
from harness.cost.modes import Mode, parse_mode
from harness.data.types import NATIVE, Request
from harness.decoder import DTYPES, parse_dtype
from harness.errors import MsbenchError
from harness.files import safe_name
from harness.metrics.registry import METRICS, check_extra
from harness.request.requests import DecoderRequest, live_request, parse_request, parse_requests, split_list
from harness.stats.verdict import parse_margins


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What `msbench run` was asked for."""

    decoders: tuple[str, ...] | Mapping[str, object]
    """`[LABEL=]NAME[@option=value]…` each, in the order of the table; or label -> such a text, an object with `encode` and
    `decode`, or a pair of these two functions"""
    dataset: str = "photos"
    """dataset name"""
    data_dir: Path | None = None
    """where the dataset lies"""
    split: str = "val"
    """which part of it"""
    resolution: int | None = None
    """side of every image; None = the dataset's own, the text "native" sets `as_given`"""
    max_samples: int | None = None
    """size of the stratified subset; None = everything"""
    allow_upsampling: bool = False
    """enlarge images that are too small"""
    as_given: bool = False
    """no crop: every image keeps its pixels and its own size; without cost alone"""
    seed: int = 0
    """seeds the subset and each sample's noise"""
    noise_seeds: int = 1
    """each image is decoded under this many noise seeds (seed, seed + 1, …); figures are means over them"""
    latent_noise: float = 0.0
    """latents are decoded with Gaussian noise of so many of each channel's spreads added, as behind a generator"""
    effective_rate: bool = False
    """also measure how coarsely latents can be quantised: see `harness.run.latents`"""
    margins: str = ""
    """losses that count as none, stated before the run: NAME=NUMBER or NAME=NUMBER%, separated by commas; metrics not named
    keep those of `registry.DEFAULT_MARGINS`"""
    extra_metrics: tuple[str, ...] = ()
    """metrics beyond the usual ones, slower"""
    batch_size: int = 8
    """images per call; changes no number beyond rounding"""
    device: str = "cpu"
    """cpu, cuda, cuda:N or mps"""
    dtype: torch.dtype = torch.float32
    """arithmetic of the decoders; the encoder and the metrics stay in fp32"""
    mode: Mode = "eager"
    """how decoders run, see `harness.cost.modes`; changes no image beyond rounding"""
    checkpoint: Path | None = None
    """weights instead of the shipped ones; with one decoder only"""
    steps: int | None = None
    """network calls per image instead of the decoder's own; with diffusion decoders only"""
    scales: int | None = None
    """number of scales instead of the decoder's own; the checkpoint must be trained for it"""
    output_dir: Path | None = None
    """the run's folder; None = a new one below runs/"""
    save_images: Path | None = None
    """also write every image the metrics saw"""
    cost: CostProtocol | None = field(default_factory=CostProtocol)
    """how cost is measured; None = not at all"""
    offline: bool = False
    """never touch the network"""
    sheet_rows: int = 6
    """images on the sheet"""
    keep_going: bool = False
    """leave images that a decoder fails on out of every decoder's figures, instead of ending the run"""
    resume: bool = False
    """go on with the run in `output_dir`, which must have been asked for the same"""

    shard: str | None = None
    """measure part I of N alone, as "I/N" from "1/N"; `harness.run.merge` makes a run of all of them"""

    def __post_init__(self) -> None:
        """Take texts where people write them: decoder names "a,b", paths, a dtype's name."""
        for name in ("decoders", "extra_metrics"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, split_list(value))
        for name in ("data_dir", "checkpoint", "output_dir", "save_images"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, Path(value))
        if str(self.resolution) == NATIVE:
            object.__setattr__(self, "resolution", None)
            object.__setattr__(self, "as_given", True)
        if isinstance(self.dtype, str):
            object.__setattr__(self, "dtype", parse_dtype(self.dtype))

    def requests(self) -> tuple[DecoderRequest, ...]:
        """A row for each decoder; `steps`, `scales` and `checkpoint` count where it says nothing itself.

        Raises:
            MsbenchError: no decoder, two rows of one label, or something that `requests.parse_request` refuses.
        """
        if isinstance(self.decoders, Mapping) and self.decoders:
            pairs = self.decoders.items()
            rows = tuple(parse_request(one, label) if isinstance(one, str) else live_request(label) for label, one in pairs)
        else:
            rows = parse_requests(self.decoders)
        return tuple(row.with_defaults(self.steps, self.scales, self.checkpoint) for row in rows)

    def texts(self) -> tuple[str, ...]:
        """The decoders as texts; of those given as objects, their labels."""
        if not isinstance(self.decoders, Mapping):
            return self.decoders
        pairs = self.decoders.items()
        return tuple(parse_request(one, label).text() if isinstance(one, str) else label for label, one in pairs)

    def live(self) -> Mapping[str, object]:
        """The decoders given as objects, by label."""
        given = self.decoders if isinstance(self.decoders, Mapping) else {}
        return {label: one for label, one in given.items() if not isinstance(one, str)}


def check_config(config: RunConfig) -> None:
    """Raise `MsbenchError` where the request contradicts itself or names no decoder that exists."""
    config.requests()
    if config.checkpoint is not None and len(config.decoders) > 1:
        raise MsbenchError("--checkpoint goes with one --decoder, not several")
    for name, low, high in _RANGES:
        check_number(f"--{name.replace('_', '-')}", getattr(config, name), low, high)
    check_number("--seed and --noise-seeds together", config.seed + config.noise_seeds, -(2**63), 2**63)
    if config.dtype not in DTYPES.values():
        raise MsbenchError(f"dtype {config.dtype}: decoders run in {', '.join(DTYPES)}")
    parse_mode(config.mode)
    if config.as_given and (config.resolution is not None or config.cost is not None or config.allow_upsampling):
        raise MsbenchError(
            "--resolution native (or --as-given) leaves every image its own size: add --no-cost (cost is of one size, "
            "--resolution R), and give no other resolution and no --allow-upsampling"
        )
    if config.resume and config.output_dir is None:
        raise MsbenchError("--resume goes on with the run in --output-dir FOLDER: name it")
    if config.shard is not None and parse_shard(config.shard) and config.effective_rate:
        raise MsbenchError("--effective-rate is measured over the whole set: leave it out with --shard")
    for name in config.extra_metrics:
        check_extra(name)
    parse_margins(config.margins, METRICS)


def parse_shard(text: str) -> tuple[int, int]:
    """(place from 0, number of shards) of "3/16"; raises `MsbenchError` where it is none."""
    part, _, parts = text.partition("/")
    if not (text.isascii() and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts) <= 100_000):
        raise MsbenchError(f"--shard {text}: give which part of how many, from 1/16 to 16/16")
    return int(part) - 1, int(parts)


def dataset_request(config: RunConfig) -> Request:
    """The images that a run is asked for."""
    asked = ("data_dir", "resolution", "max_samples", "seed", "allow_upsampling", "split", "offline", "as_given")
    return Request(config.dataset, **{name: getattr(config, name) for name in asked})


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("resolution", 1, 2**20),
    ("max_samples", 1, 2**40),
    ("seed", -(2**63), 2**63 - 1),
    ("noise_seeds", 1, 1_000),
    ("latent_noise", 0.0, 1e3),
    ("batch_size", 1, 2**16),
    ("steps", 1, 100_000),
    ("scales", 1, 16),
    ("sheet_rows", 0, 1_000),
)
"""numbers of a `RunConfig`, whole where both bounds are, which may be None where that is a default, and what they may be"""


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Raise `MsbenchError` unless a number lies within [low, high]; whole where both are; None passes."""
    whole = isinstance(low, int) and isinstance(high, int)
    kind = int if whole else (int, float)
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool) or not low <= value <= high):
        raise MsbenchError(f"{name} {value}: a {'whole ' if whole else ''}number from {low:,} to {high:,} is wanted")


def check_device(name: str) -> torch.device:
    """The device called `name`; raises `MsbenchError` where the machine has none such."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise MsbenchError(f"--device {name}: not a device name; use cpu, cuda, cuda:N or mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise MsbenchError(f"--device {name}: msbench runs on cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MsbenchError(f"--device {name}: this machine has no CUDA device that torch can use; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MsbenchError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, numbered from 0")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise MsbenchError(f"--device {name}: this machine has no MPS device; use --device cpu")
    return device


def runs_root() -> Path:
    """`results/runs` inside a checkout of msbench, `./runs` elsewhere."""
    here = Path.cwd()
    checkout = (here / "pyproject.toml").is_file() and (here / "harness" / "run" / "runner.py").is_file()
    return here / "results" / "runs" if checkout else here / "runs"


def new_run_folder(config: RunConfig) -> Path:
    """A fresh folder name: date, dataset, decoders."""
    names = safe_name(config.requests()[0].label) if len(config.decoders) == 1 else f"{len(config.decoders)}-decoders"
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{config.dataset.partition(':')[0]}-{names}"
    folder, count = runs_root() / stem, 1
    while folder.exists():
        count += 1
        folder = runs_root() / f"{stem}-{count}"
    return folder
