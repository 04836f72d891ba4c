"""Reported numbers: which conventions give them, and which one way of making the images gives them all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from harness.errors import MsbenchError, UnknownNameError
from harness.explain.explanation import Explanation
from harness.explain.registry import METRICS
from harness.metrics.metric import Tolerance
from harness.metrics.registry import METRICS as MEASURED

PROTOCOL = "the protocol"
"""name of the run's own way"""
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,2})?")
_EXACT = Tolerance(0.0, 0.0, "")


@dataclass(frozen=True, slots=True)
class Match:
    """What a reported number fits."""

    metric: str
    """name of the metric"""
    printed: str
    """the number as printed"""
    within: float
    """half a unit of its last digit"""
    names: tuple[str, ...]
    """conventions whose value rounds to it; the protocol's own first"""
    settings: tuple[str, ...]
    """ways of making the images that they are of; `PROTOCOL` for the run's own"""
    nearest: tuple[str, float] | None
    """where none fits: the nearest one and its value, which is no match"""
    refused: str
    """why nothing was held against it; empty where something was"""

    def __str__(self) -> str:
        what = f"{self.metric} {self.printed} (± {self.within:g})"
        if self.names:
            return f"{what} matches: {'; '.join(self.names)}"
        if self.refused or self.nearest is None:
            return f"{what} is not compared: {self.refused or 'nothing was computed'}"
        return f"{what} matches none; the nearest, not a match: {self.nearest[0]}, {self.nearest[1]:.5g}"


def parse_reported(text: str) -> tuple[str, str]:
    """NAME=VALUE: the metric's name and the number as printed.

    Raises:
        UnknownNameError: no such metric.
        MsbenchError: not of this form, or not a number.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not _NUMBER.fullmatch(value):
        raise MsbenchError(f"--reported {text}: give NAME=VALUE as printed, such as rfid=2.2")
    if name not in METRICS:
        raise UnknownNameError("metric", name, METRICS)
    return name, value


def match(found: Explanation, metric: str, printed: str, images: int | None = None) -> Match:
    """Hold a reported number against every convention of its metric.

    A convention matches within half a unit of the last printed digit and the metric's own arithmetic error: the gate's measured
    tolerance (`Metric.tolerance`), ten times the largest difference that batch sizes, threads and instruction sets made.

    Args:
        found: values of the conventions.
        metric, printed: the number, as `parse_reported` gives it.
        images: how many images it is of; None = as many as the run. An rFID of another number is compared with none.
    """
    number, images = Decimal(printed), images or found.n
    reported, half = float(number), 0.5 * 10.0 ** int(number.as_tuple().exponent)
    own = found.protocol.get(metric)
    known = [] if own is None else [(PROTOCOL, PROTOCOL, own, 1.0, found.n)]
    for one in found.findings:
        way = one.convention
        if way.metric == metric and one.value is not None:
            known.append((way.name, way.setting or PROTOCOL, one.value, way.scale, way.images or found.n))
    fit = [one for one in known if metric != "rfid" or one[-1] == images]
    refused = ""
    if known and not fit:
        refused = f"it is of {images:,} images, the run of {found.n:,}: rFID of another number of images cannot be compared"
    tolerance = MEASURED[metric].tolerance or _EXACT
    hits = [one for one in fit if abs(one[2] - reported) <= half + one[3] * tolerance.amount(one[2] / one[3])]
    near = None if hits else min(fit, key=lambda one: abs(one[2] - reported), default=None)
    names, settings = tuple(one[0] for one in hits), tuple(dict.fromkeys(one[1] for one in hits))
    return Match(metric, printed, half, names, settings, near and (near[0], near[2]), refused)


def joint(matches: Sequence[Match]) -> tuple[str, ...]:
    """Ways of making the images under which every reported number matches: each explains them all.

    The run's own images are `PROTOCOL`; there each metric may follow a convention of its own.
    """
    everything = [one.settings for one in matches]
    return tuple(one for one in everything[0] if all(one in other for other in everything)) if everything else ()
