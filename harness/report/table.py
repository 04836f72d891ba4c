"""The table of results, for the terminal (rich), Markdown and CSV. One list of columns serves them all.

A result is a mapping with the keys of `--json`: decoder, dataset, n, rfid, kid, psnr, ssim, lpips, ms_per_image {batch: value},
gflops, parameters, peak_memory_mb, trained_on; and, where known, spectral, octaves_db {octave: dB, 0 the
finest}, latent_error, dists and intervals {metric: [low, high]}. A missing or None value is shown as "–", an infinite PSNR as
"∞". LaTeX is in `harness.report.latex`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group
    from rich.table import Table

Result = Mapping[str, Any]

NOT_RANKED = frozenset({"identity"})
"""Decoders shown but never best: their figures are the protocol's own floor."""

SMALL_N = 10_000
"""Below this many images FID and KID are not put beside published figures."""

_ENOUGH_FOR_A_LINE = 4 * 2049  # four parts, each above the 2,048 dimensions of the features

NOT_COMPARABLE = "rFID and KID are not comparable with 50k figures"
SMALL_N_CAVEAT = f"n < {SMALL_N:,}: {NOT_COMPARABLE}"
"""What the CSV says in the rows of small sets."""

MISSING = "–"
"""How a cell without a value is shown."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of figures."""

    key: str
    """result key; "ms_per_image.8" reads one batch size"""
    title: str
    """header without its arrow"""
    better: Literal["higher", "lower"] | None
    """which end is best; None where a column is not ranked"""
    form: Callable[[float], str]
    """a finite number as text"""
    cost: bool = False
    """a cost column: only decoders with parameters compete, since resampling costs next to nothing"""
    beside: bool = False
    """shown in a block of its own on the terminal, below the usual metrics"""

    @property
    def header(self) -> str:
        """The title with ↑ or ↓ behind it."""
        return self.title + {"higher": " ↑", "lower": " ↓", None: ""}[self.better]

    def value(self, result: Result) -> float | None:
        """The number in `result`; None where it is missing or NaN."""
        key, _, batch = self.key.partition(".")
        held = result.get(key)
        if batch:
            held = {str(size): time for size, time in (held or {}).items()}.get(batch)
        return None if held is None or math.isnan(held) else float(held)

    def text(self, result: Result, between: str = " ") -> str:
        """The cell's text: the number, and its interval in brackets where there is one; `between` parts the three numbers."""
        value = self.value(result)
        if value is None:
            return MISSING
        interval = _interval(result, self.key)
        bounds = f"{between}[{f',{between}'.join(self._number(bound) for bound in interval)}]" if interval else ""
        return self._number(value) + bounds

    def _number(self, value: float) -> str:
        if math.isinf(value):
            return "∞" if value > 0 else "-∞"
        return self.form(value)


def shown_name(result: Result) -> str:
    """What a table calls a row: its label, which tells rows of several runs apart, or else the decoder's name."""
    return str(result.get("label") or result["decoder"])


def _interval(result: Result, key: str) -> Sequence[float] | None:
    """[low, high] of a metric, None where it has none."""
    held: Sequence[float] | None = (result.get("intervals") or {}).get(key)
    return held


def _is_small(result: Result) -> bool:
    return result.get("n") is not None and int(result["n"]) < SMALL_N


def _fixed(decimals: int) -> Callable[[float], str]:
    return lambda value: f"{value:,.{decimals}f}"


def _significant(value: float) -> str:
    """Three figures from 1 to 99.9, whole numbers from 100, three decimals below 1."""
    if 0 < abs(value) < 0.0005:
        return "<0.001"
    decimals = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2 if abs(value) >= 0.9995 else 3
    return f"{value:,.{decimals}f}"


def _millions(value: float) -> str:
    return "0" if value == 0 else f"{value / 1e6:.2f}M"


def _signed(value: float) -> str:
    return f"{value:+.2f}"


