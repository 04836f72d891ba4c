"""What a comparison holds, and the one answer to "may these two stand side by side?" for `compare`, `claim` and the gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from harness.errors import MsbenchError, UnknownNameError
from harness.record.protocol import FINISHED
from harness.record.record import Record, plain
from harness.record.run import other_version
from harness.record.schema import Result

if TYPE_CHECKING:
    import pandas as pd

_OF_THE_REFERENCE = ("dataset", "split", "resolution", "preprocessing", "max_samples", "subset_seed", "subset", "partial")
"""fields of the protocol that say how the reference's pixels came about, and no more than their hash"""
_OF_DECODING = ("reconstructions", "noise_seed", "noise_seeds", "quantisation")
"""fields of the protocol without a meaning for finished images"""


@dataclass(frozen=True, slots=True)
class Basis:
    """What the figures of a run, or of a reference made from runs, rest on."""

    name: str
    """folder of the run or name of the reference, for messages"""
    protocol: Mapping[str, Any]
    """fields of the protocol"""
    protocol_hash: str
    """their hash"""
    source_sha256: str
    """hash over the source files"""
    reference_sha256: str
    """hash over the pixels made of them"""
    definitions: Mapping[str, str]
    """metric -> the text that fixes its computation"""
    timing: Mapping[str, Any]
    """machine and setting; empty for a reference, which holds no times"""


@dataclass(frozen=True, slots=True)
class Fit:
    """What keeps two bases apart."""

    quality: str
    """the fields of the protocol that differ, or the source files; empty where figures of quality compare"""
    definitions: tuple[str, ...]
    """metrics that the two compute differently: they are left out, the others compare"""
    warnings: tuple[str, ...]
    """one line each: those metrics, and other pixels of the same files"""
    times: str
    """what differs of machine and setting; empty where times compare"""


def basis(record: Record) -> Basis:
    """What a run's figures rest on; raises `MsbenchError` where the protocol is not the one that its hash is of."""
    data, facts = record.data, record.data.environment
    if data.protocol_hash != data.protocol.hash():
        raise MsbenchError(f"{record.folder}: protocol_hash is not that of its protocol: the record was edited; run it again")
    on_gpu = data.setting.device.startswith("cuda")
    # mps names no GPU, and its chip is the processor
    processor = [gpu["name"] for gpu in facts["gpus"]] if on_gpu else facts["cpu_model"]  # type: ignore[union-attr,call-overload,index]
    setting = {name: getattr(data.setting, name) for name in ("device", "dtype", "mode")}
    threads = facts["torch_threads"] if data.setting.device == "cpu" else None
    return Basis(
        str(record.folder),
        plain(asdict(data.protocol)),
        data.protocol_hash,
        data.dataset.source_sha256,
        data.dataset.reference_sha256,
        {name: metric.definition for name, metric in data.metrics.items()},
        {**setting, "processor": processor, "threads": threads, "torch": facts["torch"]},
    )


def chosen_rows(record: Record, decoder: str | None) -> list[Result]:
    """The rows that RUN or RUN:DECODER means: all, the one of that label, or else all of the decoder of that name.

    Raises:
        UnknownNameError: neither a row nor a decoder is called so.
    """
    rows = list(record.data.results)
    found = [row for row in rows if row.label == decoder] or [row for row in rows if decoder in (None, row.decoder)]
    if rows and not found:
        raise UnknownNameError(
            f"decoder of {record.folder}", str(decoder), {n for row in rows for n in (row.label, row.decoder)}
        )
    return found


def side_by_side(first: Basis, other: Basis, apart: tuple[str, ...] = ()) -> Fit:
    """What keeps two bases apart in quality, metric by metric, and in time; fields of the protocol in `apart` may differ."""
    quality, pixels = "", first.reference_sha256 == other.reference_sha256
    older = other_version(first.reference_sha256, other.reference_sha256)
    finished = FINISHED in (first.protocol.get("reconstructions"), other.protocol.get("reconstructions"))
    idle = apart + (_OF_DECODING + _OF_THE_REFERENCE * pixels) * finished
    if first.protocol_hash != other.protocol_hash:
        sides = ({name: value for name, value in one.protocol.items() if name not in idle} for one in (first, other))
        hashes = f"protocol hash: {first.protocol_hash} against {other.protocol_hash}" * (not idle)
        quality = _differing("protocol field {}:", *sides) or hashes
    if not quality and first.source_sha256 != other.source_sha256 and not (finished and pixels):
        quality = "the source files (source_sha256)"
    if quality and finished and not pixels:
        quality = f"the reference's pixels (reference_sha256){older and f': {older}'}; {quality}"
    shared = first.definitions.keys() & other.definitions.keys()
    changed = tuple(sorted(name for name in shared if first.definitions[name] != other.definitions[name]))
    warnings = [
        f"{name} is left out: {other.name} computes {other.definitions[name]!r}, {first.name} {first.definitions[name]!r}"
        for name in changed
    ]
    if not pixels:
        why = older or f"same files, other pixels than {first.name} (another image library version?)"
        warnings.append(f"{other.name}: {why}")
    return Fit(quality, changed, tuple(warnings), _differing("{}", first.timing, other.timing))


def _differing(field: str, first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    fields = [name for name in sorted({*first, *other}) if first.get(name) != other.get(name)]
    return "; ".join(f"{field.format(name)} {first.get(name)!r} against {other.get(name)!r}" for name in fields)


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
    rate_ratio: float | None = None
    """the decoder's bits an image over the baseline's; None where either is unknown"""


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
    """registry name, with options and recipe where those tell groups apart"""
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


@dataclass(frozen=True, slots=True, repr=False)
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

    def __repr__(self) -> str:
        rows = ", ".join(row["label"] for row in self.results)
        return f"<Comparison of {rows}: {len(self.comparisons)} differences, {len(self.warnings)} warnings>"

    def to_frame(self) -> pd.DataFrame:
        """One row a difference, with the fields of `Compared`."""
        import pandas as pd

        return pd.DataFrame([asdict(one) for one in self.comparisons], columns=[one.name for one in fields(Compared)])

    @property
    def demo_sets(self) -> tuple[str, ...]:
        """Names of the demo sets among the rows."""
        demo = (record for record in self.records if record.data.dataset.info.demo)
        return tuple(sorted({row.dataset for record in demo for row in record.data.results}))

    def table_rows(self) -> list[dict[str, Any]]:
        """The rows as tables show them, their label marked where the comparison was forced."""
        mark = " [forced]" if self.forced else ""
        return [{**row, "label": row["label"] + mark} for row in self.results]
