from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats.estimate import Student
from harness.stats.paired import Bootstrap, mean_estimate, paired_difference


def _skewed(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(1.5, size=n)


def _normal_level(level: float, units: int) -> float:
    """The level whose normal quantile is the widened Student quantile of `level`."""
    z = math.sqrt(units / (units - 1)) * stats.t.ppf(0.5 + level / 2, units - 1)
    return float(2 * stats.norm.cdf(z) - 1)


@pytest.mark.parametrize("n", [40, 400])
def test_ends_are_the_further_of_scipys_bca_at_the_widened_level_and_students(n: int) -> None:
    values = _skewed(n)
    expected = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=2000,
        method="BCa",
        rng=np.random.default_rng(3),
        confidence_level=_normal_level(0.95, n),
    ).confidence_interval
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert low < expected.low  # right-skewed: BCa moves both ends up
    assert high < expected.high
    interval = mean_estimate(values, resamples=2000, seed=3).interval()
    assert (interval.low, interval.high) == pytest.approx((low, expected.high), rel=1e-9)


def test_clustered_ends_are_the_further_of_scipys_bca_of_the_ratio_and_students() -> None:
    generator = np.random.default_rng(1)
    clusters = np.repeat(np.arange(25), generator.integers(1, 9, 25))
    values = generator.normal(size=25)[clusters] + generator.normal(size=len(clusters))
    sums, sizes = np.bincount(clusters, weights=values), np.bincount(clusters).astype(float)
    expected = stats.bootstrap(
        (sums, sizes),
        lambda s, c, axis: s.sum(axis=axis) / c.sum(axis=axis),
        n_resamples=2000,
        method="BCa",
        paired=True,
        rng=np.random.default_rng(3),
        confidence_level=_normal_level(0.95, 25),
    ).confidence_interval
    estimate = mean_estimate(values, [f"photo{c}" for c in clusters], resamples=2000, seed=3)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.units == 25
    assert estimate.method == "BCa bootstrap, 2,000 resamples, or Student t where that is wider"
    residuals = sums - values.mean() * sizes
    error = math.sqrt(25 / 24 * np.square(residuals).sum()) / len(values)
    low, high = stats.t.interval(0.95, 24, loc=values.mean(), scale=error)
    interval = estimate.interval()
    ends = min(low, expected.low), max(high, expected.high)
    assert (interval.low, interval.high) == pytest.approx(ends, rel=1e-9)


@pytest.mark.parametrize("shift", [-0.3, -0.2, 0.0, 0.15, 0.25])
def test_p_value_inverts_the_interval(shift: float) -> None:
    estimate = paired_difference(_skewed(60), _skewed(60, 1) + shift)
    p = estimate.p_value()
    assert 0.001 < p < 0.999
    ends = estimate.interval(1.0 - p)
    assert min(abs(ends.low), abs(ends.high)) == pytest.approx(0.0, abs=1e-3)
    assert (p < 0.05) == (estimate.interval().low > 0.0 or estimate.interval().high < 0.0)


def test_p_value_of_a_plain_difference_is_near_the_t_tests() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 400))
    assert paired_difference(first, second).p_value() == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=0.02)


@pytest.mark.parametrize("n", [12, 20, 100])
@pytest.mark.parametrize("effect", [3.0, 50.0, -50.0])
@pytest.mark.parametrize("skewed", [False, True])
def test_beyond_the_draws_p_is_the_t_tests(n: int, effect: float, skewed: bool) -> None:
    values = _skewed(n) if skewed else np.random.default_rng(0).normal(size=n)
    values = (values - values.mean()) / values.std() + effect
    estimate = paired_difference(values, np.zeros(n))
    p, expected = estimate.p_value(), stats.ttest_1samp(values, 0.0).pvalue
    assert expected * (1.0 - 1e-9) <= p <= 1.01 * expected
    ends = estimate.interval(1.0 - 1e-6)
    assert (ends.low > 0.0 or ends.high < 0.0) == (p < 1e-6)


def test_what_float64_cannot_tell_from_nothing_is_not_called_nothing() -> None:
    values = np.random.default_rng(0).normal(size=450)
    assert 0.0 < paired_difference(values + 50.0, np.zeros(450)).p_value() < 1e-300


@pytest.mark.parametrize("seed", range(6))
def test_p_falls_steadily_and_inverts_the_interval_at_every_level(seed: int) -> None:
    estimate = mean_estimate(_skewed(14, seed), resamples=1999)
    for end in (-1.0, 1.0):
        nulls = estimate.value + end * estimate.standard_error * np.linspace(0.5, 30.0, 400)
        p = [estimate.p_value(null) for null in nulls]
        assert np.all(np.diff(p) < 0.0)
        for null, value in list(zip(nulls, p, strict=True))[::20]:
            if value > 1e-14:  # 1 - p in float64
                interval = estimate.interval(1.0 - value)
                assert (interval.low if end < 0 else interval.high) == pytest.approx(null, rel=1e-2, abs=1e-2)


