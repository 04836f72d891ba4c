"""`msbench claim`: the paper's claim, tested on runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.shared import JsonFlag, console_for, print_json, user_errors
from harness.errors import MsbenchError

if TYPE_CHECKING:
    from harness.compare.claim import Candidate


def claim_command(
    teacher: Annotated[list[str], typer.Option(help="A multi-step decoder, RUN:DECODER; once for each number of steps.")],
    direct: Annotated[str, typer.Option(help="The noise-free regression control, RUN:DECODER.")],
    student: Annotated[str, typer.Option(help="The one-step student, RUN:DECODER.")],
    control: Annotated[list[str] | None, typer.Option(help="What the student must beat as well, RUN:DECODER.")] = None,
    earlier: Annotated[
        str | None, typer.Option(help="The teacher's weights after three quarters of its training, RUN:DECODER.")
    ] = None,
    distillation_minutes: Annotated[
        float | None, typer.Option(min=0.0, help="What the distillation took, for the break-even.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Does a one-step student keep the quality of a teacher worth distilling? Exit 1 where that is not shown."""
    with user_errors():
        from harness.compare.claim import examine

        claim = examine(
            [_candidate(one) for one in teacher],
            _candidate(direct),
            _candidate(student),
            [_candidate(one) for one in control or ()],
            _candidate(earlier) if earlier else None,
            None if distillation_minutes is None else 60.0 * distillation_minutes,
        )
    console = console_for(as_json)
    console.print(f"teacher: {claim.teacher.label}, rFID {claim.teacher.measured.value('rfid'):.4g}", soft_wrap=True)
    for finding in (*claim.qualification, *claim.findings):
        console.print(f"  {finding.outcome:<9}  {finding.condition}: {finding.evidence}", soft_wrap=True, markup=False)
    console.print(claim.verdict, soft_wrap=True)
    if as_json:
        print_json(
            {
                "teacher": claim.teacher.label,
                "qualified": claim.qualified,
                "qualification": [asdict(finding) for finding in claim.qualification],
                "findings": [asdict(finding) for finding in claim.findings],
                "verdict": claim.verdict,
            }
        )
    if not claim.qualified or any(finding.outcome != "passed" for finding in claim.findings):
        raise typer.Exit(1)


def _candidate(argument: str) -> Candidate:
    from harness.compare.claim import candidate
    from harness.record.record import read_record

    run, colon, decoder = argument.rpartition(":")
    if not (colon and run and decoder):
        raise MsbenchError(f"{argument}: give RUN:DECODER, a run's folder and one of its decoders")
    return candidate(read_record(Path(run)), decoder)
