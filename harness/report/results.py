"""The table of results: which columns, which figures are best, what must be known before one is quoted.

A result is a mapping with the keys of `--json`: label, decoder, dataset, n, each metric, rfid_infinity, octaves_db {octave: dB;
0 the finest}, ms_per_image {batch: value}, gflops, parameters, peak_memory_mb, trained_on; and, where known, intervals
{metric: [low, high]}, marks (`harness.record.marks`), rfid_warning, protocol_hash, device and dtype. A missing or None value is
shown as "–", an infinite PSNR as "∞".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.metrics.registry import METRICS
from harness.record.marks import other_rate
from harness.report.table import Cell, Column, Table, listing, select, significant

Result = Mapping[str, Any]
Form = Callable[[float], str]

SMALL_N = 10_000
"""Below this many images FID and KID are not put beside published figures."""
NOT_COMPARABLE = "rFID and KID are not comparable with 50k figures"
_NEVER_NEGATIVE = ("rfid", "lpips", "dists", "latent_error", "spectral", "ocr")  # their intervals may end below 0, as KID may
_IN_A_BLOCK = 5  # metrics with intervals that 80 columns hold


@dataclass(frozen=True, slots=True)
class Figure:
    """One column of numbers."""

    key: str
    """result key; "ms_per_image.8" reads one entry of a mapping"""
    title: str
    """header without its arrow; a terminal breaks it at a line end"""
    better: Literal["higher", "lower"] | None
    """which end is best; None where a column is not ranked"""
    form: Form = significant
    """a finite number as text"""
    cost: bool = False
    """only decoders with parameters compete, since resampling costs next to nothing"""

    @property
    def column(self) -> str:
        """Its name in files: "ms_per_image_b8"."""
        return "top_octave_db" if self.key == "octaves_db.0" else self.key.removeprefix("rate.").replace(".", "_b")

    def value(self, result: Result) -> float | None:
        """The number in `result`; None where it is missing or NaN."""
        key, _, entry = self.key.partition(".")
        held = result.get(key)
        if entry:
            held = {str(name): value for name, value in (held or {}).items()}.get(entry)
        return None if held is None or math.isnan(held) else held

    def text(self, value: float) -> str:
        """A number as people read it."""
        return self.form(value) if math.isfinite(value) else "∞" if value > 0 else "-∞"

    def cells(self, results: Sequence[Result]) -> list[Cell]:
        """A cell a row: the number, its interval in brackets where there is one, the best bold."""
        best = best_rows(self, results)
        found = []
        for index, result in enumerate(results):
            value, interval = self.value(result), _interval(result, self.key)
            parts: tuple[str, ...] = () if value is None else (self.text(value),)
            if parts and interval:
                low = max(interval[0], 0.0) if self.key in _NEVER_NEGATIVE else interval[0]
                parts += (f"[{self.text(low)},", f"{self.text(interval[1])}]")
            if parts and self.key == "rate.bits_per_image" and result["rate"]["kind"] == "nominal":
                parts += ("nominal",)
            found.append(Cell(value, parts, index in best))
        return found


def metric_title(name: str) -> str:
    """A metric's header with its arrow."""
    entry = METRICS.get(name)
    return name if entry is None else _arrow(entry.title, entry.direction)


def _arrow(title: str, better: str | None) -> str:
    return title + {"higher": " ↑", "lower": " ↓", None: ""}[better]


