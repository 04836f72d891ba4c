"""Many comparisons at once: Holm's step-down correction (Scandinavian Journal of Statistics 1979), for any dependence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Corrected:
    """One hypothesis after correction."""

    p_value: float
    """Holm-adjusted: the smallest family-wise error rate at which it is rejected"""
    rejected: bool
    """decided at the family's error rate"""
    level: float
    """confidence level at which its own interval leaves the null out exactly when it is rejected; the intervals at these levels
    show the decision and do not cover jointly, which takes 1 - alpha / m for all"""


def holm(p_values: Sequence[float], alpha: float = 0.05) -> list[Corrected]:
    """Correct a family of m p-values, in their order.

    Sorted upwards, p₍ₖ₎ is multiplied by m - k + 1 and never let below its predecessor. Rejected are those at or below alpha;
    each was tested at alpha / (m - k + 1), and all that were not at the level where the procedure stopped.

    Raises:
        ValueError: a p-value outside [0, 1] or NaN; alpha outside (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"an error rate lies between 0 and 1, not {alpha}")
    values = np.asarray(p_values, dtype=np.float64)
    if np.isnan(values).any() or (values < 0.0).any() or (values > 1.0).any():
        raise ValueError("p-values lie in [0, 1]")
    m = len(values)
    order = np.argsort(values, kind="stable")
    remaining = m - np.arange(m)
    adjusted = np.minimum(np.maximum.accumulate(values[order] * remaining), 1.0)
    rejected = adjusted <= alpha
    stop = int(rejected.sum())
    found: list[Corrected] = [Corrected(1.0, False, 1.0 - alpha)] * m
    for rank, index in enumerate(order):
        step = min(rank, stop)
        found[int(index)] = Corrected(float(adjusted[rank]), bool(rejected[rank]), 1.0 - alpha / float(m - step))
    return found
