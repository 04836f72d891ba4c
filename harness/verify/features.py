"""rFID, KID, rFID∞ and their spread over seeds, from features.safetensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.stats.extrapolate import BENT, ENOUGH, PARTS
from harness.verify.check import Check, close, same
from harness.verify.formulas import KID_ABSOLUTE, KID_HOW, KID_REASON, RFID_HOW, RFID_REASON, RFID_SHARE, kid, rfid, rfid_line
from harness.verify.formulas import traces_of as traces
from harness.verify.opened import Opened


def feature_checks(opened: Opened, decoder: str) -> list[Check]:
    """Checks of one decoder's figures over the whole set; none where its features were not kept."""
    pairs = opened.pairs(decoder)
    if not pairs or len(pairs) != len(opened.seeds(decoder)):
        return []
    row, details = opened.rows[decoder], opened.details(decoder)
    noise = details.get("noise") or {}
    sizes = {len(reference) for reference, _ in pairs.values()}
    checks = [same(decoder, "n", row.get("n"), size, "features in features.safetensors") for size in sizes]
    enough = min(sizes) >= 2
    scale = max(traces(*pair) for pair in pairs.values()) if enough else 0.0
    ways = {
        "rfid": (rfid, RFID_HOW, RFID_SHARE * scale, RFID_REASON),
        "kid": (kid, KID_HOW, KID_ABSOLUTE, KID_REASON),
    }
    for metric, (formula, how, absolute, reason) in ways.items():
        found = {seed: formula(*pair) if enough else float("nan") for seed, pair in pairs.items()}

        def judge(
            number: str,
            recorded: Any,
            value: float,
            way: str = "",
            how: str = how,
            absolute: float = absolute,
            reason: str = reason,
        ) -> Check:
            return close(decoder, number, recorded, value, way or how, absolute=absolute, relative=1e-9, reason=reason)

        values = list(found.values())
        checks.append(judge(metric, row.get(metric), float(np.mean(values))))
        for seed, value in found.items():
            held = ((noise.get("per_seed") or {}).get(str(seed)) or {}).get(metric)
            checks.append(judge(f"details.noise.per_seed.{seed}.{metric}", held, value))
        if row.get("noise_spread") is not None:
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            way = f"standard deviation over seeds of: {how}"
            checks.append(judge(f"noise_spread.{metric}", row["noise_spread"].get(metric), spread, way))
    return checks + _infinity_checks(opened, decoder)


def _warning_check(decoder: str, n: int, line: dict[str, Any], warning: str | None) -> Check:
    """The warning is there where it is due, with the record's own bias and extrapolation, which have checks of their own."""
    number = "details.rfid_warning"
    if not 2 <= n < ENOUGH:
        return same(decoder, number, warning, None, f"due from 2 to {ENOUGH:,} images")
    parts = [f"{line[name]:{form}}" for name, form in (("bias", ".3g"), ("value", ".4g")) if isinstance(line.get(name), float)]
    parts = parts if line else ["unknown, and large"]
    told = warning is not None and bool(parts) and all(part in warning for part in parts)
    how = f"must state {' and '.join(parts)}"
    return same(decoder, number, warning, warning if told else None, how)


def _infinity_checks(opened: Opened, decoder: str) -> list[Check]:
    reference, decoded = next(iter(opened.pairs(decoder).values()))
    details = opened.details(decoder)
    line, warning = details.get("rfid_infinity"), details.get("rfid_warning")
    n = len(reference)
    checks = [_warning_check(decoder, n, line or {}, warning)]
    if n // max(PARTS) <= reference.shape[1]:
        return [*checks, same(decoder, "details.rfid_infinity", line, None, "none where parts are below the dimensions")]
    sizes, means, infinity = rfid_line(reference, decoded, PARTS)
    parabola = float(np.polyfit([1.0 / size for size in sizes], means, 2)[-1])
    if abs(infinity - parabola) > BENT * abs(means[PARTS.index(1)] - infinity) + 1e-9:
        return [*checks, same(decoder, "details.rfid_infinity", line, None, "none where line and parabola end apart")]
    held = line or {}
    # a part's traces vary around the whole's; the intercept weighs the means by at most 1 + parts
    absolute = 4.0 * RFID_SHARE * traces(reference, decoded)
    for index, (size, mean) in enumerate(zip(sizes, means, strict=True)):
        recorded_size = dict(enumerate(held.get("sizes") or [])).get(index)
        recorded_mean = dict(enumerate(held.get("means") or [])).get(index)
        checks.append(same(decoder, f"details.rfid_infinity.sizes.{index}", recorded_size, size, f"n // {PARTS[index]}"))
        number = f"details.rfid_infinity.means.{index}"
        checks.append(close(decoder, number, recorded_mean, mean, RFID_HOW, absolute=absolute, reason=RFID_REASON))
    way = "SciPy's linregress over 1 / size"
    shown = opened.rows[decoder]["rfid_infinity"]
    checks.append(close(decoder, "rfid_infinity", shown, infinity, way, absolute=absolute, reason=RFID_REASON))
    for name, value in (("value", infinity), ("bias", means[PARTS.index(1)] - infinity)):
        number = f"details.rfid_infinity.{name}"
        checks.append(close(decoder, number, held.get(name), value, way, absolute=absolute, reason=RFID_REASON))
    return checks
