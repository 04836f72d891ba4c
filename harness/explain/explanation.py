"""All conventions of one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import MsbenchError, UnknownNameError
from harness.explain.convention import Convention
from harness.explain.registry import CONVENTIONS, METRICS, USERS
from harness.explain.sources import Needs, Sources
from harness.record.record import Record
from harness.record.run import open_run
from harness.record.schema import SCHEMA_VERSION
from harness.run.independence import callers_generators

if TYPE_CHECKING:
    from harness.stopwatch import Progress


@dataclass(frozen=True, slots=True)
class Finding:
    """One convention of one row."""

    convention: Convention
    """which"""
    value: float | None
    """the metric under it; None where it was not computed"""
    shift: float | None
    """the value less the protocol's, in the convention's own unit"""
    source: str
    """what it was computed from; "needs …" where it was not"""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What came of a row."""

    label: str
    """the row"""
    n: int
    """its images"""
    noise_seed: int
    """everything is of this one"""
    protocol: Mapping[str, float | None]
    """metric -> value as the run has it"""
    findings: tuple[Finding, ...]
    """every convention, in the registry's order"""

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        rows = []
        for one in self.findings:
            way = one.convention
            facts = {"metric": way.metric, "convention": way.name, "value": one.value, "shift": one.shift, "source": one.source}
            rows.append({**facts, "users": {user: USERS[user] for user in way.users}})
        head = {"schema_version": SCHEMA_VERSION, "label": self.label, "n": self.n, "noise_seed": self.noise_seed}
        return {**head, "protocol": self.protocol, "conventions": rows}


def explain(
    run: Path | Record,
    decoder: str | None = None,
    *,
    images: Path | None = None,
    data_dir: Path | None = None,
    redo: bool = False,
    statistics: Path | None = None,
    metrics: Sequence[str] = METRICS,
    progress: Progress | None = None,
) -> Explanation:
    """Compute a row's metrics under every convention that what is there allows.

    Args:
        run: a run's folder, or its record.
        decoder: label of the row, or the decoder's name; None = the only row.
        images: folder of `run --save-images`; None = where the record says, if it is still there.
        data_dir: where the original files lie; None = where the record says.
        redo: run the decoder again where a convention needs it.
        statistics: an .npz with `mu` and `sigma` of somebody's reference.
        metrics: those to look at.
        progress: called with (stage, done, total).

    Raises:
        UnknownNameError: no such metric or row.
        MsbenchError: no run there, files that are missing, damaged or not the run's, or weights that cannot be had.
    """
    for name in metrics:
        if name not in METRICS:
            raise UnknownNameError("metric", name, METRICS)
    opened = open_run(run)
    sources = Sources(opened, _row(opened.record, decoder), images, data_dir, redo, statistics)
    noise = opened.record.data.decoders[sources.label].noise
    seen = {**sources.result.metrics, **noise.per_seed.get(str(sources.seed), {})}
    protocol = {name: seen.get(name) for name in metrics}
    report = progress or (lambda stage, done, total: None)
    wanted, findings = [one for one in CONVENTIONS if one.metric in metrics], []
    with callers_generators(torch.device("cpu")):
        for place, one in enumerate(wanted):
            report(f"{one.metric}: {one.name}", place, len(wanted))
            own = protocol[one.metric]
            try:
                if own is None:
                    raise Needs(f"a run that measured {one.metric}")
                value = one.of(sources)
                findings.append(Finding(one, value, value - one.scale * own, one.source))
            except Needs as needs:
                findings.append(Finding(one, None, None, f"needs {needs}"))
    report("done", len(wanted), len(wanted))
    return Explanation(sources.label, len(opened.keys), sources.seed, protocol, tuple(findings))


def _row(record: Record, decoder: str | None) -> str:
    """The label of the row asked for, by label or decoder name."""
    rows = record.data.results
    labels = [row.label for row in rows if decoder in (None, row.label, row.decoder)]
    if decoder not in labels and len(labels) != 1:
        if labels:
            raise MsbenchError(f"{record.folder} holds {', '.join(labels)}: name one, as {record.folder}:{labels[0]}")
        raise UnknownNameError(f"row of {record.folder}", str(decoder), [row.label for row in rows])
    return decoder if decoder in labels else labels[0]
