"""The step schedule: how many network calls each scale gets."""

from __future__ import annotations

from harness.cost.theory import even_split
from harness.errors import MsbenchError


def split_steps(steps: int, scales: int) -> tuple[int, ...]:
    """Split N steps evenly over K scales, coarse to fine; the remainder goes to the finest (50 over 3: 16, 17, 17).

    Raises:
        MsbenchError: no scale, or fewer steps than scales.
    """
    if scales < 1:
        raise MsbenchError(f"{scales} scales: a decoder has at least one")
    if steps < scales:
        raise MsbenchError(f"{steps} steps cannot cover {scales} scales: give at least one step a scale")
    return even_split(steps, scales)
