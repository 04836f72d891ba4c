"""Everybody's own fastest mode: which it is, and what ratios say before and after the same turns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.speed.cells import Cell, Place, empty_cell
from harness.speed.fastest import Fastest, fastest
from harness.speed.messages import Prepared, Reply
from harness.speed.protocol import Setting
from harness.speed.turns import Timing


def ok(decoder: str, ms: float, gflops: float, mode: str = "eager", dtype: str = "fp32") -> Cell:
    cell = empty_cell(decoder, Setting(256, "eager", 8), Place(dtype, 1), "decode", "ok", None)
    return replace(cell, mode=mode, ms_per_image=ms, gflops=gflops)


def mixed() -> list[Cell]:
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
    rows = {(row["decoder"], row["scope"]): row for row in table.rows()}
    slow, quick = rows["slow", "decode"], rows["quick", "decode"]
    assert (slow["mode"], slow["dtype"], slow["ratio_to_first"]) == ("compile", "fp32", 1.0)
    assert (quick["mode"], quick["ratio_to_first"]) == ("eager", pytest.approx(20.0))
    assert quick["share_of_flop_ratio"] == pytest.approx(20 / 34)
    assert rows["quick", "end-to-end"]["ms_per_image"] == 1.1
    assert rows["quick", "end-to-end"]["ratio_to_first"] is None
    alone = only(fastest([ok("quick", 1.0, 1.0)], "slow"))
    assert alone.rows()[0]["ratio_to_first"] is None


def test_one_setting_was_timed_in_turns_already_and_keeps_its_ratios() -> None:
    cells = [ok("slow", 30.0, 34.0), replace(ok("quick", 1.0, 1.0), ratio_to_first=29.0)]
    table = only(fastest(cells, "slow"))
    assert table.side_by_side
    assert [row["ratio_to_first"] for row in table.rows()] == [None, 29.0]


def test_times_of_the_same_turns_replace_those_of_other_minutes() -> None:
    """The machine halves its speed in the second round; within each round the one is ten times as fast as the other."""

    def timing(label: str, seconds: list[float]) -> Timing:
        prepared = Prepared(8, 1.0, 1.0, 4, True, True)
        rounds = [{"decode": [value], "end-to-end": [value]} for value in seconds]
        return Timing(label, Reply("ok"), prepared, rounds)  # type: ignore[arg-type]

    timings = {"slow": timing("slow", [0.8, 1.6, 1.6]), "quick": timing("quick", [0.08, 0.16, 0.16])}
    again = only(fastest(mixed(), "slow")).timed_again(timings, "slow")
    assert again.side_by_side
    quick = next(row for row in again.rows() if row["decoder"] == "quick")
    assert quick["ratio_to_first"] == pytest.approx(10.0)
    assert quick["share_of_flop_ratio"] == pytest.approx(10 / 34)
    assert (quick["ms_per_image"], quick["n_calls"]) == (pytest.approx(20.0), 3)
