"""The intervals of a record, each by the method that the record names, computed in another way.

Student: the standard error of a ratio of sums, by pandas. BCa: `scipy.stats.bootstrap` makes the ends, from the draws of the
same seed. Jackknife of pairs: each unit left out for real up to `FEW` units; above that the ends are those of `harness.stats`
and only some units are left out for real, since each costs a whole rFID.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.record.measured import clusters_of, mean_statistic
from harness.stats.kid import kid_statistic
from harness.stats.paired import RESAMPLES, mean_estimate
from harness.stats.rfid import rfid_statistic
from harness.stats.sets import SetStatistic, chosen_units, set_estimate
from harness.verify.check import Check, close
from harness.verify.formulas import KID_ABSOLUTE, KID_REASON, RFID_REASON, RFID_SHARE, kid, rfid, traces_of
from harness.verify.opened import Features, Opened

FEW = 60
"""units up to which each is left out for real"""
HANDFUL = 3
"""units left out for real above that"""
_MOST_FOR_SCIPY = 5_000  # its jackknife is n x n
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Ends:
    """Recomputed ends of an interval."""

    low: float
    """lower end; -inf where there is none"""
    high: float
    """upper end"""
    how: str
    """the way"""
    absolute: float
    """tolerance"""
    reason: str
    """where the tolerance comes from"""


def interval_checks(opened: Opened, decoder: str) -> list[Check]:
    """Checks of every interval of one decoder."""
    details = opened.details(decoder)
    notes: dict[str, Any] = details.get("interval_notes") or {}
    level = details.get("interval_level")
    if not isinstance(level, float) or not 0.0 < level < 1.0:
        return []
    checks: list[Check] = []
    for metric, note in notes.items():
        if metric in opened.metrics(decoder):
            ends = _mean_ends(opened, decoder, metric, str(note.get("method")), level)
        elif metric in ("rfid", "kid") and len(opened.pairs(decoder)) == len(opened.seeds(decoder)):
            ends, more = _set_ends(opened, decoder, metric, level)
            checks += more
        else:
            continue
        held = (opened.rows[decoder].get("intervals") or {}).get(metric) or (None, None)
        for side, end in enumerate((ends.low, ends.high)):
            number = f"intervals.{metric}.{side}"
            checks.append(close(decoder, number, held[side], end, ends.how, absolute=ends.absolute, reason=ends.reason))
    return checks


def _mean_ends(opened: Opened, decoder: str, metric: str, method: str, level: float) -> _Ends:
    """Ends around a mean over images."""
    import pandas as pd

    values = opened.values(decoder, metric).mean(axis=1, skipna=False).to_numpy(dtype=np.float64)
    photographs = opened.photographs(decoder)
    # numbered in order of first appearance among all images, which is the order the bootstrap draws from
    frame = pd.DataFrame({"value": values, "photo": pd.factorize(pd.Series(photographs))[0]})
    frame = frame[np.isfinite(frame["value"])]
    if frame.empty:
        return _Ends(-math.inf, math.inf, "every image is exact", 0.0, "")
    mean = float(frame["value"].mean())
    sums, sizes = (frame.groupby("photo", sort=True)["value"].agg(of) for of in ("sum", "count"))
    units, small = len(sums), 1e-9 * float(frame["value"].abs().max())
    if method.startswith("BCa"):
        return _bca_ends(sums.to_numpy(np.float64), sizes.to_numpy(np.float64), values, photographs, level)
    if method == "none" or units < 2:
        return _Ends(-math.inf, math.inf, "no interval from one unit", 0.0, "")
    if method in ("constant", "exact"):
        return _Ends(mean, mean, "no image differs from the mean", small, "sums of float64 in another order")
    residuals = sums - mean * sizes
    error = math.sqrt(units / (units - 1) * float((residuals**2).sum())) / float(sizes.sum())
    low, high = stats.t.interval(level, units - 1, loc=mean, scale=error)
    how = "scipy.stats.t, standard error by pandas"
    return _Ends(float(low), float(high), how, small, "sums of float64 in another order")


def _bca_ends(sums: Array, sizes: Array, values: Array, photographs: list[str], level: float) -> _Ends:
    """Ends of the bias-corrected and accelerated bootstrap, levels widened from normal to Student quantiles."""
    units = len(sums)
    if units > _MOST_FOR_SCIPY:
        interval = mean_estimate(values, photographs).interval(level)
        how = f"same code (harness.stats): above {_MOST_FOR_SCIPY:,} units scipy's jackknife is too large"
        return _Ends(interval.low, interval.high, how, 1e-9 * abs(interval.high - interval.low), "same draws")
    z = math.sqrt(units / (units - 1)) * float(stats.t.ppf(0.5 + level / 2.0, units - 1))
    equal = float(np.ptp(sizes)) == 0.0
    result = stats.bootstrap(
        (sums / sizes[0],) if equal else (sums, sizes),
        _mean if equal else _ratio,
        n_resamples=RESAMPLES,
        batch=max(1, 4_000_000 // units),
        vectorized=True,
        paired=True,
        confidence_level=2.0 * float(stats.norm.cdf(z)) - 1.0,
        method="BCa",
        rng=np.random.default_rng(0),
    )
    residuals = sums - float(sums.sum() / sizes.sum()) * sizes
    error = math.sqrt(units / (units - 1) * float((residuals**2).sum())) / float(sizes.sum())
    student = stats.t.interval(level, units - 1, loc=float(sums.sum() / sizes.sum()), scale=error)
    low, high = min(result.confidence_interval.low, student[0]), max(result.confidence_interval.high, student[1])
    how = "scipy.stats.bootstrap, BCa, or scipy.stats.t where that is wider"
    # neighbouring draws are about 1e-4 of the width apart where the ends lie
    return _Ends(float(low), float(high), how, 1e-6 * float(high - low), "same seed and draws; ends by scipy instead of ours")


def _mean(*data: Array, axis: int) -> Array:
    return np.asarray(data[0].mean(axis=axis), dtype=np.float64)


def _ratio(*data: Array, axis: int) -> Array:
    return np.asarray(data[0].sum(axis=axis) / data[1].sum(axis=axis), dtype=np.float64)


def _set_ends(opened: Opened, decoder: str, metric: str, level: float) -> tuple[_Ends, list[Check]]:
    """Ends around rFID or KID, and checks of single units where not all are left out for real."""
    pairs, photographs = list(opened.pairs(decoder).values()), opened.photographs(decoder)
    n = len(photographs)
    units = np.unique(photographs, return_inverse=True)[1]
    order = np.array(list(dict.fromkeys(units.tolist())))
    members = [np.flatnonzero(units == unit) for unit in order]
    scale = max(traces_of(*pair) for pair in pairs) if n > 1 else 0.0
    # the standard error moves by at most √units times the error of one value without a unit, an end by t times that
    absolute = (RFID_SHARE * scale if metric == "rfid" else KID_ABSOLUTE) * 4.0 * math.sqrt(max(len(members), 1))
    reason = (RFID_REASON if metric == "rfid" else KID_REASON) + ", times what leaving units out adds"
    if len(members) < 2 or n - max(map(len, members)) < 2:
        return _Ends(-math.inf, math.inf, "too few units for an interval", 0.0, ""), []
    if len(members) <= FEW:
        low, high = _jackknife(pairs, metric, members, n, level)
        return _Ends(low, high, f"each of {len(members)} units left out for real", absolute, reason), []
    of = {"rfid": rfid_statistic, "kid": kid_statistic}[metric]
    clusters = clusters_of(opened.keys(decoder), photographs)
    statistic = mean_statistic([of(reference, decoded, clusters) for reference, decoded in pairs])
    interval = set_estimate(statistic).interval(level)
    checks = _handful(decoder, metric, statistic, pairs, members, absolute, reason)
    how = f"same code (harness.stats); {len(checks)} of {len(members)} units left out for real beside it"
    return _Ends(interval.low, interval.high, how, 1e-9 * abs(interval.high - interval.low), "float64 rounding"), checks


def _without(pairs: list[tuple[Features, Features]], metric: str, gone: NDArray[np.intp]) -> float:
    """Mean over seeds of the metric without some images."""
    formula = rfid if metric == "rfid" else kid
    return float(np.mean([formula(np.delete(x, gone, axis=0), np.delete(y, gone, axis=0)) for x, y in pairs]))


def _jackknife(
    pairs: list[tuple[Features, Features]], metric: str, members: list[NDArray[np.intp]], n: int, level: float
) -> tuple[float, float]:
    """Ends by the jackknife (Efron & Stein, 1981), half of its second-order excess taken off, as `harness.stats.sets` says."""
    count = len(members)
    value = _without(pairs, metric, np.empty(0, dtype=np.intp))
    without = np.array([_without(pairs, metric, unit) for unit in members])
    variance = (count - 1) ** 2 / count * float(np.var(without, ddof=1))
    chosen = chosen_units(count)
    excess = 0.0
    if len(chosen):
        first, second = np.tril_indices(len(chosen), -1)
        both = [
            _without(pairs, metric, np.concatenate([members[chosen[i]], members[chosen[j]]]))
            for i, j in zip(first, second, strict=True)
        ]
        interaction = value - without[chosen[first]] - without[chosen[second]] + np.array(both)
        # what a common term and one term a unit leave unexplained, by least squares
        design = np.zeros((len(first), len(chosen)))
        design[np.arange(len(first)), first] = design[np.arange(len(first)), second] = 1.0
        fitted = design @ np.linalg.lstsq(design, interaction, rcond=None)[0]
        freedom = len(first) - len(chosen)
        excess = (count - 1) ** 2 / 2.0 * float(np.square(interaction - fitted).sum()) / freedom
    error = math.sqrt(max(variance - excess / 2.0, variance / 2.0))
    half = float(stats.t.ppf(0.5 + level / 2.0, count - 1)) * error
    return value - half, value + half


def _handful(
    decoder: str,
    metric: str,
    statistic: SetStatistic,
    pairs: list[tuple[Features, Features]],
    members: list[NDArray[np.intp]],
    absolute: float,
    reason: str,
) -> list[Check]:
    """A few units left out for real, against the values the interval rests on."""
    picks = np.random.default_rng(len(members)).choice(len(members), min(HANDFUL, len(members)), replace=False)
    return [
        close(
            decoder,
            f"intervals.{metric}.without.{unit}",
            float(statistic.without[unit]),
            _without(pairs, metric, members[unit]),
            "left out for real",
            absolute=absolute,
            reason=reason,
        )
        for unit in sorted(picks.tolist())
    ]
