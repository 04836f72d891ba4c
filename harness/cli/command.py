"""A command as its user sees it: what its --help says of each option, in groups, and the former names of options."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from harness.errors import MsbenchError

FORMER = {"--cell-seconds": "--cost-seconds", "--batch-sizes": "--cost-batch-sizes", "--baselines": "--beside"}
"""name that an option had -> its name; commands that have the option take the former name too, and do not show it"""

_SEVERAL = ("run", "score", "train-decoder")
"""commands that several processes share"""
_GROUPS: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("options.toml").read_text(encoding="utf-8"))
GROUP_OF = {name: group for group, texts in _GROUPS.items() for name in texts}
"""parameter of a command -> the group of its --help it stands in"""


class Command(TyperCommand):
    """A command of msbench; what its signature leaves open of a parameter's meaning stands in options.toml."""

    def __init__(self, *args: Any, **extra: Any) -> None:
        super().__init__(*args, **extra)
        params: list[Any] = self.params
        for param in params:
            texts = _GROUPS.get(GROUP_OF.get(param.name, ""), {})
            own = [texts[key] for key in (param.name, f"{param.name} in {self.name}") if key in texts]
            param.help = param.help or " ".join(own)

    def invoke(self, ctx: Any) -> Any:
        """Run it; most commands are one process's, and several would write one folder."""
        if self.name not in _SEVERAL and os.environ.get("WORLD_SIZE", "1") != "1":
            raise MsbenchError(f"{self.name} is done by one process: start it without torchrun")
        return super().invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options, former names as their present ones."""
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*map(_present, args[:end]), *args[end:]])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options group by group."""
        found: dict[str, list[tuple[str, str]]] = {group: [] for group in _GROUPS}
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
