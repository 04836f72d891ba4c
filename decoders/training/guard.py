"""The guard against exploding gradients: a step far above the usual one is skipped, many in a row stop the run."""

from __future__ import annotations

import math
import statistics
from typing import Any

from harness.errors import MsbenchError

NORMS = 64
"""accepted gradient norms whose median a new one is held against"""
MAX_SKIPS = 10
"""steps skipped in a row that stop a run"""


class GradientGuard:
    """Holds each gradient norm against the median of the last `NORMS` accepted ones."""

    def __init__(self, ratio: float, warmup: int) -> None:
        """`ratio`: how many times the median is too much; nothing is skipped in the first `warmup` steps."""
        self.ratio, self.warmup = ratio, warmup
        self.norms: list[float] = []
        self.skipped, self.in_a_row = 0, 0

    def skips(self, norm: float, step: int) -> bool:
        """Whether step `step` (from 1), with gradient norm `norm`, is to be left out.

        Raises:
            MsbenchError: it is the last of `MAX_SKIPS` in a row.
        """
        usual = statistics.median(self.norms) if self.norms and step > self.warmup else math.inf
        if norm <= self.ratio * usual or usual == 0.0:
            self.norms = [*self.norms[1 - NORMS :], norm]
            self.in_a_row = 0
            return False
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row == MAX_SKIPS:
            raise MsbenchError(
                f"training diverged at step {step}: {MAX_SKIPS} gradient norms in a row above "
                f"{self.ratio:g} times the usual {usual:.3g} (last {norm:.3g}); lower the learning rate"
            )
        return True

    def state(self) -> dict[str, Any]:
        """What an exact resume needs."""
        return {"norms": self.norms, "skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.norms, self.skipped, self.in_a_row = list(state["norms"]), int(state["skipped"]), int(state["in_a_row"])
