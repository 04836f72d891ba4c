"""The bench inside a worker, without its process: what is encoded, what is timed, how the largest batch is found."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.cost.attempt import UnsupportedModeError, attempt
from harness.decoder import DecoderOptions, DecoderSpec, NoiseSource
from harness.errors import MsbenchError
from harness.request import requests
from harness.request.requests import DecoderRequest
from harness.speed.bench import Bench, photo_pixels
from harness.speed.messages import Job, Memory, Prepared
from harness.speed.protocol import Batch, Setting

CPU = torch.device("cpu")


class Counting:
    """Keeps the batches it saw; above `room` images memory runs out."""

    def __init__(self, room: int = 1000) -> None:
        self.spec = DecoderSpec("counting", 8, 3, 1, 1, 0, None, None, "nothing")
        self.room = room
        self.error: Exception = torch.OutOfMemoryError("no room")
        self.encoded: list[tuple[int, ...]] = []
        self.decoded: list[int] = []
        self.drawn: list[Tensor] = []

    def encode(self, images: Tensor) -> Tensor:
        assert -1.0 <= float(images.min()) < float(images.max()) <= 1.0
        self.encoded.append(tuple(images.shape))
        return images[:, :, ::8, ::8]

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        self.decoded.append(len(latents))
        if len(latents) > self.room:
            raise self.error
        self.drawn.append(noise.normal((2,), 0))
        return latents.repeat_interleave(8, -1).repeat_interleave(8, -2)


def make(monkeypatch: pytest.MonkeyPatch, decoder: Counting, clock: Any = None) -> Bench:
    def build(name: str, options: DecoderOptions) -> Counting:
        assert (name, options.device, options.dtype, options.steps) == ("counting", CPU, torch.bfloat16, 5)
        return decoder

    monkeypatch.setattr(requests, "build_decoder", build)
    job = Job(DecoderRequest("counting@steps=5", "counting", steps=5), "cpu", "bf16", None, "", 0, 100.0)
    return Bench(job, True, clock) if clock else Bench(job, True)


def prepare(bench: Bench, batch: Batch, largest: int = 1) -> Prepared:
    return bench.prepare(Setting(64, "eager", batch), 0.001, largest)


def test_images_are_encoded_once_and_repeated_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Counting()
    bench = make(monkeypatch, decoder)
    facts = bench.describe(64)
    assert (facts.spec, facts.work.gflops) == (decoder.spec, None)
    prepared = prepare(bench, 6)
    assert (prepared.batch, prepared.pinned) == (6, True)
    samples = bench.turn(3, 60.0)
    assert decoder.encoded == [(4, 3, 64, 64)]
    assert decoder.decoded == [1] + [6] * (1 + prepared.warmup_calls - 1 + 3)
    assert samples.load.seconds > 0
    samples = samples.seconds
    assert [len(samples[scope]) for scope in ("decode", "end-to-end")] == [3, 3]
    assert all(0 < a <= b for a, b in zip(samples["decode"], samples["end-to-end"], strict=True))
    # Six samples, six streams of noise, the same in every call.
    assert torch.equal(decoder.drawn[1], decoder.drawn[-1])
    assert len(decoder.drawn[-1].unique(dim=0)) == 6
    burst = bench.back_to_back(4, "end-to-end", (), None)
    assert (burst.calls, burst.power) == (4, None)
    assert burst.seconds > 0
    bench.release()
    with pytest.raises(ValueError, match="no setting"):
        bench.turn(1, 1.0)


def test_a_turn_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make(monkeypatch, Counting())
    prepare(bench, 1)
    assert len(bench.turn(10, 0.0).seconds["decode"]) == 1


@pytest.mark.parametrize(("room", "start", "found"), [(12, 1, 8), (12, 8, 8), (16, 8, 16), (3, 3, 3)])
def test_the_largest_batch_is_found_by_doubling(room: int, start: int, found: int, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Counting(room)
    bench = make(monkeypatch, decoder)
    bench.describe(64)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    bench.device = SimpleNamespace(type="cuda", index=0)  # type: ignore[assignment]
    prepared = prepare(bench, "max", start)
    assert (prepared.batch, prepared.note) == (found, None)
    decoder.error = RuntimeError("CUDA error: illegal address")  # the size that fitted stays
    prepared = prepare(bench, "max", start)
    assert (prepared.batch, prepared.note) == (found, f"batch {2 * found} failed: RuntimeError: CUDA error: illegal address")
    assert attempt(lambda: prepare(bench, "max", 2 * found)).status == "failed"
    decoder.room, decoder.error = 0, torch.OutOfMemoryError("no room")
    assert attempt(lambda: prepare(bench, "max", start)).status == "out of memory"


def test_cold_start_leaves_encoding_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started at 100 s; at 103 encoding begins, at 107 it ends, at 112 the first images are there."""
    times = iter([103.0, 107.0, 112.0])
    bench = make(monkeypatch, Counting(), lambda: next(times))
    memory = bench.fresh(Setting(64, "eager", 2), 2)
    assert isinstance(memory, Memory)
    assert memory.cold_ms == pytest.approx(1000.0 * (112 - 100 - 4))


def test_a_resolution_the_decoder_cannot_take_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make(monkeypatch, Counting())
    with pytest.raises(MsbenchError, match="no multiple of this decoder's factor 8"):
        bench.describe(100)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory", "OutOfMemoryError: CUDA out of memory"),
        (MemoryError(), "out of memory", "MemoryError: "),
        (UnsupportedModeError("not here"), "unsupported", "not here"),
        (SystemExit(0), "failed", "SystemExit: 0"),
        (MsbenchError("no\n  weights"), "failed", "no weights"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
        (ValueError("y" * 1000), "failed", "ValueError: " + "y" * 288 + "…"),
    ],
)
def test_every_error_is_a_recorded_status(error: BaseException, status: str, reason: str) -> None:
    def call() -> None:
        raise error

    reply = attempt(call)
    assert (reply.status, reply.reason, reply.value) == (status, reason, None)
    assert reply.for_users == isinstance(error, MsbenchError)


def test_memory_that_ran_out_in_a_compiler_is_memory_that_ran_out() -> None:
    def call() -> None:
        raise RuntimeError("backend failed") from torch.OutOfMemoryError("CUDA out of memory")

    assert attempt(call).status == "out of memory"


def test_above_the_largest_crop_photographs_are_repeated() -> None:
    pixels, crops = photo_pixels(640), photo_pixels(256)
    assert pixels.shape == (len(crops), 3, 640, 640)
    assert torch.equal(pixels[..., 256:512, :256], crops)
    assert torch.equal(pixels[..., 512:, 512:], crops[..., :128, :128])