def count(value: float) -> str:
    """A number of parameters: 3.1k, 2.13M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.{1 if letter == 'k' else 2}f}{letter}"
    return f"{value:.0f}"


def _fixed(digits: int) -> Form:
    return lambda value: f"{value:,.{digits}f}"


def figures(results: Sequence[Result]) -> Iterator[Figure]:
    """The columns of numbers for these results: metrics where measured, one time a batch size found, cost."""
    beside = {
        "lpips": Figure("rfid_infinity", "rFID∞ ↓", None),  # an extrapolation without an interval
        "spectral": Figure("octaves_db.0", "Top octave dB", None, lambda value: f"{value:+.2f}"),
    }
    for name, entry in METRICS.items():
        form = significant if entry.digits is None else _fixed(entry.digits)
        better = entry.direction if entry.ranked else None
        for figure in (Figure(name, metric_title(name) if better is None else entry.title, better, form), beside.get(name)):
            if figure and any(figure.value(result) is not None for result in results):
                yield figure
    for size in sorted({int(size) for result in results for size in (result.get("ms_per_image") or {})}):
        yield Figure(f"ms_per_image.{size}", f"ms/image,\nbatch {size}", "lower", cost=True)
    if any(result.get("rate") for result in results):
        yield Figure("rate.bits_per_image", "Bits\n/image", None, _fixed(0), cost=True)
        yield Figure("rate.bits_per_pixel", "Bits\n/pixel", None, cost=True)
    if any((result.get("rate") or {}).get("effective_step") for result in results):
        yield Figure("rate.effective_bits_per_image", "Effective\nbits\n/image", None, _fixed(0), cost=True)
        yield Figure("rate.effective_bits_per_pixel", "Effective\nbits\n/pixel", None, cost=True)
    yield Figure("gflops", "GFLOPs", "lower", cost=True)
    yield Figure("parameters", "Params", None, count, cost=True)
    yield Figure("peak_memory_mb", "Peak\nMiB", "lower", cost=True)


def best_rows(figure: Figure, results: Sequence[Result]) -> set[int]:
    """Indices of the best values, per dataset, ties by shown text included; empty where fewer than two compete."""
    best: set[int] = set()
    for dataset in {result.get("dataset") for result in results} if figure.better else ():
        rivals = {
            index: value
            for index, result in enumerate(results)
            if result.get("dataset") == dataset
            and not _exact(result)
            and not other_rate(result.get("rate_ratio"))
            and (not figure.cost or result.get("parameters"))
            and not (figure.key.startswith("ms_per_image.") and result.get("disturbed"))
            and (value := figure.value(result)) is not None
        }
        if len(rivals) > 1:
            top = max(rivals.values()) if figure.better == "higher" else min(rivals.values())
            best |= {index for index, value in rivals.items() if figure.text(value) == figure.text(top)}
    return best


def _marks(result: Result) -> Sequence[str]:
    """What a reader must know of a row, its rate among it."""
    ratio, marks = result.get("rate_ratio"), result.get("marks") or ()
    return [*marks, f"{ratio:.3g}× the bits of {result['rate_baseline']}: not ranked"] if other_rate(ratio) else marks


def _exact(result: Result) -> bool:
    """Every image came back as it was: the protocol's own floor, shown but never best."""
    return result.get("psnr") == math.inf


def shown_name(result: Result) -> str:
    """What a table calls a row: its label, which tells rows of several runs apart, or else the decoder's name."""
    return str(result.get("label") or result["decoder"])


def shown_dataset(name: str) -> str:
    """A data set as others may see it: of a place the last part, so that folder:/a/b is folder:b."""
    kind, colon, place = name.partition(":")
    return kind + colon + place.rstrip("/").rpartition("/")[2]


def _interval(result: Result, key: str) -> Sequence[float] | None:
    """[low, high] of a metric, None where it has none."""
    held: Sequence[float] | None = (result.get("intervals") or {}).get(key)
    return held if held and None not in held else None


def caveats(results: Sequence[Result], demo_datasets: Sequence[str] = ("photos",)) -> list[str]:
    """What a reader must know before quoting a figure, one sentence each."""
    notes = []
    counts = sorted({int(result["n"]) for result in results if result.get("n") is not None})
    if counts and counts[0] < SMALL_N:
        shown = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
        notes.append(f"n = {shown} images: {NOT_COMPARABLE}.")
    for key, of_one in (("rfid_warning", lambda result: [result.get("rfid_warning")]), ("marks", _marks)):
        for text in dict.fromkeys(text for result in results for text in of_one(result) if text):
            having = [shown_name(result) for result in results if text in of_one(result)]
            who = "" if len(having) == len(results) else f"{', '.join(having)}: "
            notes.append(f"{'† ' * (key == 'marks')}{who}{text}.".replace("..", "."))
    for dataset in demo_datasets:
        if any(result.get("dataset") == dataset for result in results):
            notes.append(f"{dataset!r} is a demo set: its rFID is a smoke test, not a result.")
    if any(result.get("intervals") for result in results):
        notes.append("In brackets: 95 % intervals over images (photographs where several images were cut from one).")
    if any((result.get("octaves_db") or {}) for result in results):
        notes.append("Top octave dB: power above a quarter cycle per pixel against the original; above 0 grain, below blur.")
    exact = dict.fromkeys(shown_name(result) for result in results if _exact(result))
    if exact:
        notes.append(f"{', '.join(exact)}: every image came back exactly, the protocol's own error floor; not ranked.")
    if any((result.get("rate") or {}).get("kind") == "nominal" for result in results):
        notes.append("Bits, nominal: 16 for each number of continuous latents.")
    if any((result.get("rate") or {}).get("effective_step") for result in results):
        notes.append("Effective bits: of the coarsest uniform quantisation of latents that costs less than 0.1 dB.")
    if any(result.get("peak_memory_mb") is not None for result in results):
        notes.append("Peak MiB: what decoding one image needs above weights and latents.")
    return notes


