"""Times of many steps from a few: right where a step's time is constant, refused where it is not; the bound on one decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.cost.cost import Cost, CostProtocol, measure_cost
from harness.cost.fewer_steps import LEAST_TURNS, ShortDecodes
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


def short(
    milliseconds: Callable[[int], float],
    gflops: Callable[[int], float | None] = lambda steps: None,
    spec: DecoderSpec = SPEC,
    noise: Callable[[], float] = lambda: 1.0,
) -> tuple[ShortDecodes, list[int]]:
    """Decodes whose times are made up, and the steps of each call in turn."""
    calls: list[int] = []

    def timed(decoder: Decoder, batch_size: int) -> Callable[[], float]:
        def call() -> float:
            calls.append(decoder.spec.steps)
            return batch_size * milliseconds(decoder.spec.steps) / 1000.0 * noise()

        return call

    whole = milliseconds(spec.steps) / 1000.0
    return ShortDecodes(spec, gflops(50), Steps, lambda one: gflops(one.spec.steps), timed, whole), calls


def test_the_line_over_flops_gives_the_time_of_all_steps() -> None:
    """50 steps over three scales end with two more of the finer ones: FLOPs know it, the number of steps does not."""
    work = {3: 1.2, 6: 2.2, 9: 3.2, 50: 18.0}
    decodes, calls = short(lambda steps: 7.0 + 10.0 * work[steps], work.__getitem__)
    latency, how = decodes.latency(1, 1.0)
    assert latency.median_ms == pytest.approx(7.0 + 180.0)
    assert how == "from 3, 6 and 9 of 50 steps, give or take 0 %"
    assert calls == [3, *[3, 6, 9] * 3]  # in turns, and three of them say all there is to say


def test_without_flops_the_line_runs_over_steps() -> None:
    decodes, _ = short(lambda steps: 5.0 + 2.0 * steps)
    assert decodes.latency(8, 1.0)[0].median_ms == pytest.approx(8 * 105.0)


@pytest.mark.parametrize(
    ("growth", "words"),
    [(1.0, "not on one line"), (0.1, "a step's time is not constant"), (0.02, "a step's time is not constant")],
)
def test_a_step_that_costs_more_than_the_one_before_gives_no_estimate(growth: float, words: str) -> None:
    decodes, _ = short(lambda steps: sum(10.0 * (1.0 + growth * index) for index in range(steps)))
    with pytest.raises(MsbenchError, match=words):
        decodes.latency(8, 1.0)


def test_times_that_fall_with_the_steps_give_no_estimate() -> None:
    decodes, _ = short(lambda steps: 100.0 / steps)
    with pytest.raises(MsbenchError, match="not on one line"):
        decodes.latency(1, 1.0)


def test_few_steps_are_left_as_they_are() -> None:
    with pytest.raises(MsbenchError, match="18 steps are too few for an estimate from 9"):
        short(float, spec=replace(SPEC, steps=18))


@pytest.mark.parametrize("seed", range(10))
def test_calls_that_scatter_are_timed_more_often_until_they_tell(seed: int) -> None:
    """One call in seven takes twice as long, the others differ by 5 %: two calls a point were refused four times in six."""
    generator = np.random.default_rng(seed)

    def noise() -> float:
        return float(generator.lognormal(0.0, 0.05)) * (2.0 if generator.random() < 1.0 / 7.0 else 1.0)

    decodes, calls = short(lambda steps: 2.0 + 10.0 * steps, noise=noise)
    latency, _ = decodes.latency(8, 60.0)
    assert latency.median_ms == pytest.approx(8 * 502.0, rel=0.2)
    assert len(calls) > 2 + 2 * 3 * LEAST_TURNS
    growing, _ = short(lambda steps: sum(10.0 * (1.0 + 0.1 * index) for index in range(steps)), noise=noise)
    with pytest.raises(MsbenchError, match=r"a step's time|not on one line|scatter"):
        growing.latency(8, 60.0)


def test_what_scatters_too_much_is_told_so_and_time_is_bounded() -> None:
    factors = cycle([1.0, 3.0, 0.4, 1.0, 0.3, 2.0, 2.5, 1.0])
    decodes, calls = short(lambda steps: 10.0 * steps, noise=lambda: next(factors))
    with pytest.raises(MsbenchError, match=r"scatter too much|not on one line"):
        decodes.latency(1, 0.1)
    assert len(calls) <= 1 + 3 * LEAST_TURNS


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
