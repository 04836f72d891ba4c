"""What every test shares."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator

import pytest

# A shell starts what it puts in the background with Ctrl-C ignored: tests that send it would wait for nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def features_outside_the_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs of the tests keep their reference's features below the session's temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSBENCH_FEATURES", str(tmp_path_factory.mktemp("features")))
        yield


@pytest.fixture
def told_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing counts as disturbed, whatever else this machine does: for tests of ratios."""
    for name in ("MOST_RUN_DELAY", "MOST_STEAL", "MOST_SPREAD"):
        monkeypatch.setattr(f"harness.cost.latency.{name}", math.inf)
