"""What a row of results says of itself before anybody quotes it."""

from __future__ import annotations

from dataclasses import asdict, replace

from harness.cost.cost import Cost, CostCell
from harness.data.types import DatasetInfo, Skipped
from harness.decoder import DecoderSpec
from harness.record.marks import rate_ratio, row_marks, with_ratios
from harness.record.schema import DatasetFacts, Details, NoiseFacts, Rate, Result, SampleCounts

RESULT = Result("a", "a", {}, "photos", 16, {}, {}, None, {}, None, {}, None, 0, None, "nothing")


COST = Cost((CostCell(1, "ok", None, reason="2 cores busy", disturbed=True),), 1.0, None, 0, ("triton::kernel",))


LATE = Cost(
    (
        CostCell(1, "ok", None, estimated="from 3, 6 and 9 of 50 steps, on a line within 1.0 %"),
        CostCell(8, "skipped_budget", None, reason="two decodes do not fit"),
        CostCell(9, "ok", None),
    ),
    1.0,
    None,
    0,
)


def details(clamped: float = 0.0, draws: bool = False, batch: float | None = None, cost: Cost | None = None) -> Details:
    noise = NoiseFacts(False, (0,), {}, None, global_draws=draws, batch_dependence=batch)
    spec = DecoderSpec("d", 8, 4, 1, 1, 0, None, None, "nothing")
    return Details(spec, None, 0.95, {}, 0, clamped, noise, None, None, cost)


def dataset(excluded: int = 0, partial: bool = False, subset: str = "") -> DatasetFacts:
    info = DatasetInfo("photos", None, 256, 16, 16, 0, partial, subset, True, "", "p")
    skipped = tuple(Skipped(f"{place}.png", "r") for place in range(excluded))
    return DatasetFacts(info, SampleCounts(16, 16, 16 - excluded), (), skipped, "s", "r")


def test_a_row_says_what_must_be_known_before_it_is_quoted() -> None:
    assert row_marks(RESULT, details(0.009, batch=1.0), dataset()) == []
    marks = row_marks(replace(RESULT, disturbed=True), details(0.25, True, 2.0, COST), dataset(3, True, "unlabelled"))
    for words in (
        "own random numbers",
        "depends on its batch",
        "25 % of its values",
        "other work ran on the machine: its times say nothing (2 cores busy)",
        "not counted in its GFLOPs: triton::kernel",
        "drawn without labels",
        "3 images left out",
        "a partial data set",
    ):
        assert any(words in mark for mark in marks), words


def test_a_time_that_was_not_measured_says_so() -> None:
    assert row_marks(RESULT, details(cost=LATE), dataset()) == [
        "its time at batch 1 is estimated from 3, 6 and 9 of 50 steps, on a line within 1.0 %",
        "not timed at batch 8: two decodes do not fit",
    ]


def test_rates_are_held_against_one_another_by_what_is_known_of_both() -> None:
    nominal, effective = Rate(16.0, 1.0, "nominal"), Rate(16.0, 1.0, "nominal", effective_bits_per_image=4.0)
    files, wide = Rate(5.0, 1.0, "files"), Rate(64.0, 1.0, "nominal", effective_bits_per_image=8.0)
    expected = {
        (files, effective): 5 / 4,
        (files, nominal): 5 / 16,
        (wide, effective): 8 / 4,
        (wide, nominal): 64 / 16,
        (nominal, wide): 16 / 64,
        (effective, files): 4 / 5,
        (files, None): None,
        (None, files): None,
    }
    for (rate, baseline), ratio in expected.items():
        one, other = (replace(RESULT, rate=side) for side in (rate, baseline))
        assert rate_ratio(one, other) == ratio
        (row,) = with_ratios([asdict(one)], asdict(other))
        assert (row["rate_ratio"], row["rate_baseline"]) == (ratio, "a")
    assert with_ratios([asdict(RESULT)], None)[0]["rate_ratio"] is None
