"""The time of a decode of many steps from decodes of a few, once a step's time is shown to be constant."""

from __future__ import annotations

from collections.abc import Callable

from harness.cost.latency import Latency, latency_of
from harness.decoder import Decoder, DecoderSpec
from harness.errors import MsbenchError

FewerSteps = Callable[[int], Decoder]
"""Gives the same decoder with so many steps"""
TOLERANCE = 0.1
"""how far, relative, the middle one of three times may lie from the line through the outer ones"""
_SWEEPS = (1, 2, 3)  # steps at every scale


def estimate_latency(
    spec: DecoderSpec, gflops: float | None, measure: Callable[[int], tuple[float | None, Latency]]
) -> tuple[Latency, str]:
    """Latency of a decode of all steps, on the line through decodes of one to three steps a scale, and one line that says so.

    The line runs over counted FLOPs, since steps of different scales differ in cost; over steps where nothing is counted.

    Args:
        spec: of the decoder with all its steps.
        gflops: counted of it.
        measure: GFLOPs and latency with so many steps.

    Raises:
        MsbenchError: it has too few steps for that, takes no other number, or the three times are not on one line.
    """
    steps = [sweeps * spec.scales for sweeps in _SWEEPS]
    if spec.steps <= 2 * steps[-1]:
        raise MsbenchError(f"{spec.steps} steps are too few for an estimate from {steps[-1]}")
    counted, latencies = zip(*map(measure, steps), strict=True)
    told = gflops and all(counted) and counted[0] < counted[-1]
    whole, *work = (gflops, *counted) if told else (spec.steps, *steps)
    first, middle, last = (one.median_ms for one in latencies)
    slope = (last - first) / (work[2] - work[0])
    off = abs(middle - first - slope * (work[1] - work[0])) / middle
    if slope <= 0 or off > TOLERANCE:
        raise MsbenchError(f"times of {steps} steps are not on one line: {first:.4g}, {middle:.4g}, {last:.4g} ms")
    longest = latencies[-1]
    seconds = [(sample + slope * (whole - work[2])) / 1000.0 for sample in longest.samples_ms]
    how = f"from {steps[0]}, {steps[1]} and {steps[2]} of {spec.steps} steps, on a line within {100 * off:.1f} %"
    return latency_of(seconds, longest.warmup_calls, longest.settled, longest.load), how
