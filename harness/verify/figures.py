"""Figures from what the run kept: means of samples by pandas, set metrics from features by each metric's own check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.metrics.metric import Whole
from harness.metrics.registry import METRICS
from harness.record.run import FILE, Run, files_sha256
from harness.record.schema import Details, Result
from harness.verify.check import Check, close, same, unchecked

if TYPE_CHECKING:
    import pandas as pd

_SUMS: dict[str, Any] = {"relative": 1e-9, "absolute": 1e-12, "reason": "sums of float64 in another order"}


def figure_checks(run: Run, result: Result) -> list[Check]:
    """Checks of one row's figures and of their spread over noise seeds."""
    label, details, mine = result.label, run.record.data.decoders[result.label], run.of(result.label)
    checks = [same(label, "n", result.n, mine["key"].nunique(), "images in samples.parquet")]
    if details.files_sha256 is not None and FILE in mine:
        digest = files_sha256(mine["key"], mine[FILE])
        checks.append(same(label, "details.files_sha256", details.files_sha256, digest, "SHA-256 over keys and file hashes"))
    known = run.record.data.metrics
    for name in [*known, *(name for name in METRICS if name in mine and name not in known)]:
        if name in mine:
            checks += _per_image(result, details, name, mine.pivot(index="key", columns="noise_seed", values=name))
        elif name in known and not known[name].per_image:
            checks += _whole(run, result, details, name)
    if "psnr" in mine:
        exact = mine.loc[np.isinf(mine["psnr"]), "key"].nunique()
        how = "images of infinite PSNR in samples.parquet"
        checks.append(same(label, "details.psnr_exact_images", details.psnr_exact_images, exact, how))
    for name, figures in details.by_label.items():
        finite = mine[~np.isinf(mine[name])] if name in METRICS and METRICS[name].skip_infinite else mine
        for group, value in finite.groupby("label")[name].mean().items():
            number, held = f"details.by_label.{name}.{group}", figures.get(str(group))
            checks.append(close(label, number, held, float(value), "pandas mean of samples.parquet", **_SUMS))
    for ring, held in result.octaves_db.items():
        if (column := f"octave_{ring}_db") in mine:
            mean = float(mine[column].mean(skipna=False))
            checks.append(close(label, f"octaves_db.{ring}", held, mean, f"pandas mean of {column}", **_SUMS))
    return checks


def _per_image(result: Result, details: Details, name: str, table: pd.DataFrame) -> list[Check]:
    """`table`: images x noise seeds."""
    finite = table[~np.isinf(table)]  # NaN elsewhere
    skips = name in METRICS and METRICS[name].skip_infinite
    means = {seed: float(finite[seed].mean() if skips else table[seed].mean(skipna=False)) for seed in details.noise.seeds}
    return _by_seed(result, details, name, means, how="pandas mean of samples.parquet", **_SUMS)


def _whole(run: Run, result: Result, details: Details, name: str) -> list[Check]:
    """A set metric, by the second route that its entry states."""
    check, kept = METRICS[name].check if name in METRICS else None, run.features(result.label)
    if kept is None or check is None or check.whole is None:
        why = "needs features.safetensors: run it again" if kept is None else "its metric states no second route"
        return [unchecked(result.label, name, result.metrics.get(name), why)]
    values, absolute = {}, check.absolute
    for seed, features in zip(details.noise.seeds, kept[1], strict=True):
        whole = Whole(kept[0], features, run.columns(result.label, seed))
        enough = len(features) >= 2
        values[seed] = check.whole(whole) if enough else float("nan")
        scale = check.scale(whole) if check.scale and enough else abs(values[seed])
        absolute = max(absolute, check.absolute + check.relative * scale)
    return _by_seed(result, details, name, values, how=check.how, absolute=absolute, relative=1e-9, reason=check.reason)


def _by_seed(result: Result, details: Details, name: str, values: dict[int, float], *, how: str, **within: Any) -> list[Check]:
    """The figure, each noise seed's own, and their spread."""

    def judge(number: str, recorded: float | None, value: float, how: str) -> Check:
        return close(result.label, number, recorded, value, how, **within)

    found = np.array(list(values.values()))
    of_seeds = f"{how}, mean of {len(found)} noise seeds" if len(found) > 1 else how
    checks = [judge(name, result.metrics.get(name), float(found.mean()), of_seeds)]
    for seed, value in values.items():
        held = details.noise.per_seed.get(str(seed), {}).get(name)
        checks.append(judge(f"details.noise.per_seed.{seed}.{name}", held, value, how))
    if result.noise_spread is not None:
        spread = float(found.std(ddof=1)) if len(found) > 1 else 0.0
        checks.append(judge(f"noise_spread.{name}", result.noise_spread.get(name), spread, f"standard deviation of: {how}"))
    return checks
