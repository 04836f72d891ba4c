"""The embedded pages: all there, unchanged, each with what stands on it."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from harness.data.text import PAGES, open_text
from harness.errors import MsbenchError

PIXELS = "6dca6d3088e77dd9b497276b718a732a18c0622cf30fcef88135223133e5c7f7"


def test_every_page_has_its_text_and_every_text_its_page(request_for) -> None:
    dataset = open_text(request_for("text", resolution=None))
    assert {entry.name for entry in dataset.entries} == {path.name for path in PAGES.glob("*.png")}
    assert all(entry.text.isascii() and entry.text.replace("\n", "").isprintable() for entry in dataset.entries)
    assert all(line.strip() for entry in dataset.entries for line in entry.text.split("\n"))
    assert Counter(entry.label for entry in dataset.entries) == {f"{size:02} px": 8 for size in (8, 10, 12, 16, 24, 32)}


def test_the_pages_are_those_that_were_committed(request_for) -> None:
    dataset, digest = open_text(request_for("text", resolution=None)), hashlib.sha256()
    for example in dataset:
        assert example.image.shape == (256, 256, 3)
        assert example.text
        assert np.ptp(example.image.astype(int).mean(axis=-1)) > 90  # ink on paper
        digest.update(f"{example.key}\0{example.text}\0".encode() + example.image.tobytes())
    assert dataset.skipped == []
    assert digest.hexdigest() == PIXELS
    assert sum(path.stat().st_size for path in PAGES.iterdir()) < 3_000_000


def test_a_subset_takes_every_font_size(request_for) -> None:
    some = open_text(request_for("text", resolution=None, max_samples=12))
    assert set(Counter(entry.label for entry in some.entries).values()) == {2}
    assert some.info.subset == "stratified by font size"


@pytest.mark.parametrize("options", [{"data_dir": Path("x")}, {"split": "train"}, {"resolution": 128}])
def test_what_it_does_not_have_is_refused(request_for, options) -> None:
    with pytest.raises(MsbenchError, match="256 px"):
        open_text(request_for("text", **{"resolution": None, **options}))
