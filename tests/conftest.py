"""What every test shares."""

from __future__ import annotations

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
