"""A comparison as tables: differences with interval and verdict, ratios of cost, spread over training seeds; for the terminal,
Markdown, LaTeX and as columns of the CSV.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.compare.comparison import Compared, Comparison
from harness.report.latex import latex_table, tex
from harness.report.table import HEADERS, MISSING

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class Block:
    """One table, all cells as text."""

    title: str
    """what it shows"""
    headers: tuple[str, ...]
    """one a column"""
    rows: tuple[tuple[str, ...], ...]
    """cells, as many a row as headers"""
    notes: tuple[str, ...]
    """one sentence each"""


def number(value: float, like: float) -> str:
    """`value` with the decimals that leave two figures of `like` (an interval's half width), six significant ones at most."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if not like or not math.isfinite(like):
        return f"{value:.4g}"
    return f"{value:,.{min(max(1 - math.floor(math.log10(like)), 0), 6)}f}"


def signed(value: float, like: float) -> str:
    """`number` with its sign always shown."""
    text = number(value, like)
    return text if text.startswith("-") or text == MISSING else f"+{text}"


def blocks(comparison: Comparison) -> list[Block]:
    """The tables of a comparison; those without a row are left out."""
    found = []
    if comparison.comparisons:
        found.append(_differences(comparison))
    if comparison.costs:
        found.append(_costs(comparison))
    if comparison.seeds:
        found.append(_seeds(comparison))
    return found


def _differences(comparison: Comparison) -> Block:
    several = len({one.baseline for one in comparison.comparisons}) > 1
    rows = []
    for one in comparison.comparisons:
        half = _half(one.ci)
        difference = signed(one.diff, half)
        if math.isfinite(half):
            difference += f" [{signed(one.ci[0], half)}, {signed(one.ci[1], half)}]"
        names = [f"{one.decoder} − {one.baseline}" if several else one.decoder]
        margin = MISSING if one.margin is None else f"{one.margin:.3g}"
        rows.append((HEADERS.get(one.metric, one.metric), *names, difference, _p(one.p_holm), margin, _verdict(one)))
    first = comparison.comparisons[0]
    title = "Differences, decoder minus baseline" if several else f"Differences to {first.baseline}"
    level = f"{first.level:.0%}".replace("%", " %")
    notes = [
        f"Differences are paired by image, with {level} intervals of each alone; verdicts are corrected for all "
        f"{len(rows)} comparisons (Holm), so that an interval may leave out zero and yet nothing be shown.",
        f"Margins (losses that count as none): {comparison.margins}"
        + (
            "; CHOSEN AFTER THE RUNS, exploratory." if comparison.margins_after else "; stated in the protocol before the runs."
        ),
    ]
    units = {(one.n, one.units) for one in comparison.comparisons}
    notes += [f"{n} images of {count} photographs: photographs are resampled." for n, count in sorted(units) if n > count]
    notes += [
        f"{text} ({_where(comparison.comparisons, text)})."
        for text in dict.fromkeys(o.note for o in comparison.comparisons if o.note)
    ]
    return Block(title, ("metric", "decoder", "difference", "p (Holm)", "margin", "verdict"), tuple(rows), tuple(notes))


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
    return f"{one.verdict} (worse)" if hidden else one.verdict


def _costs(comparison: Comparison) -> Block:
    rows = []
    for one in comparison.costs:
        text = f"{one.value:.3g}×"
        if one.ci is not None and math.isfinite(one.ci[0]):
            text += f" [{one.ci[0]:.3g}, {one.ci[1]:.3g}]"
        rows.append((one.quantity, f"{one.decoder} vs {one.baseline}", text, one.method))
    notes = (
        "Baseline over decoder: above 1 the decoder is cheaper. Intervals hold what varies between calls within these runs, "
        "not what changes from run to run.",
    )
    return Block("Cost ratios", ("cost", "decoder", "ratio", "interval"), tuple(rows), notes)


def _seeds(comparison: Comparison) -> Block:
    rows = []
    for one in comparison.seeds:
        like = one.deviation or one.image_error
        values = ", ".join(number(value, like) for value in one.values)
        rows.append(
            (
                HEADERS.get(one.metric, one.metric),
                f"{one.decoder}, seeds {', '.join(map(str, one.seeds))}",
                values,
                number(one.mean, like),
                number(one.deviation, one.deviation),
                number(one.image_error, one.image_error),
            )
        )
    headers = ("metric", "decoder", "value of each seed", "mean", "SD over training seeds", "SE over images")
    return Block("Training seeds", headers, tuple(rows), ())


def _half(ci: tuple[float, float]) -> float:
    """Half the interval's width; inf where there is none."""
    return (ci[1] - ci[0]) / 2.0 if math.isfinite(ci[0]) and math.isfinite(ci[1]) else math.inf


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def comparison_tables(comparison: Comparison) -> list[RenderableType]:
    """For the terminal."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    found: list[RenderableType] = []
    for block in blocks(comparison):
        table = Table(
            title=escape(block.title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False
        )
        for header in block.headers:
            table.add_column(header, justify="left", overflow="fold")
        before = None
        for row in block.rows:
            if before is not None and row[0] != before:
                table.add_section()
            table.add_row(*(escape("" if index == 0 and cell == before else cell) for index, cell in enumerate(row)))
            before = row[0]
        found += [table, *(Text(note, style="dim") for note in block.notes)]
    return found


def comparison_markdown(comparison: Comparison) -> str:
    """GitHub tables under a bold title each; empty where there is nothing to show."""
    text = ""
    for block in blocks(comparison):
        lines = [block.headers, tuple(":--" for _ in block.headers), *block.rows]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        text += f"\n**{block.title}**\n\n{table}\n" + "".join(f"\n- {note}" for note in block.notes) + "\n"
    return text


def comparison_latex(comparison: Comparison) -> str:
    """A booktabs table a block, its title among the notes below it; empty where there is nothing to show."""
    return "\n".join(
        latex_table(
            [tex(header) for header in block.headers],
            ["l"] * len(block.headers),
            [[tex(cell) for cell in row] for row in block.rows],
            [tex(f"{block.title}."), *(tex(note) for note in block.notes)],
        )
        for block in blocks(comparison)
    )


def difference_columns(metric: str) -> list[str]:
    """Columns that `with_differences` adds for one metric."""
    return [f"{metric}_{part}" for part in ("diff", "diff_low", "diff_high", "p_holm", "margin", "verdict")]


def with_differences(frame: pd.DataFrame, comparison: Comparison) -> pd.DataFrame:
    """The results' frame (one row a label, in order) with columns baseline and, for each metric compared, {metric}_diff,
    _diff_low, _diff_high, _p_holm, _margin and _verdict; empty where a row is not compared.
    """
    import pandas as pd

    by_label: dict[str, list[Compared]] = {}
    for one in comparison.comparisons:
        by_label.setdefault(one.decoder, []).append(one)
    rows: list[dict[str, Any]] = []
    for result in comparison.results:
        mine: Sequence[Compared] = by_label.get(result["label"], ())
        row: dict[str, Any] = {"baseline": mine[0].baseline if mine else None}
        for one in mine:
            figures = (one.diff, *one.ci, one.p_holm, one.margin, one.verdict)
            row |= dict(zip(difference_columns(one.metric), figures, strict=True))
        rows.append(row)
    if not comparison.comparisons:
        return frame
    return pd.concat([frame.reset_index(drop=True), pd.DataFrame(rows)], axis=1)


def comparison_documents(comparison: Comparison) -> dict[str, Any]:
    """The JSON keys: comparisons, costs, training_seeds, margins, margins_after."""
    from dataclasses import asdict

    return {
        "comparisons": [asdict(one) for one in comparison.comparisons],
        "costs": [asdict(one) for one in comparison.costs],
        "training_seeds": [asdict(one) for one in comparison.seeds],
        "margins": comparison.margins,
        "margins_after": comparison.margins_after,
    }
