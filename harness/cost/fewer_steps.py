"""The time of a decode of many steps from decodes of a few, once a step's time is shown to be constant.

Decodes of one, two and three steps a scale are timed in turns, so that drift of the machine hits them alike. The medians of the
turns lie on a line where every step takes the same time, and the time of all steps lies on it too; one call of all steps on one
image shows that it does. The line runs over counted FLOPs, since steps of different scales differ in cost; over steps where
nothing is counted. How far from a line is too far follows the scatter that was seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from harness.cost.latency import Latency, latency_of
from harness.cost.load import Load, LoadMeter
from harness.decoder import Decoder, DecoderSpec
from harness.errors import MsbenchError

FewerSteps = Callable[[int], Decoder]
"""Gives the same decoder with so many steps"""
LEAST_TURNS, MOST_TURNS = 3, 12
SLACK = 0.1
"""relative deviation from the line that counts as none, beside two standard errors"""
CLEAR, SURE = 0.03, 0.2
"""relative standard error of an estimate that needs no further turn, and one that is no estimate any more"""
_SWEEPS = (1, 2, 3)  # steps at every scale
_DEVIATION, _OF_MEDIAN = 1.4826, 1.2533  # of normal values: σ over the median deviation; error of a median over that of a mean


class ShortDecodes:
    """A decoder with fewer steps, timed in place of the one with all of them.

    Args:
        spec: of the decoder with all its steps.
        gflops: counted of it; None where nothing is.
        fewer: gives the same decoder with so many steps.
        counted: GFLOPs of one of them.
        timed: (decoder, images) -> what does one call and gives its seconds.
        whole: seconds of one call with all steps on one image.

    Raises:
        MsbenchError: it has too few steps for that to save anything, or takes no other number.
    """

    def __init__(
        self,
        spec: DecoderSpec,
        gflops: float | None,
        fewer: FewerSteps,
        counted: Callable[[Decoder], float | None],
        timed: Callable[[Decoder, int], Callable[[], float]],
        whole: float,
    ) -> None:
        self.spec, self.whole, self._timed = spec, whole, timed
        self.steps = tuple(sweeps * spec.scales for sweeps in _SWEEPS)
        if spec.steps <= 2 * self.steps[-1]:
            raise MsbenchError(f"{spec.steps} steps are too few for an estimate from {self.steps[-1]}")
        self._decoders = [fewer(count) for count in self.steps]
        work = [counted(one) or 0.0 for one in self._decoders]
        known = gflops and 0.0 < work[0] < work[-1]
        self._work = [*work, gflops or 0.0] if known else [*map(float, self.steps), float(spec.steps)]

    def latency(self, batch_size: int, seconds: float) -> tuple[Latency, str]:
        """Latency of a decode of all steps, and one line that says what it follows from.

        Args:
            batch_size: images a call.
            seconds: no further turn starts after so long, twice as long where the calls show no constant step yet, once there
                were `LEAST_TURNS`.

        Raises:
            MsbenchError: the calls show no constant step, or too little to tell.
        """
        found, load = self._in_turns(1, seconds if batch_size == 1 else seconds / 4.0, self.whole)
        if batch_size > 1:
            found, load = self._in_turns(batch_size, seconds, None)
        first, second, third = self.steps
        how = f"from {first}, {second} and {third} of {self.spec.steps} steps, give or take {200 * found.error:.0f} %"
        return latency_of(found.seconds, 1, False, load), how

    def _in_turns(self, batch_size: int, seconds: float, whole: float | None) -> tuple[Estimate, Load]:
        calls = [self._timed(one, batch_size) for one in self._decoders]
        calls[0]()  # what is set up once
        meter, turns = LoadMeter(), list[list[float]]()
        while True:
            turns.append([call() for call in calls])
            if len(turns) < LEAST_TURNS:
                continue
            found, spent = on_a_line(self._work, list(zip(*turns, strict=True))), sum(map(sum, turns))
            problem = found.problem(whole)
            if not problem and (found.error <= CLEAR or len(turns) >= MOST_TURNS or spent >= seconds):
                return found, meter.load()
            if problem and (len(turns) >= MOST_TURNS or spent >= 2.0 * seconds):
                raise MsbenchError(problem)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of a decode of all steps."""

    seconds: tuple[float, ...]
    """as the call of the most steps in each turn has it; their median is the estimate"""
    error: float
    """relative standard error of the estimate"""
    bend: float
    """relative deviation of the middle number of steps from the line through the others"""
    bend_error: float
    """standard error of that"""

    def problem(self, whole: float | None) -> str | None:
        """Why this shows no constant step, or too little to tell; `whole`: seconds of a call with all steps, if known."""
        value = median(self.seconds)
        if self.bend > SLACK + 2.0 * self.bend_error or self.error == math.inf:
            return f"times of fewer steps are not on one line, off by {100 * self.bend:.0f} %"
        if self.error > SURE:
            return f"times of fewer steps scatter too much, by {200 * self.error:.0f} % of what follows from them"
        if whole and abs(value - whole) > (1.5 * SLACK + 2.0 * self.error) * whole:
            shown = f"{1000.0 * value:.4g} ms for all, not the {1000.0 * whole:.4g} they take"
            return f"a step's time is not constant: fewer steps say {shown}"
        return None


def on_a_line(work: Sequence[float], samples: Sequence[Sequence[float]]) -> Estimate:
    """The estimate from seconds of each turn, [3] numbers of steps × [turns], and the work of these and of all steps."""
    turns, (first, middle, last) = len(samples[0]), map(median, samples)
    off = [abs(value / median(one) - 1.0) for one in samples for value in one]
    scatter = _DEVIATION * median(sorted(off)[3:])  # three values are the medians themselves; a slow call now and then is none
    error = _OF_MEDIAN * scatter / math.sqrt(turns)  # relative, of each median
    between, reach = (work[1] - work[0]) / (work[2] - work[0]), (work[3] - work[2]) / (work[2] - work[0])
    gain = reach * (last - first)
    return Estimate(
        tuple(value + gain for value in samples[-1]),
        error * math.hypot((1.0 + reach) * last, reach * first) / (last + gain) if last > first else math.inf,
        abs(middle - first - between * (last - first)) / middle,
        error * math.hypot(middle, (1.0 - between) * first, between * last) / middle,
    )
