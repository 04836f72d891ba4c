"""One number of a record beside its recomputation, and the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["agrees", "DISAGREES", "not checked"]


@dataclass(frozen=True, slots=True)
class Check:
    """What became of one number."""

    decoder: str
    """whose number it is; empty for a number of the whole run"""
    number: str
    """its path: in the decoder's row of `results`; `details.…` in `decoders`; otherwise in the record itself"""
    recorded: Any
    """as the record has it; None where it has none"""
    recomputed: Any
    """as it came out here; None where it could not be computed"""
    how: str
    """the way it was recomputed, or why it was not"""
    tolerance: float | None
    """largest difference that counts as agreement; None where equality is asked for or nothing was compared"""
    tolerance_reason: str
    """where the tolerance comes from"""
    agrees: bool | None
    """None: not checked"""

    @property
    def verdict(self) -> Verdict:
        """In words."""
        return "not checked" if self.agrees is None else "agrees" if self.agrees else "DISAGREES"

    @property
    def covers(self) -> tuple[str, str]:
        """What `coverage` looks up."""
        return self.decoder, self.number


def close(
    decoder: str,
    number: str,
    recorded: Any,
    again: float | None,
    how: str,
    *,
    absolute: float = 0.0,
    relative: float = 0.0,
    reason: str,
) -> Check:
    """Compare two numbers: they agree within `absolute` + `relative` × |again|.

    A record holds None for NaN and infinities, so None agrees with whatever is not finite, and with nothing else.
    """
    known, again = _number(recorded), _number(again)
    if known is None or again is None:
        return Check(decoder, number, recorded, again, how, None, reason, recorded is None and again is None)
    tolerance = absolute + relative * abs(again)
    return Check(decoder, number, recorded, again, how, tolerance, reason, abs(known - again) <= tolerance)


def same(decoder: str, number: str, recorded: Any, recomputed: Any, how: str) -> Check:
    """Compare hashes, counts and names, which agree only where they are equal."""
    return Check(decoder, number, recorded, recomputed, how, None, "equal or not", recorded == recomputed)


def unchecked(decoder: str, number: str, recorded: Any, why: str) -> Check:
    """A number that nothing was compared with."""
    return Check(decoder, number, recorded, None, why, None, "", None)


def _number(value: Any) -> float | None:
    """A finite float; None for all else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
