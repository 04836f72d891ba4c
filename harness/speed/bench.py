"""One decoder on its bench: latents of real images, one setting at a time, every call timed. Runs inside a worker."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from harness.cost.attempt import attempt, free_memory
from harness.cost.cost import LARGEST_BATCH, decode_call, noise_for
from harness.cost.flops import count_work
from harness.cost.latency import synchronise, timed_call, warm_up
from harness.cost.load import LoadMeter
from harness.cost.memory import peak_memory_mb
from harness.cost.modes import in_mode
from harness.cost.power import gpu_index, measure_idle_power, watch_power
from harness.cost.roofline import Ceilings, measure_ceilings
from harness.data.dataset import Dataset
from harness.data.registry import open_dataset
from harness.data.types import Request
from harness.decoder import DTYPES, Finished
from harness.errors import MsbenchError
from harness.run.reconstruct import to_uint8
from harness.speed.messages import Burst, Facts, Job, Memory, Prepared, TurnTimes
from harness.speed.protocol import SCOPES, Scope, Setting

PHOTOS = 4
"""images of the built-in demo set whose latents are decoded, in turn"""
LARGEST = 512
"""side in pixels up to which the demo set has crops"""


def open_photos(resolution: int) -> Dataset:
    """The images whose latents are decoded, of 256 px above `LARGEST`."""
    return open_dataset(Request("photos", resolution=resolution if resolution <= LARGEST else None, max_samples=PHOTOS))


def photo_pixels(resolution: int) -> Tensor:
    """Their pixels, uint8 [PHOTOS, 3, R, R], above `LARGEST` repeated side by side; fewer images above 256 px."""
    pixels = torch.stack([torch.from_numpy(example.image).permute(2, 0, 1) for example in open_photos(resolution)])
    times = -(-resolution // pixels.shape[-1])
    return pixels.repeat(1, 1, times, times)[..., :resolution, :resolution]


class Bench:
    """A decoder and, once prepared, one setting of it. Public methods are what `Client.ask` may ask for.

    Args:
        job: who and where.
        pinned: the process is bound to its cores.
        clock: seconds since the same zero as `job.started`.

    Raises whatever building the decoder raises.
    """

    def __init__(self, job: Job, pinned: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.device = torch.device(job.device)
        self.dtype = DTYPES[job.dtype]
        self.decoder = job.contestant.build(self.device, self.dtype, resolution=job.resolution)
        if isinstance(self.decoder, Finished):
            raise MsbenchError(f"{self.decoder.spec.name} holds finished images, which take no time to make: leave it out")
        self._job, self._pinned, self._clock = job, pinned, clock
        self._latents: dict[int, Tensor] = {}
        self._decode: Callable[[], Tensor] | None = None
        self._first_calls: dict[tuple[Setting, int], float] = {}  # seconds
        self._recent = 0.0  # seconds of the last call that `_timed` timed

    def describe(self, resolution: int) -> Facts:
        """What the decoder says of itself, and its counts at a side in pixels."""
        latents = self._latents_of(resolution)[:1]
        return Facts(self.decoder.spec, count_work(self.decoder, latents, noise_for(self._job.seed, 1, self.device)))

    def ceilings(self, seconds: float) -> Ceilings:
        """The device's own limits, in about so many seconds."""
        return measure_ceilings(self.device, self.dtype, seconds=seconds)

    def idle_power(self) -> float | None:
        """Watts of the idle GPU."""
        return measure_idle_power(gpu_index(self.device))

    def _latents_of(self, resolution: int) -> Tensor:
        """Latents of the test images at a resolution, encoded once, outside everything that is timed."""
        if resolution not in self._latents:
            factor = self.decoder.spec.down_factor
            if resolution % factor:
                raise MsbenchError(f"resolution {resolution} is no multiple of this decoder's factor {factor}")
            pixels = photo_pixels(resolution)
            with torch.inference_mode():
                images = pixels.to(self.device).float() / 127.5 - 1.0
                self._latents[resolution] = self.decoder.encode(images)
                synchronise(self.device)
        return self._latents[resolution]

    def _call(self, setting: Setting, batch: int) -> Callable[[], Tensor]:
        decoder = in_mode(self.decoder, setting.mode, self.device)
        return decode_call(decoder, self._latents_of(setting.resolution), self._job.seed, batch)

    def prepare(self, setting: Setting, warm_up_seconds: float, largest: int) -> Prepared:
        """Make a setting ready: its first call, then a warm-up of limited time. The largest batch is sought from `largest`."""
        self.release()
        # Latents first: the first call's time is the decoder's alone.
        self._latents_of(setting.resolution)
        batch, note = self._largest(setting, largest) if setting.batch == "max" else (setting.batch, None)
        self._decode = self._call(setting, batch)
        first = self._first_calls.setdefault((setting, batch), self._timed())  # what is compiled stays so
        calls, settled = warm_up(self._timed, self.device, warm_up_seconds)
        return Prepared(batch, 1000.0 * first, 1000.0 * self._recent, calls + 1, settled, self._pinned, note)

    def _largest(self, setting: Setting, start: int) -> tuple[int, str | None]:
        """The last batch that decodes, from `start` in doublings, and what ended the search if not memory.

        Raises what the first one raises.
        """
        self._try(setting, start)
        while 2 * start <= LARGEST_BATCH:
            outcome = attempt(self._try, setting, 2 * start)
            if outcome.status != "ok":
                other = None if outcome.status == "out of memory" else f"batch {2 * start} {outcome.status}: {outcome.reason}"
                return start, other
            start *= 2
        return start, None

    def _try(self, setting: Setting, batch: int) -> None:
        timed_call(self._call(setting, batch), self.device)
        free_memory()

    def _ready(self) -> Callable[[], Tensor]:
        if self._decode is None:
            raise ValueError("no setting is prepared")
        return self._decode

    def _timed(self) -> float:
        self._recent = timed_call(self._ready(), self.device)
        return self._recent

    def _end_to_end(self) -> Tensor:
        return to_uint8(self._ready()()).cpu()

    def turn(self, calls: int, seconds: float) -> TurnTimes:
        """Time at most `calls` one by one in both scopes; none but the first starts after `seconds`.

        A CPU queues nothing, so one call there shows both scopes.
        """
        samples: dict[Scope, list[float]] = {scope: [] for scope in SCOPES}
        meter, begin = LoadMeter(), time.perf_counter()
        while not samples["decode"] or (len(samples["decode"]) < calls and time.perf_counter() - begin < seconds):
            if self.device.type == "cpu":
                start = time.perf_counter()
                images = self._ready()()
                middle = time.perf_counter()
                to_uint8(images).cpu()
                end = time.perf_counter()
                times = (middle - start, end - start)
            else:
                times = (self._timed(), timed_call(self._end_to_end, self.device))
            for scope, took in zip(SCOPES, times, strict=True):
                samples[scope].append(took)
        return TurnTimes(samples, meter.load())

    def back_to_back(self, calls: int, scope: Scope, own_pids: tuple[int, ...], idle_w: float | None) -> Burst:
        """Time calls without a pause, with one wait at the end; on a GPU energy is read meanwhile, of the scope `decode`.

        `own_pids` do not count as company on the GPU; `idle_w` is watts before the work.
        """
        call = self._end_to_end if scope == "end-to-end" else self._ready()

        def burst() -> float:
            synchronise(self.device)
            begin = time.perf_counter()
            for _ in range(calls):
                call()
            synchronise(self.device)
            return time.perf_counter() - begin

        if self.device.type != "cuda" or scope == "end-to-end":
            return Burst(calls, burst(), None)
        return Burst(calls, *watch_power(burst, gpu_index(self.device), own_pids=own_pids, idle_w=idle_w))

    def release(self) -> None:
        """Drop the setting's tensors and hand memory back."""
        self._decode = None
        free_memory()

    def fresh(self, setting: Setting, batch: int) -> Memory:
        """In a process that has done nothing else: cold start and memory of a setting at a batch."""
        begin = self._clock()
        self._latents_of(setting.resolution)
        encoding = self._clock() - begin
        self._decode = self._call(setting, batch)
        # A graph's memory is taken while it is recorded and held from then on, so the first call is the one to watch.
        peak = peak_memory_mb(self._decode, self.device) if setting.mode == "cudagraph" else None
        if peak is None:
            timed_call(self._decode, self.device)
        cold = self._clock() - self._job.started - encoding
        return Memory(1000.0 * cold, peak_memory_mb(self._decode, self.device) if peak is None else peak)
