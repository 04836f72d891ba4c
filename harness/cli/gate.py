"""The regression gate on the command line: one line a regression, one summary line, and the reference rewritten on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.cli.shared import print_json, say

if TYPE_CHECKING:
    from harness.compare.gate import GateReport
    from harness.record.record import Record


def apply_gate(
    records: Sequence[Record],
    decoders: Sequence[str | None] | None,
    against: str,
    fail_on_regression: bool,
    update: bool,
    as_json: bool = False,
) -> int:
    """Hold runs against a reference, or with `update` write it from them; says what it found.

    Args:
        records: the runs; no decoder in two of them.
        decoders: for each run the only decoder wanted, None = all (RUN:DECODER); None for all of everything.
        against: a name in results/regression, or a path.
        fail_on_regression: answer 1 where something regressed.
        update: write the runs' figures into the reference; nothing is checked.
        as_json: print one document on stdout, the lines on stderr.

    Returns:
        The exit code: 0, or 1 for a regression with `fail_on_regression`.

    Raises:
        MsbenchError: no such reference, or runs that do not compare with it.
    """
    from harness.compare.gate import check
    from harness.compare.reference import read_reference

    if update:
        passed, lines = True, update_reference(records, decoders, against)
        document: dict[str, Any] = {"status": "updated", "changes": lines}
    else:
        report = check(records, read_reference(against), decoders)
        passed, lines = report.passed, report_lines(report)
        document = {"status": "passed" if passed else "failed", **gate_document(report)}
    for line in lines:
        say(line, as_json)
    if as_json:
        print_json({"schema_version": 1, **document})
    return int(fail_on_regression and not passed)


def report_lines(report: GateReport) -> list[str]:
    """A report for people: one line a regression, improvement, absence and remark, and a summary."""
    lines = [f"regression: {deviation.line()}" for deviation in report.regressions]
    lines += [
        f"better than the reference: {deviation.line()}: update it on purpose (--update)" for deviation in report.improvements
    ]
    lines += [*report.missing, *(f"remark: {remark}" for remark in report.remarks)]
    count, better = len(report.regressions), len(report.improvements)
    found = f"{count} regression{'' if count == 1 else 's'}" if count else "no regression"
    found += f", {better} better" if better else ""
    return [
        *lines,
        f"gate {'passed' if report.passed else 'failed'}: {report.checked} figures against {report.reference}, {found}",
    ]


def gate_document(report: GateReport) -> dict[str, Any]:
    """A report in JSON types, for `--json`; infinite differences are left to the writer (null)."""

    def rows(deviations: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {
                "decoder": deviation.expected.decoder,
                "metric": deviation.expected.metric,
                "expected": deviation.expected.value,
                "got": deviation.got,
                "worse_by": deviation.worse_by,
                "tolerance": deviation.expected.tolerance,
                "tolerance_from": deviation.expected.tolerance_from,
            }
            for deviation in deviations
        ]

    return {
        "reference": report.reference,
        "passed": report.passed,
        "checked": report.checked,
        "regressions": rows(report.regressions),
        "improvements": rows(report.improvements),
        "missing": list(report.missing),
        "remarks": list(report.remarks),
    }


def update_reference(records: Sequence[Record], decoders: Sequence[str | None] | None, against: str) -> list[str]:
    """Write runs' figures into a reference, new or old, and say what changed.

    Decoders that the runs lack stay as they were. A bare name means the checkout's results/regression.

    Raises:
        MsbenchError: the runs do not compare with each other, or they are of another protocol than the reference and lack some
            of its decoders.
    """
    from harness.compare.gate import changes, make_reference
    from harness.compare.reference import merge, read_reference, reference_path, write_reference

    path = reference_path(against)
    new = make_reference(records, decoders=decoders, name=against)
    old = read_reference(str(path)) if path.is_file() else None
    whole = new if old is None else merge(old, new)
    write_reference(path, whole)
    lines = [] if old is None else list(changes(old, new))
    return [*lines, f"{'wrote' if old is None else 'updated'} {path}: {len(new.figures)} figures of {', '.join(new.decoders)}"]
