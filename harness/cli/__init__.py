"""The command line, one file a command (`msbench --help` lists them).

Everything heavy is imported inside the command that needs it, so that --help answers at once. Tables go to stdout; with --json,
stdout is one JSON document and everything else goes to stderr. Exit codes: see `EXIT_CODES`.
"""

from __future__ import annotations

import os
import warnings
from typing import Annotated

import typer

from harness.cli import check, claim, compare, doctor, explain, maintain, merge, schema, score, speed, sweep, train, verify
from harness.cli import leaderboard as leaderboard_
from harness.cli import report as report_
from harness.cli import run as run_
from harness.cli.command import Command
from harness.cli.shared import DEBUG, Commands, open_streams, say
from harness.environment import keep_freed_memory, msbench_version

EXIT_CODES = (
    "Exit codes: 0 done; 1 a check failed (check, compare --fail-on-regression, doctor, leaderboard, speed, verify, weights "
    "verify); 2 bad input, or a file, decoder or memory that fails; 3 a fault of msbench itself, its traceback in a file it "
    "names; 75 told to end (SIGTERM), 130 interrupted: with --resume, where there is one, it goes on; 141 the output's reader "
    "has gone."
)

app = typer.Typer(
    name="msbench",
    cls=Commands,
    help="Benchmark image tokenizer decoders: quality (rFID, KID, LPIPS, PSNR, SSIM) and cost (time, FLOPs, memory).",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        say(f"msbench {msbench_version() or 'unknown'}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help=f"Print the traceback of whatever ends a command; also {DEBUG}=1.")
    ] = False,
) -> None:
    if debug:
        os.environ[DEBUG] = "1"  # processes that a command starts read it too


app.command("run", cls=Command)(run_.run_command)
app.command("score", cls=Command)(score.score_command)
app.command("merge", cls=Command)(merge.merge_command)
app.command("compare", cls=Command)(compare.compare_command)
app.command("claim", cls=Command)(claim.claim_command)
app.command("verify", cls=Command)(verify.verify_command)
app.command("check", cls=Command)(check.check_command)
app.command("explain", cls=Command)(explain.explain_command)
app.command("report", cls=Command)(report_.report_command)
app.command("leaderboard", cls=Command)(leaderboard_.leaderboard_command)
app.command("speed", cls=Command)(speed.speed_command)
app.command("sweep", cls=Command)(sweep.sweep_command)
app.command("train-decoder", cls=Command)(train.train_command)
app.command("schema", cls=Command)(schema.schema_command)
app.command("ls", cls=Command)(maintain.ls_command)
app.command("doctor", cls=Command)(doctor.doctor_command)
new_app = typer.Typer(help="Write a file to start from.", no_args_is_help=True)
new_app.command("decoder", cls=Command)(check.new_decoder_command)
app.add_typer(new_app, name="new")
weights_app = typer.Typer(help="Weights of the metric networks.", no_args_is_help=True)
weights_app.command("fetch", cls=Command)(maintain.weights_fetch_command)
weights_app.command("verify", cls=Command)(maintain.weights_verify_command)
app.add_typer(weights_app, name="weights")


def main() -> None:
    """Entry point of the console script."""
    open_streams()
    # What these warn of in a file is told in our own words, or is none of the user's business.
    warnings.filterwarnings("ignore", module=r"(PIL|numpy\.lib|numpy\._core\.memmap|torch\._weights_only_unpickler)\b")
    keep_freed_memory()
    app(prog_name="msbench")
