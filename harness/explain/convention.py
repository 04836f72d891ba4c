"""A convention: one way the field computes a metric, what it needs and who uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.explain.sources import Sources


@dataclass(frozen=True, slots=True)
class Convention:
    """One way to compute a metric."""

    metric: str
    """the metric's name in records"""
    name: str
    """unique within the metric"""
    source: str
    """what it is computed from"""
    of: Callable[[Sources], float]
    """the value; raises `sources.Needs` where something is not there"""
    users: tuple[str, ...] = ()
    """who uses it, keys of `registry.USERS`; empty where nobody's code was read"""
    setting: str = ""
    """of a way that touches every metric at once: its name; empty where it concerns this metric alone"""
    images: int | None = None
    """number of images it is of; None = as many as the run"""
    scale: float = 1.0
    """what the metric's unit is multiplied by"""
