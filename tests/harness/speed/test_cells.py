"""Figures of cells against arithmetic done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.cost.flops import Work
from harness.cost.roofline import Ceilings
from harness.decoder import DecoderSpec
from harness.speed.cells import Cell, Place, empty_cell, noise_floor, timed_cell
from harness.speed.messages import Facts, Memory, Prepared, Reply, Row
from harness.speed.protocol import Setting
from harness.speed.turns import Timing

SETTING = Setting(256, "compile", 4)
CEILINGS = Ceilings(1e12, "product", 1e11, "copy", {}, "cpu", "float32", 1)
PLACE = Place("fp32", 1, CEILINGS)
SPEC = DecoderSpec("a", 8, 4, 50, 3, 1234, None, None, "nothing")
FACTS = Facts(SPEC, Work(2.0, 0.1, 0.05, 0.04))


def timing(label: str, seconds: list[list[float]], first_ms: float = 5000.0) -> Timing:
    rounds = [{"decode": turn, "end-to-end": [2 * value for value in turn]} for turn in seconds]
    prepared = Prepared(4, first_ms, 200.0, 6, True, True)
    return Timing(label, Reply("ok", value=prepared), prepared, rounds)  # type: ignore[arg-type]


def test_figures_of_a_cell() -> None:
    cell = timed_cell(SETTING, PLACE, "decode", timing("a", [[0.1, 0.2], [0.3]]), FACTS, Memory(700.0, 12.5), ["flag"])
    assert cell.median_ms == pytest.approx(200.0)
    assert cell.p10_ms == pytest.approx(120.0)  # linear between 100 and 200
    assert cell.p90_ms == pytest.approx(280.0)
    assert cell.p99_ms == pytest.approx(298.0)
    assert (cell.n_calls, cell.warmup_calls) == (3, 6)
    assert cell.ms_per_image == pytest.approx(50.0)
    assert cell.images_per_s == pytest.approx(12 / 0.6)  # twelve images in 0.6 s
    assert cell.compile_s == pytest.approx(5.0 - 0.2)
    assert (cell.cold_ms, cell.peak_memory_mb) == (700.0, 12.5)
    assert (cell.gflops, cell.parameters, cell.steps, cell.scales) == (2.0, 1234, 50, 3)
    assert cell.achieved_gflops_per_s == pytest.approx(2.0 / 0.05)
    assert cell.mfu == pytest.approx(2e9 / 0.05 / 1e12)
    assert cell.achieved_gb_per_s == pytest.approx((0.05 + 0.04 / 4) / 0.05)
    assert cell.flags == ("flag",)
    assert (cell.energy_j_per_image, cell.power) == (None, None)


def test_end_to_end_has_its_own_samples_and_rows_their_own_throughput() -> None:
    one = timing("a", [[0.1], [0.1], [0.1]])
    one.rows["end-to-end"] = Row(10, 1.6, None)
    cell = timed_cell(replace(SETTING, mode="eager"), PLACE, "end-to-end", one, None, None, [])
    assert cell.median_ms == pytest.approx(200.0)
    assert cell.images_per_s == pytest.approx(40 / 1.6)
    assert (cell.compile_s, cell.gflops, cell.mfu, cell.peak_memory_mb) == (None, None, None, None)


def test_what_a_reader_should_know_is_flagged() -> None:
    one = timing("a", [[0.1]])
    one.prepared = Prepared(4, 1.0, 1.0, 6, settled=False, pinned=False)
    cell = timed_cell(SETTING, PLACE, "decode", one, FACTS, None, [])
    assert len(cell.flags) == 2
    assert "settle" in cell.flags[0]
    assert "pinned" in cell.flags[1]


def ok(decoder: str, ms: float, gflops: float, mode: str = "eager", dtype: str = "fp32") -> Cell:
    cell = empty_cell(decoder, Setting(256, "eager", 8), Place(dtype, 1), "decode", "ok", None)
    return replace(cell, mode=mode, ms_per_image=ms, gflops=gflops)


def test_ratios_say_how_many_times_as_fast() -> None:
    first, other = ok("slow", 30.0, 34.0), ok("quick", 1.0, 1.0)
    cell = other.against(first)
    assert cell.ratio_to_first == pytest.approx(30.0)
    assert cell.flop_ratio_to_first == pytest.approx(34.0)
    assert cell.share_of_flop_ratio == pytest.approx(30 / 34)
    assert other.against(first, 17.0).ratio_to_first == 17.0  # what turns gave counts
    assert other.against(first, 17.0).share_of_flop_ratio == pytest.approx(17 / 34)
    assert other.against(None).ratio_to_first is None
    failed = empty_cell("slow", Setting(256, "eager", 8), Place("fp32", 1), "decode", "failed", "why")
    assert other.against(failed).ratio_to_first is None


def test_the_noise_floor_covers_what_turns_show() -> None:
    one = timing("a", [[0.10], [0.11], [0.10], [0.10]])
    other = timing("again", [[0.10], [0.10], [0.10], [0.125]])
    floor = noise_floor(SETTING, PLACE, "decode", one, other)
    assert (floor.decoder, floor.rounds, floor.ratio) == ("a", 4, pytest.approx(1.0))
    # |ratio - 1| is 0, 0.1, 0, 0.2; the 95th percentile lies 85 % of the way from 0.1 to 0.2.
    assert floor.floor == pytest.approx(0.185)
    shifted = noise_floor(SETTING, PLACE, "decode", timing("a", [[0.1]] * 3), timing("again", [[0.08]] * 3))
    assert (shifted.ratio, shifted.floor) == (pytest.approx(1.25), pytest.approx(0.25))
    other.reply = Reply("failed", "why")
    assert noise_floor(SETTING, PLACE, "decode", one, other).floor is None
