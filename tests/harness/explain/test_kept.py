"""Conventions on samples and features: the rows that count, the mean error, KID of subsets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.functional.image import peak_signal_noise_ratio

from harness.explain import kept
from harness.explain.sources import Needs
from harness.metrics.metric import Whole
from tests.harness.explain.conftest import Saved


def features(n: int, width: int = 48) -> Whole:
    generator = np.random.default_rng(0)
    reference = generator.gamma(1.0, 0.4, (n, width)).astype(np.float32)
    decoded = (reference + 0.2 * generator.standard_normal((n, width))).astype(np.float32)
    return Whole(reference, decoded, {"psnr": generator.normal(25.0, 3.0, n)})


def test_psnr_of_the_mean_error_is_torchmetrics_over_all_images(light_run: Saved) -> None:
    x, y = (torch.from_numpy(np.stack(light_run.pictures(group))).double() for group in ("reference", "jpeg"))
    each = torch.stack([peak_signal_noise_ratio(b, a, data_range=255.0) for a, b in zip(x, y, strict=True)])
    ours = kept.psnr_of_mean_error(Whole(np.empty((64, 0)), np.empty((64, 0)), {"psnr": each.numpy()}))
    assert ours == pytest.approx(float(peak_signal_noise_ratio(y, x, data_range=255.0)), abs=1e-6)
    assert ours < float(each.mean()) - 0.1


def test_psnr_of_the_mean_error_with_exact_images() -> None:
    exact = Whole(np.empty((2, 0)), np.empty((2, 0)), {"psnr": np.array([np.inf, 20.0])})
    assert kept.psnr_of_mean_error(exact) == pytest.approx(20.0 + 10.0 * np.log10(2.0))
    assert kept.psnr_of_mean_error(exact.rows(np.array([0]))) == float("inf")


@pytest.mark.parametrize(("subsets", "size"), [(100, 1000), (7, 50)])
def test_kid_of_subsets_is_torch_fidelitys(subsets: int, size: int) -> None:
    whole = features(1_100)
    sides = [torch.from_numpy(side) for side in (whole.reference_features, whole.features)]
    theirs = kid_features_to_metric(*sides, kid_subsets=subsets, kid_subset_size=size, rng_seed=kept.SEED, verbose=False)
    ours = kept.kid_of_subsets(whole, subsets, size)
    assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3, abs=1e-7)


def test_kid_of_all_is_torch_fidelitys_with_one_subset() -> None:
    whole = features(64)
    sides = [torch.from_numpy(side) for side in (whole.reference_features, whole.features)]
    theirs = kid_features_to_metric(*sides, kid_subsets=1, kid_subset_size=64, verbose=False)
    assert kept.kid_of_all(whole) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3, abs=1e-7)


def test_rows_that_count() -> None:
    assert kept.first(3)(10).tolist() == [0, 1, 2]
    draw = kept.drawn(5)(20)
    assert len(set(draw.tolist())) == 5
    assert draw.tolist() == sorted(kept.drawn(5)(20).tolist())
    assert kept.whole_batches(4)(10).tolist() == list(range(8))
    sampler = torch.utils.data.DistributedSampler(range(10), num_replicas=4, rank=0, shuffle=False)  # type: ignore[arg-type]
    assert len(kept.padded(4)(10)) == sampler.total_size == 12
    parts = [list(torch.utils.data.DistributedSampler(range(10), 4, rank, shuffle=False)) for rank in range(4)]  # type: ignore[arg-type]
    assert sorted(kept.padded(4)(10).tolist()) == sorted(index for part in parts for index in part)


def test_padding_of_fewer_images_than_processes() -> None:
    parts = [list(torch.utils.data.DistributedSampler(range(3), 8, rank, shuffle=False)) for rank in range(8)]  # type: ignore[arg-type]
    assert sorted(kept.padded(8)(3).tolist()) == sorted(index for part in parts for index in part)


@pytest.mark.parametrize(
    ("rows", "n", "words"),
    [
        (kept.first(5_000), 450, "more than 5,000 images; the run has 450"),
        (kept.first(5_000), 5_000, "more than 5,000"),
        (kept.drawn(10_000), 9_999, "more than 10,000"),
        (kept.whole_batches(32), 64, "no multiple"),
        (kept.whole_batches(32), 31, "above 32"),
        (kept.padded(8), 64, "no multiple of 8"),
        (kept.between(1_000, 10**9), 999, "1,000 to"),
    ],
)
def test_what_cannot_be_taken_says_what_it_needs(rows: kept.Rows, n: int, words: str) -> None:
    with pytest.raises(Needs, match=words):
        rows(n)


def test_a_figure_is_the_protocols() -> None:
    whole = features(64)
    assert kept.figure("kid", whole) != pytest.approx(kept.kid_of_all(whole), rel=1e-3)
    assert kept.figure("psnr", whole) == pytest.approx(whole.columns["psnr"].mean())
    assert (
        kept.figure("rfid", whole)
        > kept.figure("rfid", Whole(whole.features, whole.features, {}))
        == pytest.approx(0.0, abs=1e-9)
    )
