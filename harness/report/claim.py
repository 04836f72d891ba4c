"""The three answers of `msbench claim` as tables, with the decoders in question and the stages apart."""

from __future__ import annotations

from collections.abc import Sequence

from harness.compare.claim import MARGINS, Claim, Pair
from harness.report.comparison import difference_text, ratio_text
from harness.report.results import metric_title
from harness.report.table import Cell, Table, listing, number


def claim_tables(claim: Claim) -> list[Table]:
    """Every table: the decoders, each answer with its conditions and pairs, the stages."""
    tables = [_decoders(claim)]
    for place, answer in enumerate(claim.answers, 1):
        title, headers = f"{place}. {answer.question}: {answer.verdict}", ("condition", "outcome", "evidence")
        conditions = [(one.condition, one.outcome, one.evidence) for one in answer.findings]
        tables += [listing(headers, conditions, title, wrap=headers), *_pairs(answer.pairs)]
    return [*tables, *_pairs(claim.stages, "Stages apart")]


def _decoders(claim: Claim) -> Table:
    headers = *map(metric_title, MARGINS), "Top octave\ndB", "rFID SD\nover seeds", "an image's\nPSNR SD", "GFLOPs"
    headers, rows = ("decoder", *headers, "start\nPFLOPs", "training\nPFLOPs"), list[list[Cell]]()
    for row in claim.rows:
        result, noise, spec = row.result, row.details.noise, row.details.spec
        spread = (result.noise_spread or {}).get("rfid"), (noise.image_spread or {}).get("psnr")
        figures = *map(result.metrics.get, MARGINS), result.octaves_db.get("0"), *spread, result.gflops
        figures = *figures, spec.start_pflops, spec.training_pflops
        rows.append([Cell(row.label), *(number(figure, lambda value: f"{value:.4g}") for figure in figures)])
    notes = (
        "SD: standard deviation over noise seeds; none where there is one seed. PFLOPs: 10^15 FLOPs of a training, and of the "
        "one that it started from, as their cards say.",
        *(f"{line}." for line in claim.warnings),
    )
    return listing(headers, rows, f"The claim on {claim.rows[0].result.dataset}, n = {claim.rows[0].result.n:,}", notes)


def _pairs(pairs: Sequence[Pair], title: str = "") -> list[Table]:
    """Decoder against baseline: what is saved, and what is lost."""
    quantities = list(dict.fromkeys(cost.quantity for pair in pairs for cost in pair.costs))
    rows = []
    for pair in pairs:
        costs = {cost.quantity: Cell(cost.value, (ratio_text(cost),)) for cost in pair.costs}
        losses = [Cell(one.value, (difference_text(one.value, one.ci), one.outcome)) for one in pair.differences]
        name = Cell(f"{pair.what}: {pair.decoder} − {pair.baseline}", (f"{pair.what}:", f"{pair.decoder} −", pair.baseline))
        rows.append([name, *(costs.get(quantity) for quantity in quantities), *losses])
    notes = [
        "GFLOPs and time: baseline over decoder, above 1× the decoder is cheaper. Differences: decoder minus baseline, paired "
        "by image, with 95 % intervals; passed: no loss beyond the margin, which is fixed, or a share of direct's figure."
    ]
    notes += [f"{line}." for pair in pairs for line in pair.notes]
    return [listing(("pair", *quantities, *map(metric_title, MARGINS)), rows, title, notes)] if pairs else []
