from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.stats.estimate import unit_numbers
from harness.stats.kid import kid_statistic
from harness.stats.rfid import rfid_statistic
from harness.stats.sets import (
    SetStatistic,
    chosen_units,
    grouped_statistic,
    set_difference,
    set_estimate,
)

Populations = dict[int, Any]


def rfid_again(reference: Any, reconstruction: Any) -> float:
    """By the nuclear norm of the centred features' product."""
    a, b = reference - reference.mean(axis=0), reconstruction - reconstruction.mean(axis=0)
    gap = reference.mean(axis=0) - reconstruction.mean(axis=0)
    spread = np.square(a).sum() + np.square(b).sum() - 2.0 * np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(gap @ gap + spread / (len(a) - 1))


def kid_again(reference: Any, reconstruction: Any) -> float:
    """By the whole kernel matrices."""
    n, dimensions = reference.shape
    xx, yy, xy = (
        (a @ b.T / dimensions + 1.0) ** 3
        for a, b in ((reference, reference), (reconstruction, reconstruction), (reference, reconstruction))
    )
    return float((xx + yy - 2.0 * xy)[~np.eye(n, dtype=bool)].mean())


STATISTICS = pytest.mark.parametrize(
    ("statistic", "metric"), [(rfid_statistic, rfid_again), (kid_statistic, kid_again)], ids=["rfid", "kid"]
)


def _clusters(n: int, count: int | None) -> list[int] | None:
    return None if count is None else np.random.default_rng(5).integers(0, count, n).tolist()


@STATISTICS
@pytest.mark.parametrize(
    ("dimensions", "n", "count"),
    [(16, 60, None), (64, 40, None), (64, 64, None), (64, 65, None), (16, 60, 7), (64, 40, 9), (8, 150, 2)],
)
def test_values_without_each_unit_are_those_of_the_metric_recomputed(
    populations: Populations, statistic: Any, metric: Any, dimensions: int, n: int, count: int | None
) -> None:
    reference, reconstruction = populations[dimensions].draw(n, np.random.default_rng(0))
    found = statistic(reference, reconstruction, _clusters(n, count))
    units = np.array(found.units)
    expected = np.array([metric(reference[units != u], reconstruction[units != u]) for u in range(len(found.without))])
    assert found.value == pytest.approx(metric(reference, reconstruction), rel=1e-9)
    assert np.abs(found.without - expected).max() < 1e-5 * np.abs(expected - found.value).max()


def test_rfid_without_a_unit_where_features_are_of_low_rank(populations: Populations) -> None:
    reference, reconstruction = populations[16].draw(50, np.random.default_rng(0))
    reference, reconstruction = (np.concatenate([f, f[:, :4], np.zeros((50, 3))], axis=1) for f in (reference, reconstruction))
    found = rfid_statistic(reference, reconstruction)
    expected = np.array([rfid_again(*(np.delete(f, i, 0) for f in (reference, reconstruction))) for i in range(50)])
    assert np.abs(found.without - expected).max() < 1e-5 * np.abs(expected - found.value).max()


@STATISTICS
@pytest.mark.parametrize("count", [None, 30])
def test_interactions_are_those_of_the_metric_recomputed(
    populations: Populations, statistic: Any, metric: Any, count: int | None
) -> None:
    reference, reconstruction = populations[16].draw(120, np.random.default_rng(0))
    found = statistic(reference, reconstruction, _clusters(120, count))
    units, chosen = np.array(found.units), chosen_units(len(found.without))
    assert found.interaction.shape == (len(chosen), len(chosen))
    scale = np.abs(found.interaction).max()
    for i, j in ((0, 1), (3, 9), (23, 22)):
        kept = (units != chosen[i]) & (units != chosen[j])
        both = metric(reference[kept], reconstruction[kept])
        expected = found.value - found.without[chosen[i]] - found.without[chosen[j]] + both
        assert abs(found.interaction[i, j] - expected) < 1e-3 * scale
        assert found.interaction[j, i] == pytest.approx(found.interaction[i, j])


