"""What passes between `msbench speed` and its workers: messages one way, `harness.cost.attempt.Outcome` the other.

Everything here can be pickled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.cost.flops import Work
from harness.cost.load import Load
from harness.cost.power import PowerReport
from harness.decoder import DecoderSpec
from harness.speed.protocol import Contestant, Scope, Setting


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker process is started with."""

    contestant: Contestant
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


@dataclass(frozen=True, slots=True)
class Describe:
    """Ask for `Facts` at a resolution."""

    resolution: int
    """side in pixels"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not depend on batch or mode."""

    spec: DecoderSpec
    """what the decoder says of itself"""
    work: Work
    """FLOPs and bytes of one image, counted in eager mode"""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make a setting ready: build, first call, warm-up."""

    setting: Setting
    """what to run"""
    warm_up_seconds: float
    """limit of the warm-up"""
    largest: int
    """where the search for the largest batch starts"""


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
class Turn:
    """Time some calls one by one, in both scopes."""

    calls: int
    """at most so many"""
    seconds: float
    """no further call starts after this long; one always runs"""


@dataclass(frozen=True, slots=True)
class TurnTimes:
    """What the calls of a turn took."""

    seconds: dict[Scope, list[float]]
    """of each call, in order"""
    load: Load | None = None
    """what else the machine did meanwhile"""


@dataclass(frozen=True, slots=True)
class BackToBack:
    """Time calls without a pause, with one wait at the end; on a GPU energy is read meanwhile, of the scope `decode`."""

    calls: int
    """how many"""
    end_to_end: bool
    """which scope"""
    own_pids: tuple[int, ...] = ()
    """processes of this measurement, which do not count as company on the GPU"""
    idle_w: float | None = None
    """watts before the work"""


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
class Measure:
    """Ask for the device's own limits: "ceilings" (`Ceilings`) or "idle" (watts or None)."""

    what: Literal["ceilings", "idle"]
    """which"""
    seconds: float = 2.0
    """about how long"""


@dataclass(frozen=True, slots=True)
class Release:
    """Drop the setting's tensors and hand memory back."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """In a process that has done nothing else: cold start and memory of a setting, its batch a number."""

    setting: Setting
    """what to run"""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a fresh process saw."""

    cold_ms: float
    """process start to first images: imports, weights, first call; encoding the test images is taken off"""
    peak_mb: float | None
    """MiB above weights and latents; None where unknown"""


Message = Describe | Prepare | Turn | BackToBack | Measure | Release | Fresh
