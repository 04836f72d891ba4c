"""What a run was asked for, checked before anything is computed or written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch

from harness.cost.cost import CostProtocol
from harness.cost.modes import Mode, parse_mode
from harness.decoder import DecoderOptions
from harness.errors import MsbenchError, UnknownNameError
from harness.metrics.registry import EXTRA, METRICS
from harness.registry import build_decoder, decoder_entries
from harness.stats.verdict import parse_margins

DTYPES: Mapping[str, torch.dtype] = MappingProxyType({"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16})
"""arithmetic of decoders, as the command line names it"""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What `msbench run` was asked for."""

    decoders: tuple[str, ...]
    """registry names, in the order of the table"""
    dataset: str = "photos"
    """dataset name"""
    data_dir: Path | None = None
    """where the dataset lies"""
    split: str = "val"
    """which part of it"""
    resolution: int | None = None
    """side of every image; None = the dataset's own"""
    max_samples: int | None = None
    """size of the stratified subset; None = everything"""
    allow_upsampling: bool = False
    """enlarge images that are too small"""
    as_given: bool = False
    """no crop: every image keeps its pixels and its own size; with folder:PATH alone"""
    seed: int = 0
    """seeds the subset and each sample's noise"""
    noise_seeds: int = 1
    """each image is decoded under this many noise seeds (seed, seed + 1, …); figures are means over them"""
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

    def __post_init__(self) -> None:
        """Take texts where people write them: decoder names "a,b", paths, a dtype's name."""
        for name in ("decoders", "extra_metrics"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, tuple(part.strip() for part in value.split(",") if part.strip()))
        for name in ("data_dir", "checkpoint", "output_dir", "save_images"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, Path(value))
        if isinstance(self.dtype, str):
            object.__setattr__(self, "dtype", parse_dtype(self.dtype))

    def noise_seed_list(self) -> range:
        """The noise seeds, in their order."""
        return range(self.seed, self.seed + self.noise_seeds)


def check_config(config: RunConfig) -> None:
    """Raise `MsbenchError` where the request contradicts itself or names no decoder that exists."""
    if not config.decoders:
        raise MsbenchError("no decoder given: use --decoder NAME[,NAME…]; `msbench ls decoders` lists them")
    repeated = {name for name in config.decoders if config.decoders.count(name) > 1}
    if repeated:
        raise MsbenchError(f"--decoder names {', '.join(sorted(repeated))} twice")
    if config.checkpoint is not None and len(config.decoders) > 1:
        raise MsbenchError("--checkpoint goes with one --decoder, not several")
    for name, low, high in _RANGES:
        check_number(f"--{name.replace('_', '-')}", getattr(config, name), low, high)
    check_number("--seed and --noise-seeds together", config.seed + config.noise_seeds, -(2**63), 2**63)
    if config.dtype not in DTYPES.values():
        raise MsbenchError(f"dtype {config.dtype}: decoders run in {', '.join(DTYPES)}")
    parse_mode(config.mode)
    if config.as_given and (not config.dataset.startswith("folder:") or config.resolution is not None):
        raise MsbenchError("as_given takes the images of folder:PATH in their own sizes: no other dataset, and no resolution")
    if config.resume and config.output_dir is None:
        raise MsbenchError("--resume goes on with the run in --output-dir FOLDER: name it")
    for name in config.extra_metrics:
        if name not in EXTRA:
            raise UnknownNameError("extra metric", name, EXTRA)
    parse_margins(config.margins, METRICS)
    entries = decoder_entries()
    for name in config.decoders:
        if name not in entries:
            build_decoder(name, DecoderOptions())  # raises with the nearest name


_RANGES: tuple[tuple[str, int, int], ...] = (
    ("resolution", 1, 2**20),
    ("max_samples", 1, 2**40),
    ("seed", -(2**63), 2**63 - 1),
    ("noise_seeds", 1, 1_000),
    ("batch_size", 1, 2**16),
    ("steps", 1, 100_000),
    ("scales", 1, 16),
    ("sheet_rows", 0, 1_000),
)
"""whole numbers of a `RunConfig`, which may be None where that is a default, and what they may be"""


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Raise `MsbenchError` unless a number lies within [low, high]; whole where both are; None passes."""
    whole = isinstance(low, int) and isinstance(high, int)
    kind = int if whole else (int, float)
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool) or not low <= value <= high):
        raise MsbenchError(f"{name} {value}: a {'whole ' if whole else ''}number from {low:,} to {high:,} is wanted")


def parse_dtype(name: str) -> torch.dtype:
    """The dtype called `name`; raises `UnknownNameError` where there is none."""
    if name not in DTYPES:
        raise UnknownNameError("dtype", name, DTYPES)
    return DTYPES[name]


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
    names = config.decoders[0] if len(config.decoders) == 1 else f"{len(config.decoders)}-decoders"
    dataset = "folder" if config.dataset.startswith("folder:") else config.dataset
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{dataset}-{names}"
    folder, count = runs_root() / stem, 1
    while folder.exists():
        count += 1
        folder = runs_root() / f"{stem}-{count}"
    return folder
