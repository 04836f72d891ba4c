"""The public face of msbench: `python -m msbench`, and what users and plug-ins import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.compare.compare import compare
    from harness.decoder import Decoder, DecoderOptions, DecoderSpec, NoiseSource
    from harness.errors import MsbenchError
    from harness.metrics.metric import Batch, Check, Metric, PerImage, Tolerance, Whole
    from harness.record.record import Record
    from harness.run.config import RunConfig
    from harness.run.runner import evaluate

__all__ = [
    "Batch",
    "Check",
    "Decoder",
    "DecoderOptions",
    "DecoderSpec",
    "Metric",
    "MsbenchError",
    "NoiseSource",
    "PerImage",
    "Record",
    "RunConfig",
    "Tolerance",
    "Whole",
    "compare",
    "evaluate",
    "main",
]

_HOMES = {
    "Decoder": "harness.decoder",
    "DecoderOptions": "harness.decoder",
    "DecoderSpec": "harness.decoder",
    "MsbenchError": "harness.errors",
    "NoiseSource": "harness.decoder",
    "Record": "harness.record.record",
    "RunConfig": "harness.run.config",
    "compare": "harness.compare.compare",
    "evaluate": "harness.run.runner",
    **dict.fromkeys(("Batch", "Check", "Metric", "PerImage", "Tolerance", "Whole"), "harness.metrics.metric"),
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `msbench --help` stays fast."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "__version__":
        from harness.environment import msbench_version

        return msbench_version() or "unknown"
    raise AttributeError(f"module 'msbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def main() -> None:
    """The console script."""
    from harness.cli import main as cli

    cli()


if __name__ == "__main__":
    main()
