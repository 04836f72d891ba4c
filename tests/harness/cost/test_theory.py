"""The cost model against the figures its design states."""

from __future__ import annotations

import pytest

from harness.cost.theory import ideal_cost, ideal_speedup, ideal_sweep_cost


def test_a_sweep_costs_a_geometric_sum() -> None:
    assert [ideal_sweep_cost(scales) for scales in (1, 2, 3)] == [1.0, 1.25, 1.3125]
    assert ideal_sweep_cost(30) == pytest.approx(4 / 3)


def test_one_step_a_scale_against_fifty() -> None:
    assert ideal_speedup((1, 1, 1), full_steps=50) == pytest.approx(50 / 1.3125)
    assert ideal_speedup((1, 1, 1), full_steps=50) == pytest.approx(38.1, abs=0.05)


def test_steps_spread_evenly_speed_up_by_scales_over_sweep() -> None:
    for scales in (1, 2, 3, 4):
        assert ideal_speedup((10,) * scales) == pytest.approx(scales / ideal_sweep_cost(scales))
    assert ideal_speedup((16, 17, 17)) == pytest.approx(50 / (1 + 17 / 4 + 17))


def test_full_steps_at_every_scale_cost_more_than_full_resolution() -> None:
    assert ideal_speedup((50, 50, 50), full_steps=50) < 1


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one scale"):
        ideal_sweep_cost(0)
    for steps in ((), (0, 0), (-1, 2)):
        with pytest.raises(ValueError, match="steps per scale"):
            ideal_cost(steps)
