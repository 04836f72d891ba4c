"""Reported numbers: which conventions give them, and which one setting gives them all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from harness.errors import MsbenchError, UnknownNameError
from harness.explain.convention import Convention
from harness.explain.explanation import Explanation
from harness.explain.registry import METRICS
from harness.metrics.registry import METRICS as MEASURED

PROTOCOL = "the protocol"
"""name of the run's own way"""
_NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][-+]?\d+)?|-?\.\d+([eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Reported:
    """A number as a paper prints it."""

    metric: str
    """name of the metric"""
    text: str
    """as printed"""
    value: float
    """the number"""
    half: float
    """half a unit of its last printed digit"""


@dataclass(frozen=True, slots=True)
class Match:
    """What a reported number fits."""

    reported: Reported
    """the number"""
    names: tuple[str, ...]
    """conventions whose value rounds to it; the protocol's own first"""
    settings: frozenset[str]
    """settings that they are of; empty text = the run's own images"""
    nearest: tuple[str, float] | None
    """where none fits: the nearest one and its value, which is no match"""
    refused: str = ""
    """why nothing was held against it; empty where something was"""


def parse_reported(text: str) -> Reported:
    """NAME=VALUE.

    Raises:
        UnknownNameError: no such metric.
        MsbenchError: not of this form, or not a number.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not _NUMBER.fullmatch(value):
        raise MsbenchError(f"--reported {text}: give NAME=VALUE as printed, such as rfid=2.2")
    if name not in METRICS:
        raise UnknownNameError("metric", name, METRICS)
    number = Decimal(value)
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)  # the pattern lets no NaN through
    return Reported(name, value, float(number), 0.5 * 10.0**exponent)


def match(explanation: Explanation, reported: Reported, images: int | None = None) -> Match:
    """Hold a reported number against every convention of its metric.

    A convention matches within half a unit of the last printed digit and the metric's own arithmetic error: the gate's measured
    tolerance (`Metric.tolerance`), ten times the largest difference that batch sizes, threads and instruction sets made.

    Args:
        explanation: values of the conventions.
        reported: the number.
        images: how many images it is of; None = as many as the run. An rFID of another number is compared with none.
    """
    images, metric = images or explanation.n, reported.metric
    known: list[tuple[str, float, Convention | None]] = []
    if (own := explanation.protocol.get(metric)) is not None:
        known.append((PROTOCOL, own, None))
    of_metric = [one for one in explanation.findings if one.convention.metric == metric]
    known += [(one.convention.name, one.value, one.convention) for one in of_metric if one.value is not None]
    numbers = [(one.images if one else None) or explanation.n for *_, one in known]
    fit = [one for one, n in zip(known, numbers, strict=True) if metric != "rfid" or n == images]
    if known and not fit:
        why = f"it is of {images:,} images, the run of {explanation.n:,}: rFID of another number of images cannot be compared"
        return Match(reported, (), frozenset(), None, why)
    names, settings, tolerance = [], set(), MEASURED[metric].tolerance
    for name, value, one in fit:
        scale = one.scale if one else 1.0
        error = scale * tolerance.amount(value / scale) if tolerance else 0.0
        if abs(value - reported.value) <= reported.half + error:
            names.append(name)
            settings.add(one.setting if one else "")
    nearest = (
        None
        if names
        else min(((name, value) for name, value, _ in fit), key=lambda one: abs(one[1] - reported.value), default=None)
    )
    return Match(reported, tuple(names), frozenset(settings), nearest)


def joint(matches: Sequence[Match]) -> tuple[str, ...]:
    """Settings under which every reported number matches: one way to make the images explains them all.

    The run's own images are the setting `PROTOCOL`. There each metric may follow a convention of its own.
    """
    common = frozenset.intersection(*(one.settings for one in matches)) if matches else frozenset()
    return tuple(sorted(setting or PROTOCOL for setting in common))


def sentence(one: Match) -> str:
    """What came of one number, for people."""
    what = f"{one.reported.metric} {one.reported.text} (± {one.reported.half:g})"
    if one.refused:
        return f"{what}: not compared: {one.refused}"
    if one.names:
        return f"{what} matches: {'; '.join(one.names)}"
    return f"{what} matches none" + (
        f"; the nearest, not a match: {one.nearest[0]}, {one.nearest[1]:.5g}" if one.nearest else ""
    )
