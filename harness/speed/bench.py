"""One decoder on its bench: latents of real images, one setting at a time, every call timed. Runs inside a worker."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.cost.cost import decode_call, is_out_of_memory
from harness.cost.flops import count_work
from harness.cost.latency import synchronise, timed_call, warm_up
from harness.cost.memory import peak_memory_mb
from harness.cost.modes import UnsupportedModeError, in_mode
from harness.cost.power import PowerMonitor, measure_idle_power
from harness.cost.roofline import Ceilings, measure_ceilings
from harness.data.dataset import Dataset
from harness.data.registry import open_dataset
from harness.decoder import Decoder, DecoderOptions
from harness.errors import MsbenchError
from harness.noise import SampleNoise
from harness.registry import build_decoder
from harness.run.config import DTYPES
from harness.run.reconstruct import to_uint8
from harness.speed.messages import (
    BackToBack,
    Describe,
    Facts,
    Fresh,
    Job,
    Measure,
    Memory,
    Prepare,
    Prepared,
    Release,
    Request,
    Row,
    Turn,
)
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

    def __init__(self, job: Job, pinned: bool, clock: Callable[[], float] = time.monotonic) -> None:
        who = job.contestant
        self.device = torch.device(job.device)
        self.dtype = DTYPES[job.dtype]
        options = DecoderOptions(self.device, self.dtype, who.checkpoint, who.steps, who.scales, who.weights, who.preset)
        self.decoder = build_decoder(who.name, options)
        self._job, self._pinned, self._clock = job, pinned, clock
        self._latents: dict[int, Tensor] = {}
        self._decode: Callable[[], Tensor] | None = None
        self._recent = 0.0  # seconds of the last call that `_timed` timed

    def handle(self, request: Request) -> Any:
        """Do what is asked for; see `messages`."""
        answers: dict[type, Callable[[Any], Any]] = {
            Describe: self._describe,
            Prepare: self._prepare,
            Turn: self._turn,
            BackToBack: self._back_to_back,
            Measure: self._measure,
            Release: lambda _: self._release(),
            Fresh: self._fresh,
        }
        return answers[type(request)](request)

    def _describe(self, request: Describe) -> Facts:
        latents = self._latents_of(request.resolution)
        return Facts(self.decoder.spec, count_work(self.decoder, latents[:1], self._noise(1)))

    def _measure(self, request: Measure) -> Ceilings | float | None:
        if request.what == "ceilings":
            return measure_ceilings(self.device, self.dtype, seconds=request.seconds)
        return measure_idle_power(self._gpu(), seconds=request.seconds) if self.device.type == "cuda" else None

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

    def _noise(self, batch: int) -> SampleNoise:
        return SampleNoise.for_samples(self._job.seed, [f"speed-{index}" for index in range(batch)], self.device)

    def _call(self, decoder: Decoder, resolution: int, batch: int) -> Callable[[], Tensor]:
        return decode_call(decoder, self._latents_of(resolution), self._noise, batch)

    def _in_mode(self, setting: Setting) -> Decoder:
        if setting.mode == "compile":
            torch.compiler.reset()  # what other shapes left would turn static shapes into dynamic ones
        return in_mode(self.decoder, setting.mode, self.device)

    def _prepare(self, request: Prepare) -> Prepared:
        self._release()
        setting = request.setting
        # Latents first: the first call's time is the decoder's alone.
        self._latents_of(setting.resolution)
        batch = self._largest(setting, request.largest) if setting.batch == "max" else setting.batch
        self._decode = self._call(self._in_mode(setting), setting.resolution, batch)
        first = self._timed()
        calls, settled = warm_up(self._timed, self.device, request.warm_up_seconds)
        return Prepared(batch, 1000.0 * first, 1000.0 * self._recent, calls + 1, settled, self._pinned)

    def _largest(self, setting: Setting, start: int) -> int:
        """The last batch that decodes, from `start` in doublings; raises what the first one raises."""
        if self.device.type != "cuda":
            raise UnsupportedModeError("the largest batch is sought on GPUs only: a CPU shares its memory with everything else")
        fits = 0
        batch = start
        while self._fits(setting, batch, must=batch == start):
            fits, batch = batch, 2 * batch
        return fits

    def _fits(self, setting: Setting, batch: int, must: bool) -> bool:
        try:
            call = self._call(self._in_mode(setting), setting.resolution, batch)
            timed_call(call, self.device)
        except (MemoryError, RuntimeError) as error:
            if must or not is_out_of_memory(error):
                raise
            fits = False
        else:
            fits = True
            del call
        self._release()
        return fits

    def _ready(self) -> Callable[[], Tensor]:
        if self._decode is None:
            raise ValueError("no setting is prepared")
        return self._decode

    def _timed(self) -> float:
        self._recent = timed_call(self._ready(), self.device)
        return self._recent

    def _end_to_end(self) -> Tensor:
        return to_uint8(self._ready()()).cpu()

    def _turn(self, request: Turn) -> dict[Scope, list[float]]:
        """Seconds of each call in both scopes. A CPU queues nothing, so one call there shows both."""
        samples: dict[Scope, list[float]] = {scope: [] for scope in SCOPES}
        begin = time.perf_counter()
        while not samples["decode"] or (
            len(samples["decode"]) < request.calls and time.perf_counter() - begin < request.seconds
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
        return samples

    def _back_to_back(self, request: BackToBack) -> Row:
        call = self._end_to_end if request.end_to_end else self._ready()

        def row() -> float:
            synchronise(self.device)
            begin = time.perf_counter()
            for _ in range(request.calls):
                call()
            synchronise(self.device)
            return time.perf_counter() - begin

        if self.device.type != "cuda" or request.end_to_end:
            return Row(request.calls, row(), None)
        with PowerMonitor(self._gpu(), own_pids=request.own_pids, idle_w=request.idle_w) as monitor:
            seconds = row()
        return Row(request.calls, seconds, monitor.report)

    def _gpu(self) -> int:
        return torch.cuda.current_device() if self.device.index is None else self.device.index

    def _release(self) -> None:
        self._decode = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _fresh(self, request: Fresh) -> Memory:
        setting = request.setting
        if setting.batch == "max":
            raise ValueError("a fresh process is told its batch")
        begin = self._clock()
        self._latents_of(setting.resolution)
        encoding = self._clock() - begin
        self._decode = self._call(self._in_mode(setting), setting.resolution, setting.batch)
        if setting.mode == "cudagraph":
            # A graph's memory is taken while it is recorded and held from then on, so the first call is the one to watch.
            peak = peak_memory_mb(self._decode, self.device)
            cold = self._clock() - self._job.started - encoding
        else:
            timed_call(self._decode, self.device)
            cold = self._clock() - self._job.started - encoding
            peak = peak_memory_mb(self._decode, self.device)
        return Memory(1000.0 * cold, peak)
