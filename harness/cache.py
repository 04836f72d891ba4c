"""Where msbench keeps what it downloads: one folder, chosen by the environment, never inside a checkout."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """The cache folder: `$MSBENCH_CACHE`, else `~/.cache/msbench` (`$XDG_CACHE_HOME/msbench` where that is set).

    The folder may not exist yet; whoever writes creates it.
    """
    chosen = os.environ.get("MSBENCH_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "msbench"


def features_dir() -> Path | None:
    """Where features of reference images are kept: `$MSBENCH_FEATURES`, else `features` in the cache folder; None for "off"."""
    chosen = os.environ.get("MSBENCH_FEATURES")
    if chosen == "off":
        return None
    return Path(chosen).expanduser() if chosen else cache_dir() / "features"
