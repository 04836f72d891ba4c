"""The command line: `msbench run | compare | claim | verify | speed | sweep | train-decoder | schema | ls | weights | doctor`.

Everything heavy is imported inside the command that needs it, so that --help answers at once. Tables go to stdout; with --json,
stdout is one JSON document and tables and progress go to stderr. Exit codes: 0 good, 1 a check failed, 2 bad input.
"""

from __future__ import annotations

import typer

from harness.cli import claim, compare, maintain, schema, speed, sweep, train, verify
from harness.cli import run as run_
from harness.environment import keep_freed_memory

app = typer.Typer(
    name="msbench",
    help="Benchmark image tokenizer decoders: quality (rFID, KID, LPIPS, PSNR, SSIM) and cost (time, FLOPs, memory).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run_.run_command)
app.command("compare")(compare.compare_command)
app.command("claim")(claim.claim_command)
app.command("verify")(verify.verify_command)
app.command("speed")(speed.speed_command)
app.command("sweep")(sweep.sweep_command)
app.command("train-decoder")(train.train_command)
app.command("schema")(schema.schema_command)
app.command("ls")(maintain.ls_command)
app.command("doctor")(maintain.doctor_command)
weights_app = typer.Typer(help="Weights of the metric networks.", no_args_is_help=True)
weights_app.command("fetch")(maintain.weights_fetch_command)
weights_app.command("verify")(maintain.weights_verify_command)
app.add_typer(weights_app, name="weights")


def main() -> None:
    """Entry point of the console script."""
    keep_freed_memory()
    app(prog_name="msbench")