_USUAL = (
    Column("rfid", "rFID", "lower", _significant),
    Column("kid", "KID", "lower", _fixed(4)),
    Column("psnr", "PSNR", "higher", _fixed(2)),
    Column("ssim", "SSIM", "higher", _fixed(3)),
    Column("lpips", "LPIPS", "lower", _fixed(3)),
)
_BESIDE = (
    Column("rfid_infinity", "rFID∞ ↓", None, _significant, beside=True),  # not ranked: an extrapolation without an interval
    Column("dists", "DISTS", "lower", _fixed(3), beside=True),
    Column("spectral", "Spectral dB", "lower", _fixed(2), beside=True),
    Column("octaves_db.0", "Top octave dB", None, _signed, beside=True),
    Column("latent_error", "Latent error ↓", None, _fixed(3), beside=True),  # not ranked: encoders differ
)


HEADERS = {column.key: column.header for column in (*_USUAL, *_BESIDE)}
"""Metric -> its header with the arrow."""


def columns(results: Sequence[Result]) -> list[Column]:
    """The columns for these results: quality (the later metrics only where measured), one time per batch size found, cost."""
    batches = sorted({int(size) for result in results for size in (result.get("ms_per_image") or {})})
    times = [Column(f"ms_per_image.{size}", f"ms/image, batch {size}", "lower", _significant, True) for size in batches]
    return [
        *_USUAL,
        *(column for column in _BESIDE if any(column.value(result) is not None for result in results)),
        *times,
        Column("gflops", "GFLOPs", "lower", _significant, True),
        Column("parameters", "Params", None, _millions, True),
        Column("peak_memory_mb", "Peak MiB", "lower", _significant, True),
    ]


def best_rows(column: Column, results: Sequence[Result]) -> set[int]:
    """Indices of the best values of `column`, per dataset, ties by shown text included; empty where fewer than two compete."""
    best: set[int] = set()
    if column.better is None:
        return best
    for dataset in {result.get("dataset") for result in results}:
        rivals = {
            index: value
            for index, result in enumerate(results)
            if result.get("dataset") == dataset
            and result.get("decoder") not in NOT_RANKED
            and (not column.cost or result.get("parameters"))
            and (value := column.value(result)) is not None
        }
        if len(rivals) > 1:
            top = max(rivals.values()) if column.better == "higher" else min(rivals.values())
            best |= {index for index, value in rivals.items() if column._number(value) == column._number(top)}
    return best


def caveats(results: Sequence[Result], demo_datasets: Sequence[str] = ("photos",)) -> list[str]:
    """What a reader must know before quoting a figure, one sentence each."""
    notes = []
    counts = sorted({int(result["n"]) for result in results if result.get("n") is not None})
    if counts and counts[0] < SMALL_N:
        shown = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
        notes.append(f"n = {shown} images: {NOT_COMPARABLE}.")
    biased = [result for result in results if result.get("rfid_infinity") is not None and result.get("rfid") is not None]
    if any(_is_small(result) for result in biased):
        bias = ", ".join(
            f"{_significant(result['rfid'] - result['rfid_infinity'])} ({shown_name(result)})" for result in biased
        )
        notes.append(f"rFID∞ extrapolates over 1/n to endless images; rFID at this n lies above it by about {bias}.")
        if counts[0] < _ENOUGH_FOR_A_LINE:
            notes.append(f"Below {_ENOUGH_FOR_A_LINE:,} images that extrapolation is rough: its parts are smaller than 2,048.")
    for dataset in demo_datasets:
        if any(result.get("dataset") == dataset for result in results):
            notes.append(f"{dataset!r} is a demo set: its rFID is a smoke test, not a result.")
    if any(result.get("intervals") for result in results):
        notes.append("In brackets: 95 % intervals over images (photographs where several images were cut from one).")
    if any(column.key == "octaves_db.0" for column in columns(results)):
        notes.append("Top octave dB: power above a quarter cycle per pixel against the original; above 0 grain, below blur.")
    if any(result.get("decoder") in NOT_RANKED for result in results):
        notes.append("identity is the protocol's own error floor and is not ranked.")
    if any(result.get("peak_memory_mb") is not None for result in results):
        notes.append("Peak MiB: what decoding one image needs above weights and latents.")
    return notes


