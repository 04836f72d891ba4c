"""Means, spreads and counts from samples.parquet, by pandas (the harness averages NumPy arrays batch by batch)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.run.figures import LEVEL
from harness.verify.check import Check, close, same
from harness.verify.opened import Opened

if TYPE_CHECKING:
    import pandas as pd

_SUMS = "sums of float64 in another order"
_RELATIVE, _ABSOLUTE = 1e-9, 1e-12


def sample_checks(opened: Opened) -> list[Check]:
    """Checks of all that per-image values suffice for."""
    checks = _run_checks(opened)
    for decoder in opened.rows:
        for metric in opened.metrics(decoder):
            checks += _metric_checks(opened, decoder, metric)
        checks += _detail_checks(opened, decoder)
    return checks


def mean_over_images(values: pd.Series[float], metric: str) -> float:
    """A metric's mean over images: psnr over those that differ from their reference, infinite where none does."""
    if metric == "psnr" and len(values):
        finite = values.replace(np.inf, np.nan).dropna()
        return float(finite.mean()) if len(finite) else float("inf")
    return float(values.mean(skipna=False))


def _metric_checks(opened: Opened, decoder: str, metric: str) -> list[Check]:
    table, row, noise = opened.values(decoder, metric), opened.rows[decoder], opened.details(decoder).get("noise") or {}
    means = {seed: mean_over_images(table[seed], metric) for seed in table}
    how = "pandas mean of samples.parquet" + (f" over {len(means)} noise seeds" if len(means) > 1 else "")
    checks = [_close(decoder, metric, row[metric], sum(means.values()) / len(means), how)]
    recorded = noise.get("per_seed") or {}
    for seed, mean in means.items():
        held = (recorded.get(str(seed)) or {}).get(metric)
        checks.append(_close(decoder, f"details.noise.per_seed.{seed}.{metric}", held, mean, "pandas mean of one noise seed"))
    if row.get("noise_spread") is not None:
        spread = _spread(list(means.values()))
        held = row["noise_spread"].get(metric)
        checks.append(_close(decoder, f"noise_spread.{metric}", held, spread, "standard deviation over seeds (pandas)"))
    if noise.get("image_spread") is not None:
        finite = table.replace(np.inf, np.nan)  # an exact image has no deviation, and the mean then none either
        spread = float(finite.std(axis=1, ddof=1, skipna=False).mean(skipna=False))
        held = noise["image_spread"].get(metric)
        how = "mean over images of the standard deviation over seeds (pandas)"
        checks.append(_close(decoder, f"details.noise.image_spread.{metric}", held, spread, how))
    return checks


def _spread(values: list[float]) -> float:
    """Standard deviation over seeds; 0 with one, since a decoder without noise repeats itself."""
    import pandas as pd

    return float(pd.Series(values).std(ddof=1)) if len(values) > 1 else 0.0


def _detail_checks(opened: Opened, decoder: str) -> list[Check]:
    row, details, keys = opened.rows[decoder], opened.details(decoder), opened.keys(decoder)
    photographs = opened.photographs(decoder)
    checks = [
        same(decoder, "n", row.get("n"), len(keys), "images in samples.parquet"),
        same(decoder, "details.interval_level", details.get("interval_level"), LEVEL, "the level of every interval"),
    ]
    noise = details.get("noise") or {}
    for index, seed in enumerate(noise.get("seeds") or []):
        held = dict(enumerate(opened.seeds(decoder))).get(index)
        checks.append(same(decoder, f"details.noise.seeds.{index}", seed, held, "seeds in samples.parquet"))
    if "psnr" in opened.metrics(decoder):
        exact = int(np.isinf(opened.values(decoder, "psnr")).any(axis=1).sum())
        how = "images of infinite PSNR in samples.parquet"
        checks.append(same(decoder, "details.psnr_exact_images", details.get("psnr_exact_images"), exact, how))
    rings = [(f"octaves_db.{ring}", ring, held) for ring, held in (row.get("octaves_db") or {}).items()]
    for number, ring, held in rings:
        column = f"octave_{ring}_db"
        if column in opened.samples:
            mean = float(opened.values(decoder, column).to_numpy(np.float64).mean())
            checks.append(_close(decoder, number, held, mean, f"mean of {column}"))
    for metric, note in (details.get("interval_notes") or {}).items():
        units = len(set(photographs))
        if metric in opened.metrics(decoder):
            finite = np.isfinite(opened.values(decoder, metric).mean(axis=1, skipna=False)).to_numpy()
            if finite.any():
                units = len({photo for photo, kept in zip(photographs, finite, strict=True) if kept})
        how = "photographs in samples.parquet"
        checks.append(same(decoder, f"details.interval_notes.{metric}.units", note.get("units"), units, how))
    return checks


def _run_checks(opened: Opened) -> list[Check]:
    data, decoder = opened.data["dataset"], next(iter(opened.rows))
    mine = opened.samples[opened.samples["decoder"] == decoder].drop_duplicates("key")
    lines = "".join(f"{key}\0{digest}\n" for key, digest in zip(mine["key"], mine["source_sha256"], strict=True))
    counts: dict[str, Any] = data.get("n_samples") or {}
    selected = len(mine) + len(data.get("skipped") or [])
    protocol = opened.data["protocol"]
    digest = hashlib.sha256(lines.encode()).hexdigest()
    return [
        same("", "dataset.source_sha256", data.get("source_sha256"), digest, "SHA-256 over keys and file hashes"),
        same("", "dataset.n_samples.effective", counts.get("effective"), len(mine), "images in samples.parquet"),
        same("", "dataset.n_samples.selected", counts.get("selected"), selected, "images in samples.parquet + skipped"),
        same("", "dataset.n_selected", data.get("n_selected"), selected, "images in samples.parquet + skipped"),
        same("", "dataset.resolution", data.get("resolution"), protocol.get("resolution"), "the protocol's field"),
    ]


def _close(decoder: str, number: str, recorded: Any, recomputed: float, how: str) -> Check:
    return close(decoder, number, recorded, recomputed, how, relative=_RELATIVE, absolute=_ABSOLUTE, reason=_SUMS)
