"""The cost model of multi-scale decoding: what a speed-up should be, before anything is timed.

A forward at scale k of K has 4^-(K-1-k) of the finest scale's pixels. The *ideal* model takes cost as proportional to pixels;
the *counted* one takes the FLOPs counted per scale and the once-per-image part. Steps are listed coarse to fine everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence


def even_split(steps: int, scales: int) -> tuple[int, ...]:
    """N steps spread evenly over K scales, coarse to fine; the remainder goes to the finest (50 over 3: 16, 17, 17)."""
    base, extra = divmod(steps, scales)
    return tuple(base + (k >= scales - extra) for k in range(scales))


def ideal_sweep_cost(scales: int) -> float:
    """S_K = Σ_{j<K} 4^-j: one step at every scale, in full-resolution forwards; 1 for K = 1, below 4/3 always.

    Raises `ValueError` for fewer than one scale.
    """
    if scales < 1:
        raise ValueError(f"a decoder has at least one scale, got {scales}")
    return sum(0.25**level for level in range(scales))


def ideal_cost(steps_per_scale: Sequence[int]) -> float:
    """Cost of these steps (coarse to fine) in full-resolution forwards: Σ_k n_k · 4^-(K-1-k)."""
    if not steps_per_scale or min(steps_per_scale) < 0 or sum(steps_per_scale) == 0:
        raise ValueError(f"steps per scale must be non-negative and sum to at least one, got {tuple(steps_per_scale)}")
    return sum(steps * 0.25**level for level, steps in enumerate(reversed(steps_per_scale)))


def ideal_speedup(steps_per_scale: Sequence[int], full_steps: int | None = None) -> float:
    """How much cheaper `steps_per_scale` is than `full_steps` full-resolution steps (None: as many steps in all).

    Steps (1, 1, 1) against 50 give 50 / S_3 = 38.1; 50 steps split evenly over K scales give about K / S_K.
    """
    return (sum(steps_per_scale) if full_steps is None else full_steps) / ideal_cost(steps_per_scale)
