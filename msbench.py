"""The public face of msbench: `python -m msbench`, and what users and plug-ins import."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.check.conformance import Finding, check
    from harness.compare.compare import compare
    from harness.decoder import Decoder, DecoderOptions, DecoderSpec, NoiseSource
    from harness.errors import MsbenchError
    from harness.metrics.metric import Batch, Check, Metric, PerImage, Tolerance, Whole
    from harness.record.record import Record
    from harness.record.run import Run, open_run
    from harness.run.config import RunConfig
    from harness.run.runner import evaluate

__all__ = ["Batch", "Check", "Decoder", "DecoderOptions", "DecoderSpec", "Finding", "Metric", "MsbenchError", "NoiseSource"]
__all__ += ["PerImage", "Record", "Run", "RunConfig", "Tolerance", "Whole", "check", "compare", "evaluate", "main", "open_run"]

_HOMES = {
    "harness.check.conformance": ("Finding", "check"),
    "harness.compare.compare": ("compare",),
    "harness.decoder": ("Decoder", "DecoderOptions", "DecoderSpec", "NoiseSource"),
    "harness.errors": ("MsbenchError",),
    "harness.metrics.metric": ("Batch", "Check", "Metric", "PerImage", "Tolerance", "Whole"),
    "harness.record.record": ("Record",),
    "harness.record.run": ("Run", "open_run"),
    "harness.run.config": ("RunConfig",),
    "harness.run.runner": ("evaluate",),
}
"""module -> what is imported from it on first use, so that `msbench --help` stays fast"""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from harness.environment import msbench_version

        return msbench_version() or "unknown"
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'msbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def main() -> None:
    """The console script."""
    import sys

    if line := _hidden():
        print(f"msbench: {line}", file=sys.stderr)
        sys.exit(2)
    from harness.cli import main as cli

    cli()


def _hidden() -> str:
    """Which folder or file hides one of msbench's own packages, one line; empty where none does."""
    from importlib.util import find_spec
    from pathlib import Path

    for name in ("harness", "decoders", "baselines"):
        mine, spec = Path(__file__).resolve().with_name(name), find_spec(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found != mine / "__init__.py":
            where = found or "nowhere to be found"
            return f"{name} is {where}, not {mine}: start msbench in another folder, or take that one off PYTHONPATH"
    return ""


if __name__ == "__main__":
    main()
