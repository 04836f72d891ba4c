"""Where msbench keeps what it downloads: one folder, chosen by the environment, never inside a checkout."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import MsbenchError


def cache_dir() -> Path:
    """The cache folder: `$MSBENCH_CACHE`, else `~/.cache/msbench` (`$XDG_CACHE_HOME/msbench` where that is set).

    The folder may not exist yet; whoever writes creates it.

    Raises:
        MsbenchError: none is chosen and this user has no home folder.
    """
    chosen, base = os.environ.get("MSBENCH_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        if chosen:
            return Path(chosen).expanduser()
        return (Path(base) if base else Path.home() / ".cache") / "msbench"
    except RuntimeError as error:
        raise MsbenchError(f"no folder to keep downloads in ({error}); set MSBENCH_CACHE to one") from error


def features_dir() -> Path | None:
    """Where features of reference images are kept: `$MSBENCH_FEATURES`, else `features` in the cache folder; None for "off"."""
    chosen = os.environ.get("MSBENCH_FEATURES")
    if chosen == "off":
        return None
    return Path(chosen).expanduser() if chosen else cache_dir() / "features"
