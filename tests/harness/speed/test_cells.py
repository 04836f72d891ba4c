"""Figures of rows against arithmetic done by hand; everybody's own fastest mode, before and after the same turns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.cost.attempt import Outcome
from harness.cost.flops import Work
from harness.cost.load import Load
from harness.cost.roofline import Ceilings
from harness.decoder import DecoderSpec
from harness.speed.cells import ONE_BY_ONE, Fastest, SpeedRow, fastest, noise_floor, speed_row
from harness.speed.messages import Burst, Facts, Memory, Prepared, TurnTimes
from harness.speed.protocol import Setting
from harness.speed.turns import TimedCalls

SETTING = Setting(256, "compile", 4, "fp32", 1)
CEILINGS = Ceilings(1e12, "product", 1e11, "copy", {}, "cpu", "float32", 1)
SPEC = DecoderSpec("a", 8, 4, 50, 3, 1234, None, None, "nothing")
FACTS = Facts(SPEC, Work(2.0, 0.1, 0.05, 0.04))


def timing(label: str, seconds: list[list[float]], first_ms: float = 5000.0) -> TimedCalls:
    rounds = [TurnTimes({"decode": turn, "end-to-end": [2 * value for value in turn]}) for turn in seconds]
    prepared = Prepared(4, first_ms, 200.0, 6, True, True)
    return TimedCalls(label, SETTING, Outcome("ok"), prepared, rounds)


def test_figures_of_a_cell() -> None:
    cell = speed_row(timing("a", [[0.1, 0.2], [0.3]]), "decode", FACTS, Memory(700.0, 12.5), CEILINGS)
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
    assert (cell.flags, cell.disturbed) == ((), False)
    assert (cell.energy_j_per_image, cell.power) == (None, None)


def test_end_to_end_has_its_own_samples_and_bursts_their_own_throughput() -> None:
    one = timing("a", [[0.1], [0.1], [0.1]])
    one.bursts["end-to-end"] = Burst(10, 1.6, None)
    cell = speed_row(replace(one, setting=replace(SETTING, mode="eager")), "end-to-end")
    assert cell.median_ms == pytest.approx(200.0)
    assert cell.images_per_s == pytest.approx(40 / 1.6)
    assert (cell.compile_s, cell.gflops, cell.mfu, cell.peak_memory_mb) == (None, None, None, None)


def test_what_a_reader_should_know_is_flagged() -> None:
    one = timing("a", [[0.1]])
    one.prepared = Prepared(4, 1.0, 1.0, 6, settled=False, pinned=False)
    cell = speed_row(one, "decode", FACTS)
    assert len(cell.flags) == 2
    assert "settle" in cell.flags[0]
    assert "pinned" in cell.flags[1]
    one.prepared = Prepared(4, 1.0, 1.0, 6, True, True, "batch 8 failed: RuntimeError: illegal memory access")
    facts = Facts(SPEC, Work(2.0, 0.1, 0.05, 0.04, ("flash_attn::forward",)))
    cell = speed_row(replace(one, setting=replace(SETTING, batch="max")), "decode", facts)
    ended = "the search for the largest batch ended early (batch 8 failed: RuntimeError: illegal memory access)"
    assert cell.flags == (ONE_BY_ONE, ended, "not counted: flash_attn::forward")
    assert cell.uncounted == ("flash_attn::forward",)


def test_other_work_on_the_machine_marks_the_row() -> None:
    one = timing("a", [[0.1], [0.1]])
    one.rounds = [
        TurnTimes(turn.seconds, Load(1.0, delay, None, 3.0)) for turn, delay in zip(one.rounds, (0.0, 0.2), strict=True)
    ]
    row = speed_row(one, "decode", FACTS)
    assert (row.load, row.disturbed) == (Load(2.0, 0.1, None, 3.0), True)
    assert row.flags == ("disturbed: its threads waited for a CPU 10 % of the time",)


def ok(decoder: str, ms: float, gflops: float, mode: str = "eager", dtype: str = "fp32") -> SpeedRow:
    row = speed_row(TimedCalls(decoder, Setting(256, "eager", 8, dtype, 1), Outcome("ok")), "decode")
    return replace(row, mode=mode, ms_per_image=ms, gflops=gflops)  # type: ignore[arg-type]


def test_ratios_say_how_many_times_as_fast() -> None:
    first, other = ok("slow", 30.0, 34.0), ok("quick", 1.0, 1.0)
    cell = other.against(first)
    assert cell.ratio_to_first == pytest.approx(30.0)
    assert cell.flop_ratio_to_first == pytest.approx(34.0)
    assert cell.share_of_flop_ratio == pytest.approx(30 / 34)
    assert other.against(first, 17.0).ratio_to_first == 17.0  # what turns gave counts
    assert other.against(first, 17.0).share_of_flop_ratio == pytest.approx(17 / 34)
    assert other.against(None).ratio_to_first is None
    failed = speed_row(TimedCalls("slow", SETTING, Outcome("failed", "why")), "decode")
    assert other.against(failed).ratio_to_first is None


@pytest.mark.parametrize(("one", "other"), [(True, False), (False, True)])
def test_a_disturbed_time_gives_no_ratio(one: bool, other: bool) -> None:
    first, cell = replace(ok("slow", 30.0, 34.0), disturbed=one), replace(ok("quick", 1.0, 1.0), disturbed=other)
    for found in (cell.against(first), cell.against(first, 17.0)):
        assert (found.ratio_to_first, found.share_of_flop_ratio) == (None, None)
        assert found.flop_ratio_to_first == pytest.approx(34.0)


def test_the_noise_floor_covers_what_turns_show() -> None:
    one = timing("a", [[0.10], [0.11], [0.10], [0.10]])
    other = timing("again", [[0.10], [0.10], [0.10], [0.125]])
    floor = noise_floor(one, other, "decode")
    assert (floor.decoder, floor.rounds, floor.ratio) == ("a", 4, pytest.approx(1.0))
    # |ratio - 1| is 0, 0.1, 0, 0.2; the 95th percentile lies 85 % of the way from 0.1 to 0.2.
    assert floor.floor == pytest.approx(0.185)
    shifted = noise_floor(timing("a", [[0.1]] * 3), timing("again", [[0.08]] * 3), "decode")
    assert (shifted.ratio, shifted.floor) == (pytest.approx(1.25), pytest.approx(0.25))
    other.outcome = Outcome("failed", "why")
    assert noise_floor(one, other, "decode").floor is None


def mixed() -> list[SpeedRow]:
    return [
        ok("slow", 30.0, 34.0),
        ok("quick", 1.0, 1.0),
        replace(ok("quick", 1.1, 1.0), scope="end-to-end"),
        ok("slow", 20.0, 34.0, "compile"),
        ok("quick", 1.5, 1.0, "compile"),
        ok("slow", 25.0, 34.0, "compile", "bf16"),
        replace(ok("slow", 1.0, 34.0, "cudagraph"), status="unsupported"),
    ]


def only(tables: list[Fastest]) -> Fastest:
    assert len(tables) == 1
    return tables[0]


def test_everybody_in_their_own_fastest_mode() -> None:
    table = only(fastest(mixed(), "slow"))
    assert not table.side_by_side
    rows = {(row["decoder"], row["scope"]): row for row in table.entries()}
    slow, quick = rows["slow", "decode"], rows["quick", "decode"]
    assert (slow["mode"], slow["dtype"], slow["ratio_to_first"]) == ("compile", "fp32", 1.0)
    assert (quick["mode"], quick["ratio_to_first"]) == ("eager", pytest.approx(20.0))
    assert quick["share_of_flop_ratio"] == pytest.approx(20 / 34)
    assert rows["quick", "end-to-end"]["ms_per_image"] == 1.1
    assert rows["quick", "end-to-end"]["ratio_to_first"] is None
    alone = only(fastest([ok("quick", 1.0, 1.0)], "slow"))
    assert alone.entries()[0]["ratio_to_first"] is None


def test_one_setting_was_timed_in_turns_already_and_keeps_its_ratios() -> None:
    cells = [ok("slow", 30.0, 34.0), replace(ok("quick", 1.0, 1.0), ratio_to_first=29.0)]
    table = only(fastest(cells, "slow"))
    assert table.side_by_side
    assert [row["ratio_to_first"] for row in table.entries()] == [None, 29.0]


def test_times_of_the_same_turns_replace_those_of_other_minutes() -> None:
    """The machine halves its speed in the second round; within each round the one is ten times as fast as the other."""

    def timing(label: str, seconds: list[float]) -> TimedCalls:
        prepared = Prepared(8, 1.0, 1.0, 4, True, True)
        rounds = [TurnTimes({"decode": [value], "end-to-end": [value]}) for value in seconds]
        return TimedCalls(label, SETTING, Outcome("ok"), prepared, rounds)

    timings = {"slow": timing("slow", [0.8, 1.6, 1.6]), "quick": timing("quick", [0.08, 0.16, 0.16])}
    again = only(fastest(mixed(), "slow")).timed_again(timings, "slow")
    assert again.side_by_side
    quick = next(row for row in again.entries() if row["decoder"] == "quick")
    assert quick["ratio_to_first"] == pytest.approx(10.0)
    assert quick["share_of_flop_ratio"] == pytest.approx(10 / 34)
    assert (quick["ms_per_image"], quick["n_calls"]) == (pytest.approx(20.0), 3)
    timings["slow"].rounds[0] = replace(timings["slow"].rounds[0], load=Load(1.0, 0.5, None, None))
    rows = {row["decoder"]: row for row in only(fastest(mixed(), "slow")).timed_again(timings, "slow").entries()}
    assert {name: (row["disturbed"], row["ratio_to_first"]) for name, row in rows.items()} == {
        "slow": (True, None),
        "quick": (False, None),
    }
