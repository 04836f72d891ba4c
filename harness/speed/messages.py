"""What `msbench speed` tells a worker when it starts, and what comes back. Everything here can be pickled."""

from __future__ import annotations

from dataclasses import dataclass

from harness.cost.flops import Work
from harness.cost.load import Load
from harness.cost.power import PowerReport
from harness.decoder import DecoderSpec
from harness.request.requests import DecoderRequest
from harness.speed.protocol import Scope


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker process is started with."""

    contestant: DecoderRequest
    """whom it runs"""
    device: str
    """cpu, cuda or cuda:N"""
    dtype: str
    """fp32, bf16 or fp16"""
    cores: tuple[int, ...] | None
    """CPUs it may use, with one thread each; None = leave as they are (GPU)"""
    compile_cache: str
    """folder for compiled code, so that a run starts without what earlier ones left"""
    seed: int
    """seeds the samples' noise"""
    started: float
    """`time.monotonic` just before the process was started"""
    resolution: int = 0
    """side in pixels of the images; 0 where that is not known"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not depend on batch or mode."""

    spec: DecoderSpec
    """what the decoder says of itself"""
    work: Work
    """FLOPs and bytes of one image, counted in eager mode"""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A setting that is ready."""

    batch: int
    """images per call"""
    first_call_ms: float
    """the first call of this shape: compilation or recording included"""
    call_ms: float
    """the last call of the warm-up: what a call takes, about"""
    warmup_calls: int
    """calls thrown away"""
    settled: bool
    """the warm-up ended because times agreed"""
    pinned: bool
    """the process is bound to its cores"""
    note: str | None = None
    """one line on how the largest batch was found, where something but memory ended the search"""


@dataclass(frozen=True, slots=True)
class TurnTimes:
    """What the calls of a turn took."""

    seconds: dict[Scope, list[float]]
    """of each call, in order"""
    load: Load | None = None
    """what else the machine did meanwhile"""


@dataclass(frozen=True, slots=True)
class Burst:
    """What calls back to back took."""

    calls: int
    """how many"""
    seconds: float
    """all of them"""
    power: PowerReport | None
    """energy, clocks and company of the GPU; None on a CPU"""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a fresh process saw."""

    cold_ms: float
    """process start to first images: imports, weights, first call; encoding the test images is taken off"""
    peak_memory_mb: float | None
    """MiB above weights and latents; None where unknown"""
