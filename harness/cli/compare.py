"""The command that compares: tables, differences with verdicts, published figures beside them, and the regression gate."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.shared import JsonFlag, parse_names, print_json, progress_bar, read_run, say, show
from harness.errors import MsbenchError, UnknownNameError

if TYPE_CHECKING:
    from harness.compare.comparison import Comparison

_FORMATS = ("table", "markdown", "csv", "latex", "model-index")


def compare_command(
    runs: list[str],
    baseline: str | None = None,
    margin: str = "",
    force: Annotated[bool, typer.Option("--force")] = False,
    same_rate: Annotated[bool, typer.Option("--same-rate")] = False,
    table_format: Annotated[str, typer.Option("--format")] = "table",
    published: Annotated[bool, typer.Option("--published")] = False,
    against: str | None = None,
    fail_on_regression: Annotated[bool, typer.Option("--fail-on-regression")] = False,
    update: Annotated[bool, typer.Option("--update")] = False,
    columns: str = "",
    as_json: JsonFlag = False,
) -> None:
    """Put runs of one protocol side by side: differences with intervals and verdicts, or a gate against a reference.

    \b
    Examples:
      msbench compare RUN-A RUN-B:ms-onestep --baseline vae
      msbench compare RUN --format latex --columns rfid,psnr,ms_per_image_b1
      msbench compare RUN --against photos-cpu --fail-on-regression
    """
    if table_format not in _FORMATS:
        raise UnknownNameError("format", table_format, _FORMATS)
    if table_format == "model-index" and (columns or published):
        raise MsbenchError("--format model-index states every metric of the runs: leave out --columns and --published")
    idle = {"--force": force, "--published": published, "--baseline": baseline, "--margin": margin, "--columns": columns}
    idle |= {"--same-rate": same_rate}
    _refuse_contradictions(against, fail_on_regression, update, {**idle, "--format": table_format != "table"})
    chosen = [read_run(run) for run in runs]
    if against is not None:
        raise typer.Exit(_gate(chosen, against, fail_on_regression, update, as_json))
    from harness.compare.compare import compare
    from harness.report.comparison import comparison_tables, with_differences
    from harness.report.model_index import model_index
    from harness.report.published import published_rows, published_table
    from harness.report.results import paper_columns, results_table
    from harness.report.table import csv_text, latex, markdown, select

    with progress_bar() if sys.stderr.isatty() else nullcontext() as progress:
        comparison = compare(chosen, force, baseline, margin, progress, same_rate)
    for warning in comparison.warnings:
        say(f"warning: {warning}", stderr=True)
    sets = dict.fromkeys(f"Decoders on {row['dataset']}, n = {row['n']:,}" for row in comparison.results)
    title = "; ".join(sets) if table_format == "latex" else ""
    results = results_table(comparison.table_rows(), title, comparison.demo_sets)
    whole = with_differences(results, comparison) if table_format == "csv" else results
    names = parse_names(columns) or (paper_columns(results) if table_format == "latex" else ())
    results = select(whole, names) if names else whole
    tables = [results, *comparison_tables(comparison), *([published_table(published_rows())] if published else [])]
    if table_format == "table":
        show(*tables, stderr=as_json)
    elif table_format == "csv":
        text = csv_text(results)
        text += f"# {tables[-1].title}\n{csv_text(tables[-1])}" if published else ""
    elif table_format == "latex":
        text = "\n".join(map(latex, tables))
    elif table_format == "model-index":
        text = model_index(comparison)
    else:
        sources = dict.fromkeys(record.provenance().replace("`", "") for record in comparison.records)
        notes = [*results.notes, *(f"Warning: {line}" for line in comparison.warnings), *sources]
        text = "\n".join(map(markdown, (replace(results, notes=notes), *tables[1:])))
    if table_format != "table":
        (sys.stderr if as_json else sys.stdout).write(text)
    if as_json:
        print_json(_document(comparison))


def _refuse_contradictions(against: str | None, fail: bool, update: bool, idle: dict[str, Any]) -> None:
    """Raise `MsbenchError` for options of which one would do nothing; `idle` are those that the gate does not look at."""
    if against is None and (fail or update):
        raise MsbenchError("--fail-on-regression and --update need a reference: add --against NAME or PATH")
    if fail and update:
        raise MsbenchError("--update writes the reference and checks nothing: leave out --fail-on-regression")
    given = ", ".join(option for option, said in idle.items() if said)
    if against is not None and given:
        raise MsbenchError(f"--against prints the gate alone: leave out {given}")


def _document(comparison: Comparison) -> dict[str, Any]:
    from harness.record.record import document
    from harness.report.comparison import comparison_documents
    from harness.report.results import caveats

    return {
        **document(comparison.records),
        "results": list(comparison.results),
        **comparison_documents(comparison),
        "warnings": [*comparison.warnings, *caveats(comparison.results, comparison.demo_sets)],
    }


def _gate(chosen: list[tuple[Any, str | None]], against: str, fail: bool, update: bool, as_json: bool) -> int:
    """Hold the runs against a reference, or write it; the exit code."""
    from harness.compare.gate import check, update_reference
    from harness.compare.reference import read_reference
    from harness.record.run import open_run

    reference = None if update else read_reference(against)
    records, decoders = [open_run(record).record for record, _ in chosen], [decoder for _, decoder in chosen]
    if reference is None:
        lines, failed = update_reference(records, decoders, against), False
        document: dict[str, Any] = {"schema_version": 1, "status": "updated", "reference": against, "changes": lines}
    else:
        report = check(records, reference, decoders)
        lines, failed, document = report.lines(), not report.passed, report.document()
    for line in lines:
        say(line, as_json)
    if as_json:
        print_json(document)
    return int(fail and failed)