def test_pairing_takes_out_what_images_have_in_common() -> None:
    hard = np.random.default_rng(0).normal(0.0, 5.0, 200)
    noise = np.random.default_rng(1).normal(0.0, 0.1, 200)
    difference = paired_difference(hard + 0.05 + noise, hard)
    assert difference.interval().low > 0.0
    assert mean_estimate(hard).standard_error > 20 * difference.standard_error


def test_equal_decoders_differ_by_exactly_nothing() -> None:
    values = _skewed(30)
    estimate = paired_difference(values, values)
    assert (estimate.interval().low, estimate.interval().high, estimate.p_value()) == (0.0, 0.0, 1.0)


def test_one_constant_difference_is_worth_a_sign_test() -> None:
    values = _skewed(10)
    estimate = paired_difference(values + 0.5, values)
    assert estimate.interval().low == pytest.approx(0.5)
    assert estimate.p_value() == 2.0**-9


def test_one_photograph_gives_no_interval_and_says_so() -> None:
    estimate = paired_difference(_skewed(12), _skewed(12, 1), ["cat"] * 12)
    assert not estimate.interval().known
    assert estimate.p_value() == 1.0
    assert estimate.note == "1 independent photograph: no interval"


def test_few_photographs_fall_back_to_student_and_say_so() -> None:
    estimate = mean_estimate(_skewed(12), [i % 4 for i in range(12)])
    assert isinstance(estimate.spread, Student)
    assert estimate.note == "only 4 independent photographs"
    assert isinstance(mean_estimate(_skewed(12)).spread, Bootstrap)


def test_crops_of_a_photograph_are_not_independent() -> None:
    photos = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    values = photos + np.random.default_rng(1).normal(0.0, 0.1, 200)
    assert mean_estimate(values, np.arange(200) // 10).standard_error > 2 * mean_estimate(values).standard_error


def test_exact_images_are_left_out_and_counted() -> None:
    first, second = _skewed(20), _skewed(20, 1)
    first[:3], second[2:5] = math.inf, math.inf
    assert mean_estimate(first).value == pytest.approx(first[3:].mean())
    estimate = paired_difference(first, second)
    assert estimate.value == pytest.approx((first[5:] - second[5:]).mean())
    assert estimate.note == "left out as exact: 3 images here, 3 in the baseline"
    assert estimate.n == 15


def test_wholly_exact_decoders() -> None:
    exact, other = np.full(9, math.inf), _skewed(9)
    assert mean_estimate(exact).value == math.inf
    both = paired_difference(exact, exact)
    assert (both.value, both.interval().low, both.interval().high, both.p_value()) == (0.0, 0.0, 0.0, 1.0)
    for first, second, value in ((exact, other, math.inf), (other, exact, -math.inf)):
        one = paired_difference(first, second)
        assert one.value == value
        assert not one.interval().known
        assert one.p_value() == pytest.approx(2.0**-8)
        assert one.method == "sign test"
        assert "a sign test" in one.note
    photographs = paired_difference(exact, other, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    assert (photographs.units, photographs.p_value()) == (3, pytest.approx(2.0**-2))


def test_the_sign_test_weighs_the_images_that_are_exact_on_one_side_only() -> None:
    exact, other = np.full(12, math.inf), _skewed(12)
    other[0] = math.inf
    assert paired_difference(exact, other).p_value() == pytest.approx(2.0**-10)
    some = np.where(np.arange(12) < 9, math.inf, 1.0)
    mixed = paired_difference(some, np.where(np.arange(12) < 9, 1.0, math.inf))  # 9 against 3
    assert mixed.value == math.inf
    assert mixed.p_value() == pytest.approx(2 * (220 + 66 + 12 + 1) / 2**12)
    even = paired_difference(np.where(np.arange(12) < 6, math.inf, 1.0), np.where(np.arange(12) < 6, 1.0, math.inf))
    assert (even.value, even.p_value()) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("values", "message"), [([], "at least one"), ([1.0, math.nan], "NaN"), ([-math.inf, 1.0], "-inf"), ([[1.0]], "shape")]
)
def test_what_is_no_list_of_values_is_refused(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_estimate(values)


def test_pairs_need_equally_many_images() -> None:
    with pytest.raises(ValueError, match="equally many"):
        paired_difference([1.0, 2.0], [1.0])


def test_the_seed_decides() -> None:
    values = _skewed(30)
    assert mean_estimate(values, seed=1).interval() == mean_estimate(values, seed=1).interval()
    assert mean_estimate(values, seed=1).interval() != mean_estimate(values, seed=2).interval()