def test_the_standard_error_of_a_squared_mean_without_signal_is_nearer_with_interactions() -> None:
    # the mean of x_i · x_j over i ≠ j has variance 2 d / (n (n - 1)) for unit normals in d dimensions; the jackknife alone
    # promises twice that, and half of the excess comes off
    errors, alone = [], []
    for seed in range(200):
        x = np.random.default_rng(seed).normal(size=(60, 40))
        inner, n = x @ x.T, len(x)
        np.fill_diagonal(inner, 0.0)
        value = inner.sum() / (n * (n - 1))
        without = (inner.sum() - 2 * inner.sum(axis=1)) / ((n - 1) * (n - 2))
        chosen = chosen_units(n)
        rows = inner[chosen].sum(axis=1)
        both = inner.sum() - 2 * rows[:, None] - 2 * rows + 2 * inner[np.ix_(chosen, chosen)]
        interaction = value - without[chosen][:, None] - without[chosen] + both / ((n - 2) * (n - 3))
        np.fill_diagonal(interaction, 0.0)
        statistic = SetStatistic(value, without, interaction, n, tuple(range(n)))
        errors.append(set_estimate(statistic).standard_error ** 2)
        alone.append(set_estimate(replace(statistic, interaction=np.zeros((0, 0)))).standard_error ** 2)
    assert np.mean(alone) == pytest.approx(2 * 2 * 40 / (60 * 59), rel=0.1)
    assert np.mean(errors) == pytest.approx(1.5 * 2 * 40 / (60 * 59), rel=0.1)


@STATISTICS
def test_the_jackknife_of_few_pairs_is_the_textbooks(statistic: Any, metric: Any) -> None:
    # the standard error is sqrt((G - 1) / G * sum of squares) of recomputed values, the interval Student's about the value
    generator = np.random.default_rng(0)
    reference, reconstruction = generator.normal(size=(2, 12, 3))
    without = np.array([metric(np.delete(reference, i, 0), np.delete(reconstruction, i, 0)) for i in range(12)])
    estimate = set_estimate(statistic(reference, reconstruction))
    assert estimate.standard_error == pytest.approx(np.sqrt(11 / 12 * np.square(without - without.mean()).sum()), rel=1e-4)
    interval = estimate.interval()
    assert (interval.low + interval.high) / 2 == pytest.approx(estimate.value)
    assert estimate.units == 12


@STATISTICS
def test_a_decoder_does_not_differ_from_itself(populations: Populations, statistic: Any, metric: Any) -> None:
    reference, reconstruction = populations[16].draw(40, np.random.default_rng(0))
    one, other = statistic(reference, reconstruction), statistic(reference, reconstruction.copy())
    difference = set_difference(one, other)
    assert (difference.value, difference.interval().low, difference.interval().high, difference.p_value()) == (0, 0, 0, 1)


@STATISTICS
def test_pairing_makes_differences_surer_than_values(populations: Populations, statistic: Any, metric: Any) -> None:
    reference, first, _ = populations[16].draw(100, np.random.default_rng(0), decoders=2)
    second = first + np.random.default_rng(1).normal(0.0, 0.02, first.shape)
    one, other = statistic(reference, first), statistic(reference, second)
    apart = np.hypot(set_estimate(one).standard_error, set_estimate(other).standard_error)
    assert set_difference(other, one).standard_error < 0.5 * apart


