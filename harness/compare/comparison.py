"""What a comparison holds: rows, differences with their verdicts, ratios of cost, the spread over training seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.record.record import Record


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of one decoder against the baseline, paired by image."""

    metric: str
    """key of `metrics.registry.METRICS`"""
    decoder: str
    """label of the row"""
    baseline: str
    """label of the row it is held against"""
    value: float
    """the decoder's figure"""
    baseline_value: float
    """the baseline's"""
    diff: float
    """decoder minus baseline"""
    ci: tuple[float, float]
    """interval of the difference at `level`, not widened for the number of comparisons; (-inf, inf) where there is none"""
    level: float
    """confidence of the interval"""
    p_holm: float
    """p-value of no difference, after Holm's correction over all comparisons of the table"""
    verdict: str
    """better, worse, no difference shown, or non-inferior within the margin"""
    difference: str
    """the verdict as it is without a margin"""
    margin: float | None
    """loss that counts as none, in the metric's unit; None where none was stated"""
    non_inferior: bool | None
    """a loss of the margin or more is excluded, after Holm's correction over all margins; None without a margin"""
    n: int
    """images that went in"""
    units: int
    """independent ones among them (photographs)"""
    method: str
    """how the interval is made"""
    note: str
    """what a reader must know; empty where there is nothing"""


@dataclass(frozen=True, slots=True)
class CostRatio:
    """How many times faster or cheaper a decoder is than the baseline."""

    quantity: str
    """"time, batch B" or "GFLOPs\""""
    decoder: str
    """label of the row"""
    baseline: str
    """label of the row it is held against"""
    value: float
    """baseline / decoder: above 1 the decoder is cheaper"""
    ci: tuple[float, float] | None
    """interval over the measured calls; None for counts, which have none"""
    method: str
    """how the interval is made"""


@dataclass(frozen=True, slots=True)
class SeedSpread:
    """One metric over decoders that differ in their training seed alone."""

    decoder: str
    """registry name"""
    metric: str
    """key of `metrics.registry.METRICS`"""
    seeds: tuple[int, ...]
    """training seeds"""
    values: tuple[float, ...]
    """the figure of each"""
    mean: float
    """their mean"""
    deviation: float
    """their standard deviation: what another training would change"""
    image_error: float
    """standard error of the mean over images: what other images would change"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows of several runs, what may be said of their differences, and what a reader must know."""

    records: tuple[Record, ...]
    """the runs, in the order given"""
    results: tuple[dict[str, Any], ...]
    """one row per decoder and run, keys as in `--json`; `label` is unique among them"""
    comparisons: tuple[Compared, ...]
    """grouped by metric, in the order of the metrics, then of the rows"""
    costs: tuple[CostRatio, ...]
    """ratios of time and of FLOPs"""
    seeds: tuple[SeedSpread, ...]
    """where several training seeds of one recipe are among the rows"""
    margins: str
    """losses that count as none, as stated"""
    margins_after: bool
    """the margins were chosen after the runs: verdicts on them are exploratory"""
    warnings: tuple[str, ...]
    """one line each"""
    forced: bool = False
    """runs that do not compare were put side by side all the same: nothing is tested and every row says so"""

    def table_rows(self) -> list[dict[str, Any]]:
        """The rows as tables show them, their label marked where the comparison was forced."""
        mark = " [forced]" if self.forced else ""
        return [{**row, "label": row["label"] + mark} for row in self.results]
