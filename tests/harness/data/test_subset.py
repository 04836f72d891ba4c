from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from harness.data.subset import stratified_subset

SIZES = {"a": 50, "b": 30, "c": 13, "d": 7}
ITEMS = [(f"{label}{i:03d}", label) for label, size in SIZES.items() for i in range(size)]


def draw(items, count, seed=0):
    keys, strata = [key for key, _ in items], [label for _, label in items]
    return [items[index] for index in stratified_subset(keys, strata, count, seed)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 17, 50, 99])
def test_shares_are_proportional_within_one(count):
    for seed in range(5):
        chosen = draw(ITEMS, count, seed)
        assert len(set(chosen)) == count
        taken = Counter(label for _, label in chosen)
        assert all(abs(taken[label] - count * size / 100) < 1 for label, size in SIZES.items())


def test_file_order_does_not_matter():
    shuffled = ITEMS.copy()
    Random(3).shuffle(shuffled)
    assert set(draw(ITEMS, 20)) == set(draw(shuffled, 20))


def test_seeds_differ_and_repeat():
    assert draw(ITEMS, 20, 1) == draw(ITEMS, 20, 1)
    assert draw(ITEMS, 20, 1) != draw(ITEMS, 20, 2)


def test_more_than_there_is_takes_all():
    assert draw(ITEMS, 1000) == ITEMS
    assert draw(ITEMS, 100) == ITEMS


def test_balanced_classes_differ_by_at_most_one():
    items = [(f"{label}-{i}", str(label)) for label in range(10) for i in range(20)]
    taken = Counter(label for _, label in draw(items, 33))
    assert sorted(taken.values()) == [3] * 7 + [4] * 3


def test_fewer_items_than_classes_reach_every_class_over_seeds():
    taken = Counter(label for seed in range(400) for _, label in draw(ITEMS, 1, seed))
    # 400 draws of one item: the shares follow the sizes, within five standard deviations.
    for label, size in SIZES.items():
        share = size / 100
        assert abs(taken[label] - 400 * share) < 5 * (400 * share * (1 - share)) ** 0.5