@STATISTICS
def test_equal_crops_of_a_photograph_count_once(populations: Populations, statistic: Any, metric: Any) -> None:
    reference, reconstruction = (np.repeat(f, 5, axis=0) for f in populations[8].draw(40, np.random.default_rng(0)))
    clustered = set_estimate(statistic(reference, reconstruction, np.arange(200) // 5))
    assert clustered.units == 40
    assert clustered.standard_error > 1.5 * set_estimate(statistic(reference, reconstruction)).standard_error


@STATISTICS
def test_a_single_photograph_gives_no_interval(populations: Populations, statistic: Any, metric: Any) -> None:
    reference, reconstruction = populations[8].draw(20, np.random.default_rng(0))
    estimate = set_estimate(statistic(reference, reconstruction, ["cat"] * 20))
    assert estimate.value == pytest.approx(metric(reference, reconstruction))
    assert not estimate.interval().known
    assert estimate.note == "1 independent photograph: no interval"


@STATISTICS
def test_two_images_give_no_interval(statistic: Any, metric: Any) -> None:
    reference, reconstruction = np.random.default_rng(0).normal(size=(2, 2, 4))
    estimate = set_estimate(statistic(reference, reconstruction))
    assert not estimate.interval().known
    assert "too few images" in estimate.note


@STATISTICS
def test_constant_features_have_no_distance(statistic: Any, metric: Any) -> None:
    estimate = set_estimate(statistic(np.ones((9, 4)), np.ones((9, 4))))
    assert estimate.value == pytest.approx(0.0)
    assert estimate.standard_error == pytest.approx(0.0)


def test_a_large_unit_is_recomputed_and_agrees(populations: Populations) -> None:
    reference, reconstruction = populations[16].draw(150, np.random.default_rng(0))
    found = rfid_statistic(reference, reconstruction, [0] * 60 + list(range(1, 91)))
    assert found.without[0] == pytest.approx(rfid_again(reference[60:], reconstruction[60:]), rel=1e-9)


@STATISTICS
def test_differences_need_the_same_units_and_pairs_the_same_shape(statistic: Any, metric: Any) -> None:
    features = np.random.default_rng(0).normal(size=(6, 3))
    with pytest.raises(ValueError, match="same images"):
        set_difference(statistic(features, features), statistic(features, features, [0, 0, 1, 1, 2, 2]))
    with pytest.raises(ValueError, match="one shape"):
        statistic(features, features[:5])


def _variance(values: np.ndarray) -> Any:
    return lambda rows: float(np.var(values[rows], ddof=1))


def test_few_units_are_left_out_one_by_one_and_many_in_forty_groups() -> None:
    values = np.random.default_rng(0).normal(size=30)
    found = grouped_statistic(_variance(values), unit_numbers(None, 30))
    assert found.value == pytest.approx(values.var(ddof=1))
    assert sorted(found.without) == pytest.approx(sorted(np.delete(values, i).var(ddof=1) for i in range(30)))
    assert set_estimate(found).method == "jackknife of pairs"
    clusters = unit_numbers([index // 3 for index in range(450)], 450)
    left: list[np.ndarray] = []
    many = grouped_statistic(lambda rows: float(left.append(rows) or len(rows)), clusters)
    assert (len(many.without), many.count, set_estimate(many).units) == (40, 150, 150)
    assert set_estimate(many).method == "jackknife of 40 groups of pairs"
    for rows in left[1:]:  # whole photographs
        assert not set(clusters[rows]) & set(clusters[np.setdiff1d(np.arange(450), rows)])
    with pytest.raises(ValueError, match="same images"):
        set_difference(found, grouped_statistic(_variance(values), unit_numbers(None, 30), groups=10))


def test_a_grouped_jackknife_is_near_that_of_single_units(populations: Populations) -> None:
    reference, reconstruction = populations[16].draw(400, np.random.default_rng(0))
    single = set_estimate(replace(kid_statistic(reference, reconstruction), interaction=np.zeros((0, 0))))
    grouped = set_estimate(
        grouped_statistic(lambda rows: kid_statistic(reference[rows], reconstruction[rows]).value, np.arange(400))
    )
    assert grouped.value == pytest.approx(single.value)
    assert grouped.standard_error == pytest.approx(single.standard_error, rel=0.3)  # of 40 values: 11 %


@pytest.mark.parametrize("size", [1, 5])
def test_grouped_intervals_hold_a_variance_and_its_difference(size: int) -> None:
    held = wrong = 0
    for draw in range(400):
        generator = np.random.default_rng(draw)
        first, second = np.repeat(generator.normal(size=(2, 300 // size)), size, axis=1)
        units = np.repeat(np.arange(300 // size), size)
        one, other = (grouped_statistic(_variance(values), units) for values in (first, second))
        interval = set_estimate(one).interval()
        held += interval.low <= 1.0 <= interval.high
        wrong += set_difference(one, other).p_value() < 0.05
    assert 0.91 <= held / 400 <= 0.98
    assert wrong / 400 <= 0.08
