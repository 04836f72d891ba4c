"""One decoder on its bench: latents of real images, one setting at a time, every call timed. Runs inside a worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.cost.attempt import UnsupportedModeError, attempt, free_memory
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
from harness.decoder import DecoderOptions
from harness.errors import MsbenchError
from harness.registry import build_decoder
from harness.run.config import DTYPES
from harness.run.reconstruct import to_uint8
from harness.speed import messages as m
from harness.speed.protocol import SCOPES, Scope, Setting

PHOTOS = 4
"""images of the built-in demo set whose latents are decoded, in turn"""


def open_photos(resolution: int) -> Dataset:
    """The images whose latents are decoded; raises `MsbenchError` where no built-in photograph is that large."""
    return open_dataset("photos", data_dir=None, resolution=resolution, max_samples=PHOTOS, seed=0)


class Bench:
    """A decoder and, once prepared, one setting of it.

    Args:
        job: who and where.
        pinned: the process is bound to its cores.
        clock: seconds since the same zero as `job.started`.

    Raises whatever building the decoder raises.
    """

    def __init__(self, job: m.Job, pinned: bool, clock: Callable[[], float] = time.monotonic) -> None:
        who = job.contestant
        self.device = torch.device(job.device)
        self.dtype = DTYPES[job.dtype]
        options = DecoderOptions(self.device, self.dtype, who.checkpoint, who.steps, who.scales, who.weights, who.preset)
        self.decoder = build_decoder(who.name, options)
        self._job, self._pinned, self._clock = job, pinned, clock
        self._latents: dict[int, Tensor] = {}
        self._decode: Callable[[], Tensor] | None = None
        self._recent = 0.0  # seconds of the last call that `_timed` timed

    def handle(self, message: m.Message) -> Any:
        """Do what is asked for; see `messages`."""
        answers: dict[type, Callable[[Any], Any]] = {
            m.Describe: self._describe,
            m.Prepare: self._prepare,
            m.Turn: self._turn,
            m.BackToBack: self._back_to_back,
            m.Measure: self._measure,
            m.Release: lambda _: self._release(),
            m.Fresh: self._fresh,
        }
        return answers[type(message)](message)

    def _describe(self, message: m.Describe) -> m.Facts:
        latents = self._latents_of(message.resolution)[:1]
        return m.Facts(self.decoder.spec, count_work(self.decoder, latents, noise_for(self._job.seed, 1, self.device)))

    def _measure(self, message: m.Measure) -> Ceilings | float | None:
        if message.what == "ceilings":
            return measure_ceilings(self.device, self.dtype, seconds=message.seconds)
        on_gpu = self.device.type == "cuda"
        return measure_idle_power(gpu_index(self.device), seconds=message.seconds) if on_gpu else None

    def _latents_of(self, resolution: int) -> Tensor:
        """Latents of the test images at a resolution, encoded once, outside everything that is timed."""
        if resolution not in self._latents:
            factor = self.decoder.spec.down_factor
            if resolution % factor:
                raise MsbenchError(f"resolution {resolution} is no multiple of this decoder's factor {factor}")
            dataset = open_photos(resolution)
            pixels = torch.stack([torch.from_numpy(example.image).permute(2, 0, 1) for example in dataset])
            with torch.inference_mode():
                images = pixels.to(self.device).float() / 127.5 - 1.0
                self._latents[resolution] = self.decoder.encode(images)
                synchronise(self.device)
        return self._latents[resolution]

    def _call(self, setting: Setting, batch: int) -> Callable[[], Tensor]:
        decoder = in_mode(self.decoder, setting.mode, self.device)
        return decode_call(decoder, self._latents_of(setting.resolution), self._job.seed, batch)

    def _prepare(self, message: m.Prepare) -> m.Prepared:
        self._release()
        setting, note = message.setting, None
        # Latents first: the first call's time is the decoder's alone.
        self._latents_of(setting.resolution)
        if setting.batch == "max":
            batch, note = self._largest(setting, message.largest)
        else:
            batch = setting.batch
        self._decode = self._call(setting, batch)
        first = self._timed()
        calls, settled = warm_up(self._timed, self.device, message.warm_up_seconds)
        return m.Prepared(batch, 1000.0 * first, 1000.0 * self._recent, calls + 1, settled, self._pinned, note)

    def _largest(self, setting: Setting, start: int) -> tuple[int, str | None]:
        """The last batch that decodes, from `start` in doublings, and what ended the search if not memory.

        Raises what the first one raises.
        """
        if self.device.type != "cuda":
            raise UnsupportedModeError("the largest batch is sought on GPUs only: a CPU shares its memory with everything else")
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

    def _turn(self, message: m.Turn) -> m.TurnTimes:
        """Seconds of each call in both scopes. A CPU queues nothing, so one call there shows both."""
        samples: dict[Scope, list[float]] = {scope: [] for scope in SCOPES}
        meter, begin = LoadMeter(), time.perf_counter()
        while not samples["decode"] or (
            len(samples["decode"]) < message.calls and time.perf_counter() - begin < message.seconds
        ):
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
        return m.TurnTimes(samples, meter.load())

    def _back_to_back(self, message: m.BackToBack) -> m.Burst:
        call = self._end_to_end if message.end_to_end else self._ready()

        def burst() -> float:
            synchronise(self.device)
            begin = time.perf_counter()
            for _ in range(message.calls):
                call()
            synchronise(self.device)
            return time.perf_counter() - begin

        if self.device.type != "cuda" or message.end_to_end:
            return m.Burst(message.calls, burst(), None)
        seconds, report = watch_power(burst, gpu_index(self.device), own_pids=message.own_pids, idle_w=message.idle_w)
        return m.Burst(message.calls, seconds, report)

    def _release(self) -> None:
        self._decode = None
        free_memory()

    def _fresh(self, message: m.Fresh) -> m.Memory:
        setting = message.setting
        if setting.batch == "max":
            raise ValueError("a fresh process is told its batch")
        begin = self._clock()
        self._latents_of(setting.resolution)
        encoding = self._clock() - begin
        self._decode = self._call(setting, setting.batch)
        # A graph's memory is taken while it is recorded and held from then on, so the first call is the one to watch.
        peak = peak_memory_mb(self._decode, self.device) if setting.mode == "cudagraph" else None
        if peak is None:
            timed_call(self._decode, self.device)
        cold = self._clock() - self._job.started - encoding
        return m.Memory(1000.0 * cold, peak_memory_mb(self._decode, self.device) if peak is None else peak)