def results_table(results: Sequence[Result], title: str = "", demo_datasets: Sequence[str] = ("photos",)) -> Table:
    """The results for people and programs.

    On a terminal quality stands above cost, so that 80 columns hold either. The CSV has times in ms_per_image_b{batch},
    intervals in {metric}_low and {metric}_high, and last what travels with the figures: `protocol_hash`, `device`, `dtype`
    where they are known, and `caveat`: small sets, marks.
    """
    several = len({result.get("dataset") for result in results}) > 1
    names = [Cell(shown_name(one), (shown_name(one) + " †" * bool(_marks(one)),)) for one in results]
    counts = [Cell(one.get("n") or None, (f"{one['n']:,}",) if one.get("n") else ()) for one in results]
    fields = [
        (Column("decoder", "decoder", code=True), names),
        (Column("dataset", "dataset", block=0 if several else None), [Cell(one.get("dataset")) for one in results]),
        (Column("n", "n", numeric=True, block=None), counts),
    ]
    shown = list(figures(results))
    last = 2 + sum(not figure.cost for figure in shown) // _IN_A_BLOCK
    for place, figure in enumerate(shown):
        block = last if figure.cost else 1 + place // _IN_A_BLOCK
        key = figure.column
        fields.append((Column(_arrow(figure.title, figure.better), key, True, block), figure.cells(results)))
        bounds = [_interval(one, figure.key) for one in results]
        if any(bounds):
            for end, name in enumerate(("low", "high")):
                fields.append((Column(key=f"{key}_{name}"), [Cell(pair[end] if pair else None) for pair in bounds]))
    if any(codebooks := [_codebooks(one.get("rate")) for one in results]):
        fields.append((Column("codebook", "codebook", block=last, wrap=True), [Cell(text) for text in codebooks]))
    fields.append((Column("trained on", "trained_on", block=last, wrap=True), [Cell(one.get("trained_on")) for one in results]))
    for key in ("protocol_hash", "device", "dtype"):
        if any(key in one for one in results):
            fields.append((Column(key=key), [Cell(one.get(key)) for one in results]))
    fields.append((Column(key="caveat"), [Cell(_caveat(one)) for one in results]))
    rows = list(zip(*(cells for _, cells in fields), strict=True))
    return Table([column for column, _ in fields], rows, title, caveats(results, demo_datasets))


def label_tables(by_label: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> list[Table]:
    """A table a metric, of its figure for each label of the dataset, from decoder -> metric -> label -> figure."""
    found = []
    for name in dict.fromkeys(name for one in by_label.values() for name in one):
        rows = {decoder: one.get(name, {}) for decoder, one in by_label.items()}
        labels = sorted({label for row in rows.values() for label in row})
        form = _fixed(METRICS[name].digits or 3)
        cells = [
            [Cell(decoder), *(Cell(value, () if value is None else (form(value),)) for value in map(row.get, labels))]
            for decoder, row in rows.items()
        ]
        found += [listing(["decoder", *labels], cells, f"{metric_title(name)} by label")] if labels else []
    return found


def check_columns(keys: Sequence[str], extra_metrics: Sequence[str], batch_sizes: Sequence[int]) -> None:
    """Raise `UnknownNameError` for a column that no run with these extra metrics and timed batch sizes can have."""
    metrics = {name: 0.0 for name, metric in METRICS.items() if not metric.extra or name in extra_metrics}
    beside = {"rfid_infinity": 0.0, "octaves_db": {"0": 0.0}, "ms_per_image": dict.fromkeys(batch_sizes, 0.0)}
    rate = {"kind": "files", "perplexity": (), "effective_step": 1.0}
    select(results_table([{"decoder": "", **metrics, **beside, "rate": rate}]), keys)


_PAPER = ("bits_per_pixel", "rfid", "psnr", "ssim", "lpips", "gflops", "parameters", "kid", "peak_memory_mb")


def paper_columns(table: Table) -> list[str]:
    """Keys of the columns that a paper shows beside the decoder's: seven at most, in the order of the table."""
    filled = [
        column.key for place, column in enumerate(table.columns) if any(row[place].value is not None for row in table.rows)
    ]
    times = [key for key in filled if key.startswith("ms_per_image_b")][:1]
    several = [column.key for column in table.columns if column.key == "dataset" and column.block == 0]
    chosen = [key for key in (*several, *_PAPER[:5], *times, *_PAPER[5:]) if key in filled][:7]
    return sorted(chosen, key=filled.index)


def _codebooks(rate: Mapping[str, Any] | None) -> str | None:
    """How much of its codebooks a code uses; None where it has none."""
    if not rate or not rate["perplexity"]:
        return None
    found, sizes = rate["perplexity"], rate["codebook_sizes"]
    each = [f"{perplexity:,.0f} of {size:,}" for perplexity, size in zip(found, sizes, strict=True)]
    if len(each) > 3:
        each = [f"{min(found):,.0f} to {max(found):,.0f} of {max(sizes):,} ({len(each)} codebooks)"]
    return f"perplexity {', '.join(each)}; {rate['tokens']:,} tokens"


def _caveat(result: Result) -> str:
    small = result.get("n") is not None and int(result["n"]) < SMALL_N
    return "; ".join(([f"n < {SMALL_N:,}: {NOT_COMPARABLE}"] if small else []) + [*_marks(result)])
