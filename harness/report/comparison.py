"""A comparison as tables: differences with interval and verdict, ratios of cost, spread over training seeds; and its columns
beside the results in a CSV.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from harness.compare.comparison import Compared, Comparison, CostRatio, SeedSpread
from harness.metrics.registry import METRICS
from harness.record.marks import other_rate
from harness.report.results import figures, metric_title
from harness.report.table import MISSING, Cell, Column, Table, listing, number, visible


def digits(value: float, like: float) -> str:
    """`value` with the decimals that leave two figures of `like` (an interval's half width), six significant ones at most."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if not like or not math.isfinite(like):
        return f"{value:.4g}"
    return f"{value:,.{min(max(1 - math.floor(math.log10(like)), 0), 6)}f}"


def signed(value: float, like: float) -> str:
    """`digits` with its sign always shown."""
    text = digits(value, like)
    return text if text.startswith("-") or text == MISSING else f"+{text}"


def difference_text(value: float, ci: tuple[float, float]) -> str:
    """A difference with its interval, where it has one."""
    half = (ci[1] - ci[0]) / 2.0
    return signed(value, half) + (f" [{signed(ci[0], half)}, {signed(ci[1], half)}]" if math.isfinite(half) else "")


def ratio_text(one: CostRatio) -> str:
    """A ratio with its interval, where it has one."""
    ends = f" [{_times(one.ci[0])}, {_times(one.ci[1])}]" if one.ci and math.isfinite(one.ci[0]) else ""
    return _times(one.value) + ends


_WORDS = {
    "better": "better in",
    "worse": "worse in",
    "non-inferior within the margin": "no worse than its margin in",
    "no difference shown": "not shown to differ in",
}
_TOLD = 4  # rows that a sentence tells of


def sentence(comparison: Comparison) -> list[str]:
    """The headline metrics in one sentence: text, and at odd places the names of rows.

    Rows whose rate differs from their baseline's, or is unknown beside known ones, are named alone: neither better nor worse.
    """
    told: dict[tuple[str, str], list[Compared]] = {}
    for one in comparison.comparisons:
        if METRICS[one.metric].headline:
            told.setdefault((one.decoder, one.baseline), []).append(one)
    first, rated = comparison.results[0], any(row.get("rate") for row in comparison.results)
    bases, equal = {base for _, base in told}, []
    unequal: dict[str, list[str]] = {}
    for (name, base), found in told.items():
        ratio, titles = found[0].rate_ratio, {verdict: _titles(found, verdict) for verdict in _WORDS}
        if other_rate(ratio) or (rated and ratio is None):
            bits = f" ({ratio:.3g}× the bits)" if ratio else ""
            unequal.setdefault("another" if ratio else "unknown", []).append(_named(name) + bits)
        else:
            against = f" against {_named(base)}" * (len(bases) > 1)
            said = ", ".join(f"{words} {titles[verdict]}" for verdict, words in _WORDS.items() if titles[verdict])
            equal.append(f"{_named(name)}{against} is {said}")
    clauses = equal[:_TOLD] + [f"{len(equal) - _TOLD} more stand below"] * (len(equal) > _TOLD)
    clauses += [f"of {kind} rate and so not ranked: {', '.join(names)}" for kind, names in unequal.items()]
    if not clauses:
        shown = [one for one in figures([first]) if one.key in METRICS and METRICS[one.key].headline]
        values = ", ".join(f"{one.title} {one.text(value)}" for one in shown if (value := one.value(first)) is not None)
        clauses = [f"{_named(first['label'])} has {values}; it is held against no other row"]
    base = f", held against {_named(*bases)} by paired differences" if len(bases) == 1 and equal else ""
    late = " (margins chosen after the runs)" * comparison.margins_after
    return f"On {first['n']:,} images of {visible(first['dataset'])}{base}: {'; '.join(clauses)}{late}.".split("\0")


def _named(label: str) -> str:
    return f"\0{visible(label)}\0"


def _titles(found: Sequence[Compared], verdict: str) -> str:
    *most, last = [METRICS[one.metric].title for one in found if one.verdict == verdict] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def comparison_tables(comparison: Comparison) -> list[Table]:
    """The tables of a comparison; those without a row are left out."""
    makers = (comparison.comparisons, _differences), (comparison.costs, _costs), (comparison.seeds, _seeds)
    return [table(comparison) for rows, table in makers if rows]


def _differences(comparison: Comparison) -> Table:
    several = len({one.baseline for one in comparison.comparisons}) > 1
    rows = []
    for one in comparison.comparisons:
        name = f"{one.decoder} − {one.baseline}" if several else one.decoder
        difference = Cell(one.diff, (difference_text(one.diff, one.ci),))
        figures = (difference, number(one.p_holm, _p), number(one.margin, lambda value: f"{value:.3g}"))
        rows.append((metric_title(one.metric), name, *figures, _verdict(one)))
    first = comparison.comparisons[0]
    title = "Differences, decoder minus baseline" if several else f"Differences to {first.baseline}"
    stated = "CHOSEN AFTER THE RUNS, exploratory" if comparison.margins_after else "stated in the protocol before the runs"
    notes = [
        f"Differences are paired by image, with {100 * first.level:.0f} % intervals of each alone; verdicts are corrected for "
        f"all {len(rows)} comparisons (Holm), so that an interval may leave out zero and yet nothing be shown.",
        f"Margins (losses that count as none): {comparison.margins}; {stated}.",
    ]
    units = {(one.n, one.units) for one in comparison.comparisons}
    notes += [f"{n} images of {count} photographs: photographs are resampled." for n, count in sorted(units) if n > count]
    notes += [
        f"{text} ({_where(comparison.comparisons, text)})."
        for text in dict.fromkeys(o.note for o in comparison.comparisons if o.note)
    ]
    headers = ("metric", "decoder", "difference", "p (Holm)", "margin", "verdict")
    return listing(headers, rows, title, notes, ("decoder", "verdict"), grouped=True, keys=2)


def _where(comparisons: Sequence[Compared], note: str) -> str:
    """Which comparisons carry a note: all, or their metrics and decoders."""
    having = [one for one in comparisons if one.note == note]
    if len(having) == len(comparisons):
        return "all comparisons"
    if len(having) > 3:
        return f"{len(having)} of {len(comparisons)} comparisons"
    return "; ".join(f"{one.metric} of {one.decoder}" for one in having)


def _verdict(one: Compared) -> str:
    """The verdict; where the margin hides a sure loss, both."""
    hidden = one.difference == "worse" and one.verdict != one.difference
    return (f"{one.verdict} (worse)" if hidden else one.verdict) + _at_rate(one)


def _at_rate(one: Compared) -> str:
    """What a verdict says of another rate."""
    return f" at {one.rate_ratio:.3g}× the bits" if other_rate(one.rate_ratio) else ""


def _costs(comparison: Comparison) -> Table:
    rows = []
    for one in comparison.costs:
        rows.append((one.quantity, f"{one.decoder} vs {one.baseline}", Cell(one.value, (ratio_text(one),)), one.method))
    note = (
        "Baseline over decoder: above 1× the decoder is cheaper. Intervals hold what varies between calls within these runs, "
        "not what changes from run to run."
    )
    return listing(("cost", "decoder", "ratio", "interval"), rows, "Cost ratios", (note,), ("decoder", "interval"), keys=2)


def _times(value: float) -> str:
    return f"{value:.3g}×" if value < 999.5 else f"{value:,.0f}×"


def _seeds(comparison: Comparison) -> Table:
    rows: list[list[str | Cell | None]] = []
    for one in comparison.seeds:
        like = one.deviation or one.image_error
        values = ", ".join(digits(value, like) for value in one.values)
        spread = (one.deviation, one.deviation), (one.image_error, one.image_error)
        figures = [Cell(value, (digits(value, scale),)) for value, scale in ((one.mean, like), *spread)]
        name = f"{one.decoder}, seeds {', '.join(map(str, one.seeds))}"
        rows.append([metric_title(one.metric), name, values, *figures])
    headers = ("metric", "decoder", "value of each seed", "mean", "SD over training seeds", "SE over images")
    return listing(headers, rows, "Training seeds", wrap=headers[1:3], grouped=True, keys=2)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def difference_columns(metric: str) -> list[str]:
    """CSV columns that `with_differences` adds for one metric: {metric}_diff and so on."""
    return [f"{metric}_{part}" for part in ("diff", "diff_low", "diff_high", "p_holm", "margin", "verdict")]


def with_differences(table: Table, comparison: Comparison) -> Table:
    """The results (one row a label, in order) with CSV columns baseline and, for each metric compared, `difference_columns`;
    empty where a row is not compared.
    """
    if not comparison.comparisons:
        return table
    found: dict[str, dict[str, Any]] = {}
    keys = ["baseline"]
    for one in comparison.comparisons:
        figures = (one.diff, *one.ci, one.p_holm, one.margin, one.verdict + _at_rate(one))
        mine = dict(zip(difference_columns(one.metric), figures, strict=True))
        found[one.decoder] = {"baseline": one.baseline} | found.get(one.decoder, {}) | mine
        keys += [key for key in mine if key not in keys]
    added = [[Cell(found.get(result["label"], {}).get(key)) for key in keys] for result in comparison.results]
    rows = [(*row, *more) for row, more in zip(table.rows, added, strict=True)]
    return replace(table, columns=[*table.columns, *(Column(key=key) for key in keys)], rows=rows)


def comparison_documents(comparison: Comparison) -> dict[str, Any]:
    """The JSON keys: comparisons, costs, training_seeds, margins, margins_after."""
    lists: dict[str, Sequence[Compared | CostRatio | SeedSpread]]
    lists = {"comparisons": comparison.comparisons, "costs": comparison.costs, "training_seeds": comparison.seeds}
    rows = {key: [asdict(one) for one in found] for key, found in lists.items()}
    return {**rows, "margins": comparison.margins, "margins_after": comparison.margins_after}
