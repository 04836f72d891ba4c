"""Figures over noise seeds computed again from made-up samples and features: right ones agree, every wrong one is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.metrics.metric import Whole
from harness.metrics.registry import METRICS
from harness.record.record import Record
from harness.record.run import Run, write_features
from harness.record.schema import Result
from harness.verify.figures import figure_checks
from tests.harness.conftest import bad
from tests.harness.records import details, result, run_data

N, SEEDS, EXACT = 12, (0, 1), 3
Change = Callable[[dict[str, Any]], object]


def made(folder: Path, change: Change = lambda facts: None) -> tuple[Run, Result]:
    """A run of two noise seeds; its figures by NumPy. `change` alters them before they are recorded."""
    generator = np.random.default_rng(0)
    keys = [f"k{index:02}" for index in range(N)]
    reference = generator.standard_normal((N, 8)).astype(np.float32)
    features = {seed: reference + 0.5 * generator.standard_normal((N, 8)).astype(np.float32) for seed in SEEDS}
    values = {seed: {name: generator.gamma(4.0, 1.0, N) for name in ("psnr", "lpips")} for seed in SEEDS}
    for seed in SEEDS:
        values[seed]["psnr"][:EXACT] = np.inf
    frames = [pd.DataFrame({"decoder": "d", "noise_seed": seed, "key": keys, **values[seed]}) for seed in SEEDS]
    per_seed: dict[str, dict[str, float]] = {}
    for seed in SEEDS:
        whole = Whole(reference, features[seed], {})
        found = {name: METRICS[name].over_set(whole).value for name in ("rfid", "kid")}
        psnr = values[seed]["psnr"]
        per_seed[str(seed)] = {**found, "psnr": float(psnr[EXACT:].mean()), "lpips": float(values[seed]["lpips"].mean())}
    table = pd.DataFrame(per_seed).T
    facts: dict[str, Any] = {
        "metrics": table.mean().to_dict(),
        "noise_spread": table.std(ddof=1).to_dict(),
        "per_seed": per_seed,
        "exact": EXACT,
        "n": N,
    }
    change(facts)
    row = result("d", n=facts["n"], noise_spread=facts["noise_spread"], **facts["metrics"])
    rest = details(facts["exact"], seeds=SEEDS)
    rest = replace(rest, noise=replace(rest.noise, per_seed=facts["per_seed"]))
    write_features(folder, reference, {"d": features})
    return Run(Record(folder, run_data([(row, rest)])), pd.concat(frames, ignore_index=True), tuple(keys)), row


def test_right_figures_agree(tmp_path: Path) -> None:
    checks = figure_checks(*made(tmp_path))
    assert [check for check in checks if not check.agrees] == []
    numbers = {check.number for check in checks}
    for name in ("rfid", "kid", "psnr", "lpips"):
        assert {name, f"noise_spread.{name}", f"details.noise.per_seed.0.{name}", f"details.noise.per_seed.1.{name}"} <= numbers


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (lambda facts: facts["metrics"].update(rfid=facts["metrics"]["rfid"] * 1.001), "rfid"),
        (lambda facts: facts["metrics"].update(kid=facts["metrics"]["kid"] + 1e-6), "kid"),
        (lambda facts: facts["metrics"].update(lpips=facts["metrics"]["lpips"] + 1e-6), "lpips"),
        (lambda facts: facts["metrics"].update(psnr=None), "psnr"),
        (lambda facts: facts["noise_spread"].update(rfid=0.0), "noise_spread.rfid"),
        (lambda facts: facts["noise_spread"].pop("psnr"), "noise_spread.psnr"),
        (lambda facts: facts["per_seed"]["1"].update(lpips=0.0), "details.noise.per_seed.1.lpips"),
        (lambda facts: facts["per_seed"].pop("1"), "details.noise.per_seed.1.lpips"),
        (lambda facts: facts.update(exact=2), "details.psnr_exact_images"),
        (lambda facts: facts.update(n=11), "n"),
    ],
)
def test_a_wrong_one_is_found(tmp_path: Path, change: Change, number: str) -> None:
    assert ("d", number) in bad(figure_checks(*made(tmp_path, change)))


def test_nan_among_the_samples_disagrees_with_a_number(tmp_path: Path) -> None:
    run, row = made(tmp_path)
    run.samples.loc[0, "lpips"] = np.nan
    assert {("d", "lpips"), ("d", "details.noise.per_seed.0.lpips")} <= bad(figure_checks(run, row))
