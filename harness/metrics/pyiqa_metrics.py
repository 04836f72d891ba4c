"""The full-reference metrics of pyiqa, as `pyiqa:NAME` on request: names, directions and ranges are those of its own table.

Its table is read without importing it, which takes seconds. It is another package under another licence: see `NOTICE`.
"""

from __future__ import annotations

import runpy
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import torch

from harness.errors import MsbenchError
from harness.metrics.metric import Batch, Column, Metric, PerImage

PREFIX = "pyiqa:"
PACKAGE = "pyiqa"
NOTICE = "metrics pyiqa:… are computed by pyiqa, whose licence (PolyForm Noncommercial 1.0.0) allows no commercial use"


def metrics() -> dict[str, Metric]:
    """One entry for each full-reference metric of the installed pyiqa, by name; none where it is not installed."""
    found = find_spec(PACKAGE)
    folders = (found.submodule_search_locations if found else None) or []
    table = next((path for folder in folders if (path := Path(folder, "default_model_configs.py")).is_file()), None)
    if table is None:
        return {}
    facts: Mapping[str, Any] = runpy.run_path(str(table))["DEFAULT_CONFIGS"]
    entries = [_entry(name, one) for name, one in facts.items() if one.get("metric_mode") == "FR"]
    return {entry.name: entry for entry in entries}


def _entry(name: str, facts: Mapping[str, Any]) -> Metric:
    options = ", ".join(f"{key}={value}" for key, value in facts["metric_opts"].items())
    return Metric(
        name=PREFIX + name,
        direction="lower" if facts.get("lower_better") else "higher",
        description=f"{name} by pyiqa (noncommercial licence); range {facts.get('score_range', 'not stated')}",
        definition=f"pyiqa {version(PACKAGE)} {name} ({options}), RGB in [0, 1]",
        title=PREFIX + name,
        digits=None,
        extra=True,
        load=partial(_load, name),
        at_once=4,  # some hold features of whole networks
        origin=PACKAGE,
        notice=NOTICE,
    )


def _load(name: str, device: torch.device, offline: bool) -> PerImage:
    """The metric's network or formula on a device; raises `MsbenchError` where `offline` forbids the download it needs."""
    import pyiqa

    with _network(name, offline):
        model = pyiqa.create_metric(name, device=device)

    def measure(batch: Batch, _: None) -> Column:
        found = model(batch.images.float() / 255, batch.references.float() / 255)
        values = found[0] if isinstance(found, tuple) else found  # one gives more beside the image's quality
        column: Column = values.reshape(len(batch.images)).double().cpu().numpy()
        return column

    return PerImage(measure)


@contextmanager
def _network(name: str, offline: bool) -> Iterator[None]:
    """Where `offline` is asked for, no host is looked up inside, and who tries is told why."""
    lookup, asked = socket.getaddrinfo, list[object]()

    def refuse(host: object, *_: object) -> NoReturn:
        asked.append(host)
        raise OSError(f"--offline: {host} is not looked up")

    try:
        if offline:
            socket.getaddrinfo = refuse  # type: ignore[assignment]  # every downloader that pyiqa has goes through it
        yield
    except Exception as error:
        if not asked:
            raise
        raise MsbenchError(
            f"metric {PREFIX}{name} needs weights that pyiqa downloads (from {asked[0]}): run it once without --offline"
        ) from error
    finally:
        socket.getaddrinfo = lookup
