"""What verification computes with: its formulas by hand, its intervals by other routes, and shifted ones found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import linalg
from torch import Tensor

from harness.data.types import Example
from harness.decoder import NoiseSource
from harness.record.record import Record
from harness.record.run import FEATURES, write_features
from harness.run.figures import decoder_figures
from harness.run.quality import Gathered, Pass, Reference
from harness.verify.check import close
from harness.verify.features import feature_checks
from harness.verify.formulas import kid, rfid
from harness.verify.intervals import FEW, HANDFUL, interval_checks
from harness.verify.opened import Opened
from harness.verify.samples import sample_checks
from tests.harness.conftest import bad
from tests.harness.records import SPEC, run_data


def test_a_missing_number_agrees_with_what_is_not_finite_only() -> None:
    assert close("d", "psnr", None, float("inf"), "", reason="").agrees
    assert close("d", "psnr", None, float("nan"), "", reason="").agrees
    assert not close("d", "psnr", None, 3.0, "", absolute=1.0, reason="").agrees
    assert not close("d", "psnr", 3.0, float("inf"), "", absolute=1.0, reason="").agrees


@pytest.mark.parametrize("n", [12, 200])
def test_rfid_is_the_square_root_of_the_covariances_product(n: int) -> None:
    """Below and above the number of dimensions, against SciPy's matrix square root."""
    generator = np.random.default_rng(n)
    x = generator.standard_normal((n, 40)) + 0.3
    y = x + 0.5 * generator.standard_normal((n, 40))
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.trace(linalg.sqrtm(first @ second + 1e-12 * np.eye(40))).real
    gap = x.mean(axis=0) - y.mean(axis=0)
    expected = gap @ gap + np.trace(first) + np.trace(second) - 2.0 * root
    assert rfid(x, y) == pytest.approx(expected, rel=1e-4)


def test_kid_by_counting_pairs() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((2, 7, 5))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 5 + 1) ** 3)

    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    expected = np.mean([kernel(x[i], x[j]) + kernel(y[i], y[j]) - 2 * kernel(x[i], y[j]) for i, j in pairs])
    assert kid(x, y) == pytest.approx(expected, rel=1e-9)


class _Decoder:
    """Says what it is and does nothing."""

    spec = SPEC

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        return latents


def made_up(folder: Path, n: int, photographs: int, seeds: int, exact: int = 0) -> Opened:
    """A run of random values and features through the harness's own figures: no networks, any number of images."""
    generator = np.random.default_rng(n)
    keys = [f"k{index:03}" for index in range(n)]
    photos = [f"p{index % photographs}" for index in range(n)]
    nothing = np.zeros((0, 0, 3), np.uint8)
    examples = [Example(key, nothing, None, photo, "0" * 64) for key, photo in zip(keys, photos, strict=True)]
    reference = Reference(examples, [generator.standard_normal((n, 50)).astype(np.float32)])
    columns = ["psnr", "ssim", "lpips", "spectral", "latent_error", *(f"octave_{ring}_db" for ring in range(5))]
    passes, frames = [], []
    for seed in range(seeds):
        values = {column: generator.gamma(4.0, 1.0, n) for column in columns}
        values["psnr"][:exact] = np.inf
        features = reference.features[0] + 0.5 * generator.standard_normal((n, 50)).astype(np.float32)
        passes.append(Pass([values], [features]))
        base = {"key": keys, "label": None, "source_photo": photos, "source_sha256": "0" * 64}
        frames.append(pd.DataFrame({"decoder": "made-up", "noise_seed": seed, **base, **values}))
    rows = [decoder_figures("made-up", _Decoder(), {}, "photos", Gathered(passes, noisy=True), reference, range(seeds))]
    write_features(folder, reference.features[0], {"made-up": {s: one.all_features() for s, one in enumerate(passes)}})
    from safetensors.numpy import load_file

    return Opened(Record(folder, run_data(rows)), pd.concat(frames, ignore_index=True), load_file(folder / FEATURES), None)


@pytest.mark.parametrize(
    ("n", "photographs", "seeds", "exact"),
    [
        (9, 9, 1, 0),  # a bootstrap of few images
        (30, 30, 2, 0),  # interactions of 24 units, two seeds
        (40, 7, 1, 3),  # Student, photographs of unequally many crops, exact images
        (47, 12, 2, 5),  # bootstrap of a ratio
        (90, 90, 1, 0),  # more units than are left out for real, more images than dimensions
        (480, 480, 1, 0),  # quarters of more images than dimensions: rFID is extrapolated
    ],
)
def test_intervals_and_spreads_agree_by_other_routes(tmp_path: Path, n: int, photographs: int, seeds: int, exact: int) -> None:
    opened = made_up(tmp_path, n, photographs, seeds, exact)
    checks = [*sample_checks(opened), *feature_checks(opened, "made-up"), *interval_checks(opened, "made-up")]
    mine = [check for check in checks if check.decoder]
    assert [check for check in mine if not check.agrees] == []
    numbers = {check.number for check in mine}
    for metric in ("rfid", "kid", "psnr", "ssim"):
        assert {f"intervals.{metric}.0", f"intervals.{metric}.1"} <= numbers
        assert (f"noise_spread.{metric}" in numbers) == (seeds > 1)
    assert ("details.rfid_infinity.value" in numbers) == (n == 480)
    assert "details.rfid_warning" in numbers
    assert sum("without" in number for number in numbers) == (2 * HANDFUL if photographs > FEW else 0)


@pytest.mark.parametrize("metric", ["rfid", "kid", "ssim"])
def test_a_shifted_interval_is_found(tmp_path: Path, metric: str) -> None:
    opened = made_up(tmp_path, 30, 30, 1)
    ends = opened.rows["made-up"]["intervals"][metric]
    ends[1] += 1e-3 * (ends[1] - ends[0])
    assert bad(interval_checks(opened, "made-up")) == {("made-up", f"intervals.{metric}.1")}
