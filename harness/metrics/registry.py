"""The metrics by name: the built-in files, and the entry-point group `msbench.metrics` for anybody else's package.

A new metric is one file with its `METRIC` and one name in `MODULES`. An entry point names a `Metric`, and is loaded where a run
asks for it by name (`--extra-metrics`) or a record holds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from importlib.metadata import EntryPoint, EntryPoints, entry_points

from harness.errors import MsbenchError, UnknownNameError
from harness.metrics import pyiqa_metrics
from harness.metrics.metric import Metric

GROUP = "msbench.metrics"
MODULES = ("rfid", "kid", "psnr", "ssim", "lpips", "spectral", "latent_error", "token_agreement", "dists", "ocr")
"""files of this folder that hold a metric of the same name, in the order tables show them"""
BUILT_IN: dict[str, Metric] = {name: import_module(f"harness.metrics.{name}").METRIC for name in MODULES}
"""Those of this package, in the order tables show them."""
METRICS: dict[str, Metric] = BUILT_IN | pyiqa_metrics.metrics()
"""Every metric: those of pyiqa where it is installed come last, and then those of other packages asked for by name."""
EXTRA: tuple[str, ...] = tuple(name for name, metric in METRICS.items() if metric.extra)
"""Metrics a run computes on request."""
PER_IMAGE: tuple[str, ...] = tuple(name for name, metric in METRICS.items() if metric.per_image and not metric.extra)
"""Metrics that every run computes for every image."""
DEFAULT_MARGINS = ",".join(f"{name}={metric.margin}" for name, metric in BUILT_IN.items() if metric.margin)
"""Losses that count as none unless a run states others, of the built-in metrics: the protocol must not depend on what else is
installed."""


def plug_ins() -> dict[str, EntryPoint]:
    """Metrics of other packages by name, not imported; one that has the name of a metric of msbench is none."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in BUILT_IN}


def load_named(names: Iterable[str]) -> None:
    """Add those metrics of other packages to `METRICS` that are among `names`; no other one's code runs.

    Raises:
        MsbenchError: one cannot be loaded, or is no metric of that name.
    """
    for name in sorted({*names} & plug_ins().keys() - METRICS.keys()):
        METRICS[name] = _loaded(entry_points(group=GROUP, name=name))


def _loaded(points: EntryPoints) -> Metric:
    if len(origins := sorted(map(origin_of, points))) > 1:
        raise MsbenchError(f"metric {points[0].name!r} is in {' and '.join(origins)}: remove one of them")
    (point,) = points
    here = f"metric {point.name!r} of {origin_of(point)} ({point.value})"
    try:
        metric = point.load()
    except (Exception, SystemExit) as error:
        raise MsbenchError(f"{here} cannot be loaded: {type(error).__name__}: {error}; mend or remove it") from error
    if not isinstance(metric, Metric):
        raise MsbenchError(f"{here} is a {type(metric).__name__}, not a harness.metrics.metric.Metric: mend it")
    if metric.name != point.name or not re.fullmatch(r"[a-z][a-z0-9_]*", metric.name):
        raise MsbenchError(f"{here}: its name {metric.name!r} must be its entry point's, of a-z, 0-9 and _, a letter first")
    if metric.per_image and metric.load is None:
        raise MsbenchError(f"{here} computes nothing: give it load, whole or statistic")
    return replace(metric, origin=origin_of(point), extra=True)


def origin_of(point: EntryPoint) -> str:
    """The distribution that an entry point comes from."""
    return point.dist.name if point.dist is not None else "an unknown distribution"


def check_extra(name: str) -> None:
    """Load the metric if it is another package's; raise `MsbenchError` unless a run can compute it on request."""
    load_named([name])
    if name.startswith(pyiqa_metrics.PREFIX) and not any(one.startswith(pyiqa_metrics.PREFIX) for one in EXTRA):
        raise MsbenchError(f"--extra-metrics {name}: pyiqa is not installed: pip install 'msbench[iqa]'")
    if name not in EXTRA and name not in (others := plug_ins()):
        raise UnknownNameError("extra metric", name, [*EXTRA, *others])
