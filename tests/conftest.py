"""What every test shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def features_outside_the_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs of the tests keep their reference's features below the session's temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSBENCH_FEATURES", str(tmp_path_factory.mktemp("features")))
        yield
