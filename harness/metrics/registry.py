"""The metrics by name: the built-in files, and the entry-point group `msbench.metrics` for anybody else's package.

A new metric is one file with its `METRIC` and one name in `MODULES`. An entry point names a `Metric`.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from importlib import import_module
from importlib.metadata import entry_points

from harness.errors import MsbenchError, UnknownNameError
from harness.metrics import pyiqa_metrics
from harness.metrics.metric import Metric

GROUP = "msbench.metrics"
MODULES = ("rfid", "kid", "psnr", "ssim", "lpips", "spectral", "latent_error", "token_agreement", "dists")
"""files of this folder that hold a metric of the same name, in the order tables show them"""
_LOG = logging.getLogger(__name__)


def _plug_ins(built_in: dict[str, Metric]) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        origin = point.dist.name if point.dist is not None else "an unknown distribution"
        here = f"metric {point.name!r} of {origin} ({point.value})"
        try:
            metric = point.load()
        except (Exception, SystemExit) as error:
            raise MsbenchError(f"{here} cannot be loaded: {type(error).__name__}: {error}; mend or remove {origin}") from error
        if not isinstance(metric, Metric):
            raise MsbenchError(f"{here} is a {type(metric).__name__}, not a harness.metrics.metric.Metric: mend {origin}")
        if metric.name in built_in:
            _LOG.warning("%s is left out: %s is a metric of msbench", here, metric.name)
            continue
        if metric.name in found:
            raise MsbenchError(f"{here}: {found[metric.name].origin} has a metric {metric.name!r} too; remove one of them")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", metric.name):
            raise MsbenchError(f"{here}: its name {metric.name!r} must be of a-z, 0-9 and _, a letter first")
        if metric.per_image and metric.load is None:
            raise MsbenchError(f"{here} computes nothing: give it load, whole or statistic")
        found[metric.name] = replace(metric, origin=origin)
    return found


BUILT_IN: dict[str, Metric] = {name: import_module(f"harness.metrics.{name}").METRIC for name in MODULES}
"""Those of this package, in the order tables show them."""
METRICS: dict[str, Metric] = BUILT_IN | _plug_ins(BUILT_IN) | pyiqa_metrics.metrics()
"""Every metric; those of other packages come last, by name, and then those of pyiqa where it is installed."""
EXTRA: tuple[str, ...] = tuple(name for name, metric in METRICS.items() if metric.extra)
"""Metrics a run computes on request."""
PER_IMAGE: tuple[str, ...] = tuple(name for name, metric in METRICS.items() if metric.per_image and not metric.extra)
"""Metrics that every run computes for every image."""
DEFAULT_MARGINS = ",".join(f"{name}={metric.margin}" for name, metric in BUILT_IN.items() if metric.margin)
"""Losses that count as none unless a run states others, of the built-in metrics: the protocol must not depend on what else is
installed."""


def check_extra(name: str) -> None:
    """Raise `MsbenchError` unless a run can compute this metric on request: nobody has it, or pyiqa is not installed."""
    if name.startswith(pyiqa_metrics.PREFIX) and not any(one.startswith(pyiqa_metrics.PREFIX) for one in EXTRA):
        raise MsbenchError(f"--extra-metrics {name}: pyiqa is not installed: pip install 'msbench[iqa]'")
    if name not in EXTRA:
        raise UnknownNameError("extra metric", name, EXTRA)
