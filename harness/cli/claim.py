"""`msbench claim`: the paper's claim, tested on runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.shared import JsonFlag, finite, parse_run, print_json, say
from harness.errors import MsbenchError

if TYPE_CHECKING:
    from harness.compare.claim import Candidate


def claim_command(
    teacher: Annotated[list[str], typer.Option(help="The multi-step teacher. RUN:DECODER, once for each number of steps.")],
    direct: Annotated[str, typer.Option(help="The noise-free regression control, RUN:DECODER.")],
    student: Annotated[str, typer.Option(help="The one-step student, RUN:DECODER.")],
    control: Annotated[list[str] | None, typer.Option(help="What the student must beat as well, RUN:DECODER.")] = None,
    earlier: Annotated[
        str | None, typer.Option(help="The teacher's weights after three quarters of its training, RUN:DECODER.")
    ] = None,
    distillation_minutes: Annotated[
        float | None, typer.Option(min=0.0, callback=finite, help="What the distillation took, for the break-even.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Does a one-step student keep the quality of a teacher worth distilling? Exit 1 where that is not shown.

    \b
    Example:
      msbench claim --teacher RUN:ms-diffusion-cascade --direct RUN:direct --student RUN:ms-onestep
    """
    from harness.compare.claim import examine

    claim = examine(
        [_candidate(one) for one in teacher],
        _candidate(direct),
        _candidate(student),
        [_candidate(one) for one in control or ()],
        _candidate(earlier) if earlier else None,
        None if distillation_minutes is None else 60.0 * distillation_minutes,
    )
    say(f"teacher: {claim.teacher.label}, rFID {claim.teacher.measured.value('rfid'):.4g}", as_json)
    for finding in (*claim.qualification, *claim.findings):
        say(f"  {finding.outcome:<9}  {finding.condition}: {finding.evidence}", as_json)
    say(claim.verdict, as_json)
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

    run, decoder = parse_run(argument)
    if decoder is None:
        raise MsbenchError(f"{argument}: give RUN:DECODER, a run's folder and one of its decoders")
    return candidate(read_record(run), decoder)
