"""The command that compares: tables, differences with verdicts, published figures beside them, and the regression gate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.shared import JsonFlag, console_for, print_json, progress_bar, user_errors
from harness.errors import MsbenchError, UnknownNameError

if TYPE_CHECKING:
    from harness.compare.comparison import Comparison

_FORMATS = ("table", "markdown", "csv", "latex")


def compare_command(
    runs: Annotated[list[str], typer.Argument(help="Run folders, each RUN or RUN:DECODER.")],
    baseline: Annotated[
        str | None,
        typer.Option(
            help="What the others are held against: a decoder or a row's label. Default: the decoder of the same name in the "
            "first run, or else the first row."
        ),
    ] = None,
    margin: Annotated[
        str,
        typer.Option(
            help="Losses that count as none, as lpips=0.01,rfid=5%; others than the run's own are marked as chosen late."
        ),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Show runs of different protocols side by side all the same.")] = False,
    table_format: Annotated[str, typer.Option("--format", help="table, markdown, csv or latex.")] = "table",
    published: Annotated[
        bool, typer.Option("--published", help="Show figures from papers below, apart and never ranked.")
    ] = False,
    against: Annotated[
        str | None, typer.Option(help="Hold the runs against a reference: a name in results/regression or a path.")
    ] = None,
    fail_on_regression: Annotated[
        bool, typer.Option("--fail-on-regression", help="Exit 1 where a figure is worse than the reference allows.")
    ] = False,
    update: Annotated[bool, typer.Option("--update", help="Write the runs' figures into the reference, on purpose.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Put runs of one protocol side by side: differences with intervals and verdicts, or a gate against a reference."""
    with user_errors():
        if table_format not in _FORMATS:
            raise UnknownNameError("format", table_format, _FORMATS)
        chosen = [_run_argument(run) for run in runs]
        if against is not None:
            raise typer.Exit(_gate(chosen, against, fail_on_regression, update, as_json))
        if fail_on_regression or update:
            raise MsbenchError("--fail-on-regression and --update need a reference: add --against NAME or PATH")
        from harness.compare.compare import compare

        if console_for(True).is_terminal:
            with progress_bar() as progress:
                comparison = compare(chosen, force, baseline, margin, progress)
        else:
            comparison = compare(chosen, force, baseline, margin)
        for warning in comparison.warnings:
            console_for(True).print(f"warning: {warning}", soft_wrap=True)
        if table_format == "table":
            _print_tables(comparison, published, as_json)
        else:
            text = _text(comparison, table_format, published)
            (sys.stderr if as_json else sys.stdout).write(text.rstrip("\n") + "\n")
        if as_json:
            print_json(_document(comparison))


def _print_tables(comparison: Comparison, published: bool, as_json: bool) -> None:
    from harness.report.comparison import comparison_tables
    from harness.report.published import published_rows, published_table
    from harness.report.table import results_table

    console = console_for(as_json)
    console.print(results_table(comparison.table_rows(), demo_datasets=_demo(comparison)))
    for table in comparison_tables(comparison):
        console.print(table)
    if published:
        console.print(published_table(published_rows()))


def _text(comparison: Comparison, table_format: str, published: bool) -> str:
    """The comparison as Markdown, CSV or LaTeX."""
    from harness.report.comparison import comparison_latex, comparison_markdown, with_differences
    from harness.report.latex import to_latex
    from harness.report.published import published_csv, published_latex, published_markdown, published_rows
    from harness.report.table import to_frame, to_markdown

    rows, demo = comparison.table_rows(), _demo(comparison)
    if table_format == "markdown":
        sources = "".join(f"- {line}\n" for line in dict.fromkeys(record.provenance() for record in comparison.records))
        warned = "".join(f"- Warning: {line}\n" for line in comparison.warnings)
        text = to_markdown(rows, demo) + warned + sources + comparison_markdown(comparison)
        return text + ("\n" + published_markdown(published_rows()) if published else "")
    if table_format == "latex":
        text = to_latex(rows, demo) + "\n" + comparison_latex(comparison)
        return text + ("\n" + published_latex(published_rows()) if published else "")
    text = with_differences(to_frame(rows), comparison).to_csv(index=False, lineterminator="\n")
    return text + (published_csv(published_rows()) if published else "")


def _demo(comparison: Comparison) -> tuple[str, ...]:
    """Names of the demo sets among the rows."""
    demo = {row.dataset for record in comparison.records for row in record.data.results if record.data.dataset.info.demo}
    return tuple(sorted(demo))


def _document(comparison: Comparison) -> dict[str, Any]:
    from harness.record.record import document
    from harness.report.comparison import comparison_documents
    from harness.report.table import caveats

    return {
        **document(comparison.records),
        "results": list(comparison.results),
        **comparison_documents(comparison),
        "warnings": [*comparison.warnings, *caveats(comparison.results, _demo(comparison))],
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
        console_for(as_json).print(line, soft_wrap=True, markup=False, highlight=False)
    if as_json:
        print_json(document)
    return int(fail and failed)


def _run_argument(text: str) -> tuple[Any, str | None]:
    """RUN or RUN:DECODER."""
    from harness.record.record import read_record

    if Path(text).exists():
        return read_record(Path(text)), None
    path, _, decoder = text.rpartition(":")
    if path and Path(path).exists():
        return read_record(Path(path)), decoder
    raise MsbenchError(f"no run at {text}: give the folder that `msbench run` printed, or FOLDER:DECODER")
