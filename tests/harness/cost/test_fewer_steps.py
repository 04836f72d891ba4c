"""Times of many steps from a few: right where a step's time is constant, refused where it is not; the bound on one decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.cost.cost import Cost, CostProtocol, measure_cost
from harness.cost.fewer_steps import estimate_latency
from harness.cost.latency import Latency, latency_of
from harness.decoder import Decoder, DecoderSpec, NoiseSource
from harness.errors import MsbenchError

CPU = torch.device("cpu")
SPEC = DecoderSpec("steps", 1, 3, 50, 3, 9, None, None, "nothing")


class Steps:
    """Each step takes `step` seconds an image on a clock of its own; a decode takes `fixed` beside."""

    def __init__(self, count: int = 50, step: Callable[[int], float] = lambda index: 0.02, fixed: float = 0.0) -> None:
        self.spec = replace(SPEC, steps=count)
        self.step, self.fixed = step, fixed
        self.called: list[tuple[int, int]] = []
        self.now = [0.0]

    def clock(self) -> float:
        return self.now[0]

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        self.called.append((self.spec.steps, len(latents)))
        self.now[0] += self.fixed + len(latents) * sum(map(self.step, range(self.spec.steps)))
        for _ in range(self.spec.steps):
            latents = latents @ latents  # so that FLOPs are counted
        return latents

    def fewer(self, count: int) -> Decoder:
        shorter = Steps(count, self.step, self.fixed)
        shorter.called, shorter.now = self.called, self.now
        return shorter


def exact(gflops: Callable[[int], float | None], milliseconds: Callable[[int], float]) -> Callable[[int], Any]:
    def measure(steps: int) -> tuple[float | None, Latency]:
        seconds = milliseconds(steps) / 1000.0
        return gflops(steps), latency_of([0.99 * seconds, seconds, 1.01 * seconds], 1, False)

    return measure


def test_the_line_over_flops_gives_the_time_of_all_steps() -> None:
    """50 steps over three scales end with two more of the finer ones: FLOPs know it, the number of steps does not."""
    work = {3: 1.2, 6: 2.2, 9: 3.2, 50: 18.0}
    measure = exact(work.__getitem__, lambda steps: 7.0 + 10.0 * work[steps])
    latency, how = estimate_latency(SPEC, work[50], measure)
    assert latency.median_ms == pytest.approx(7.0 + 180.0)
    assert how == "from 3, 6 and 9 of 50 steps, on a line within 0.0 %"


def test_without_flops_the_line_runs_over_steps() -> None:
    latency, _ = estimate_latency(SPEC, None, exact(lambda steps: None, lambda steps: 5.0 + 2.0 * steps))
    assert latency.median_ms == pytest.approx(105.0)


@pytest.mark.parametrize(
    ("spec", "milliseconds", "words"),
    [
        (SPEC, lambda steps: float(steps**2), "not on one line"),
        (SPEC, lambda steps: 100.0 / steps, "not on one line"),
        (replace(SPEC, steps=18), float, "too few"),
    ],
)
def test_what_shows_no_constant_step_gives_no_estimate(
    spec: DecoderSpec, milliseconds: Callable[[int], float], words: str
) -> None:
    with pytest.raises(MsbenchError, match=words):
        estimate_latency(spec, None, exact(lambda steps: None, milliseconds))


def timed(decoder: Steps, seconds: float | None, fewer: Callable[[int], Decoder] | None) -> Cost:
    protocol = CostProtocol(batch_sizes=(1, 8), max_seconds=5.0, decoder_seconds=seconds)
    return measure_cost(decoder, torch.zeros(1, 1, 2, 2), 0, protocol, CPU, fewer=fewer, clock=decoder.clock)


def test_what_does_not_fit_is_estimated_and_said_so() -> None:
    decoder = Steps(fixed=0.01)
    cost = timed(decoder, 10.0, decoder.fewer)
    one, eight = cost.cells
    assert (one.status, one.estimated) == ("ok", None)
    assert one.latency is not None
    assert one.latency.median_ms == pytest.approx(1010.0)
    assert eight.status == "ok"
    assert eight.latency is not None
    assert eight.latency.median_ms == pytest.approx(10.0 + 8 * 1000.0)
    assert "from 3, 6 and 9 of 50 steps" in (eight.estimated or "")
    assert (50, 8) not in decoder.called


@pytest.mark.parametrize("fewer", [None, "refuses", "uneven"])
def test_without_an_estimate_it_is_skipped_with_the_reason(fewer: str | None) -> None:
    decoder = Steps(step=lambda index: 0.001 * index) if fewer == "uneven" else Steps()

    def refuse(steps: int) -> Decoder:
        raise MsbenchError("takes no steps")

    cost = timed(decoder, 10.0, {"refuses": refuse, "uneven": decoder.fewer}.get(fewer or ""))
    eight = cost.cells[1]
    assert (eight.status, eight.latency, eight.estimated) == ("skipped_budget", None, None)
    assert "--decoder-seconds 10" in (eight.reason or "")
    assert {"refuses": "takes no steps", "uneven": "not on one line"}.get(fewer or "", "") in (eight.reason or "")


def test_a_fast_decoder_is_measured_within_the_bound() -> None:
    decoder = Steps(count=1, step=lambda index: 0.001)
    cost = timed(decoder, 0.5, decoder.fewer)
    assert decoder.clock() < 0.5 + 0.02
    assert [cell.status for cell in cost.cells] == ["ok", "ok"]
    assert {steps for steps, _ in decoder.called} == {1}


def test_without_a_bound_everything_is_measured() -> None:
    decoder = Steps(step=lambda index: 0.0002)
    cost = timed(decoder, None, decoder.fewer)
    assert [(cell.status, cell.estimated) for cell in cost.cells] == [("ok", None)] * 2
    assert {steps for steps, _ in decoder.called} == {50}


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bound_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(MsbenchError, match="positive number"):
        CostProtocol(decoder_seconds=seconds)