def results_table(results: Sequence[Result], title: str | None = None, demo_datasets: Sequence[str] = ("photos",)) -> Group:
    """For the terminal: quality above cost, so that 80 columns hold either; intervals below their figures, best values bold,
    caveats below."""
    from rich.console import Group
    from rich.text import Text

    shown = columns(results)
    quality = _block(results, [c for c in shown if not c.cost and not c.beside], title, with_training=False)
    beside = [column for column in shown if column.beside]
    more = [_block(results, beside, None, with_training=False)] if beside else []
    cost = _block(results, [column for column in shown if column.cost], None, with_training=True)
    return Group(quality, *more, cost, *(Text(note, style="dim") for note in caveats(results, demo_datasets)))


def _block(results: Sequence[Result], shown: Sequence[Column], title: str | None, with_training: bool) -> Table:
    """One rich table of some columns."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    with_dataset = len({result.get("dataset") for result in results}) > 1
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("decoder", no_wrap=True)
    if with_dataset:
        table.add_column("dataset")
    for column in shown:
        table.add_column(column.header.replace(", ", "\n").replace("Peak ", "Peak\n"), justify="right", no_wrap=True)
    if with_training:
        table.add_column("trained on", min_width=10)
    best = {column.key: best_rows(column, results) for column in shown}
    for index, result in enumerate(results):
        cells = [shown_name(result)] + ([str(result.get("dataset"))] if with_dataset else [])
        cells = [escape(cell) for cell in cells]
        for column in shown:
            text = escape(column.text(result, "\n"))
            cells.append(f"[bold]{text}[/bold]" if index in best[column.key] else text)
        if with_training:
            cells.append(escape(str(result.get("trained_on") or MISSING)))
        table.add_row(*cells)
    return table


def to_markdown(results: Sequence[Result], demo_datasets: Sequence[str] = ("photos",)) -> str:
    """A GitHub table with the caveats below it; ends with a newline."""
    shown = columns(results)
    headers = ["decoder", "dataset", "n", *(column.header for column in shown), "trained on"]
    rules = [":--", ":--", "--:", *("--:" for _ in shown), ":--"]
    best = {column.key: best_rows(column, results) for column in shown}
    rows = []
    for index, result in enumerate(results):
        figures = [f"**{column.text(result)}**" if index in best[column.key] else column.text(result) for column in shown]
        names = [
            f"`{shown_name(result)}`",
            str(result.get("dataset") or MISSING),
            f"{result['n']:,}" if result.get("n") else MISSING,
        ]
        rows.append([*names, *figures, str(result.get("trained_on") or MISSING)])
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (headers, rules, *rows)]
    notes = "".join(f"\n- {note}" for note in caveats(results, demo_datasets))
    return "\n".join(lines) + "\n" + (notes + "\n" if notes else "")


def to_frame(results: Sequence[Result]) -> pd.DataFrame:
    """One row per result at full precision; times in ms_per_image_b{batch}, intervals in {metric}_low and {metric}_high.

    The last column, caveat, travels with the figures of small sets: rFID and KID of fewer than `SMALL_N` images.
    """
    import pandas as pd

    shown = columns(results)
    with_interval = {column.key for column in shown if any(_interval(result, column.key) for result in results)}
    table: dict[str, list[Any]] = {"decoder": [shown_name(result) for result in results]}
    table |= {key: [result.get(key) for result in results] for key in ("dataset", "n")}
    for column in shown:
        table[_frame_name(column.key)] = [column.value(result) for result in results]
        if column.key in with_interval:
            bounds = [_interval(result, column.key) or (None, None) for result in results]
            table[f"{column.key}_low"], table[f"{column.key}_high"] = ([pair[end] for pair in bounds] for end in (0, 1))
    table["trained_on"] = [result.get("trained_on") for result in results]
    table["caveat"] = [SMALL_N_CAVEAT if _is_small(result) else "" for result in results]
    return pd.DataFrame(table).astype({"n": "Int64", "parameters": "Int64"})


def _frame_name(key: str) -> str:
    """Column of the frame for a result key: ms_per_image.8 -> ms_per_image_b8, octaves_db.0 -> top_octave_db."""
    return {"octaves_db.0": "top_octave_db"}.get(key, key.replace(".", "_b"))


def to_csv(results: Sequence[Result]) -> str:
    """`to_frame` as CSV: empty where a value is missing, "inf" where it is infinite."""
    return to_frame(results).to_csv(index=False, lineterminator="\n")
