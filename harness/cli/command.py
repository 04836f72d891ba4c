"""A command as its user sees it: options in groups in its --help, and the former names of options."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

FORMER = {"--cell-seconds": "--cost-seconds", "--batch-sizes": "--cost-batch-sizes", "--baselines": "--beside"}
"""name that an option had -> its name; commands that have the option take the former name too, and do not show it"""

_GROUPS = {
    "Decoders": "decoder checkpoint steps scales beside checkpoint_dir mode dtype teacher direct student control earlier",
    "Images": "dataset data_dir split resolution max_samples subset_seed allow_upsampling match preprocess as_given",
    "Quality": "seed noise_seeds margin extra_metrics reported reported_n metric",
    "Comparison": "baseline force same_rate against fail_on_regression update",
    "Cost": "cost cost_batch_sizes cost_seconds decoder_seconds budget_seconds cores cost_only speed_dir",
    "Training": "vae preset settings max_minutes max_pflops max_steps stop_after learning_rate warmup precision start_from",
    "Machine": "batch_size device offline timeout",
    "Run": "config dry_run output_dir save_images resume keep_going redo statistics",
    "Output": "columns table_format published images tensorboard as_json",
}
"""group -> parameters of commands, by name"""
GROUP_OF = {name: group for group, names in _GROUPS.items() for name in names.split()}


class Command(TyperCommand):
    """A command of msbench."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options, former names as their present ones."""
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*map(_present, args[:end]), *args[end:]])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options group by group."""
        found: dict[str, list[tuple[str, str]]] = {group: [] for group in ("Arguments", *_GROUPS)}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                group = "Arguments" if param.param_type_name == "argument" else GROUP_OF.get(param.name or "", "Options")
                found.setdefault(group, []).append(record)
        for group, records in found.items():
            if records:
                with formatter.section(group):
                    formatter.write_dl(records)


def _present(argument: str) -> str:
    name, sign, value = argument.partition("=")
    return FORMER.get(name, name) + sign + value
