"""The character error rate: its distance by hand and by definition, the order of lines, and what the real recogniser reads."""

from __future__ import annotations

import difflib
import random
import sys
from functools import cache

import numpy as np
import pytest
import torch

from harness.data.registry import open_dataset
from harness.data.types import Request
from harness.errors import MsbenchError
from harness.metrics.metric import Batch
from harness.metrics.ocr import METRIC, edit_distance, error_rate, in_reading_order, load

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("first", "second", "edits"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0), ("ab", "ba", 2)],
)
def test_edit_distance_by_hand(first: str, second: str, edits: int) -> None:
    assert edit_distance(first, second) == edits


def test_edit_distance_is_its_recursive_definition_and_at_most_what_difflib_edits() -> None:
    @cache
    def defined(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(defined(a[1:], b) + 1, defined(a, b[1:]) + 1, defined(a[1:], b[1:]) + (a[0] != b[0]))

    draw = random.Random(0)
    for _ in range(100):
        first, second = ("".join(draw.choices("abc", k=draw.randrange(9))) for _ in range(2))
        steps = difflib.SequenceMatcher(None, first, second).get_opcodes()
        by_difflib = sum(max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in steps if tag != "equal")
        assert edit_distance(first, second) == defined(first, second) <= by_difflib


def box(left: float, top: float, width: float = 40, height: float = 10) -> list[list[float]]:
    return [[left, top], [left + width, top], [left + width, top + height], [left, top + height]]


def test_lines_are_read_from_the_top_and_from_the_left() -> None:
    lines = [(box(60, 21), "d"), (box(10, 34), "e"), (box(62, 8), "b"), (box(10, 10), "a"), (box(12, 20), "c")]
    for seed in range(5):
        shuffled = random.Random(seed).sample(lines, len(lines))
        assert in_reading_order(shuffled).split() == ["a", "b", "c", "d", "e"]


def test_spaces_line_ends_and_full_width_signs_are_no_errors() -> None:
    assert error_rate("f(a, 1)\nend", "f（a，1） e nd") == 0.0
    assert error_rate("abcd", "abXd") == 0.25
    assert error_rate("abcd", "") == 1.0
    assert error_rate("ab", "xxxxxx") == 3.0


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    with pytest.raises(MsbenchError, match=r"pip install 'msbench\[text\]'"):
        load(CPU, True)


def test_the_definition_names_the_version_of_the_recogniser() -> None:
    recogniser = pytest.importorskip("importlib.metadata").version("rapidocr-onnxruntime")
    assert f"rapidocr-onnxruntime {recogniser} " in METRIC.definition


@pytest.mark.slow
def test_pages_are_read_empty_ones_are_all_lost_and_threads_change_nothing() -> None:
    pytest.importorskip("rapidocr_onnxruntime")
    pages = {page.key: page for page in open_dataset(Request("text"))}
    some = [pages[key] for key in ("10px-3", "16px-2", "24px-7")]
    images = torch.from_numpy(np.stack([page.image for page in some])).permute(0, 3, 1, 2)
    batch = Batch(images, images, texts=tuple(page.text for page in some))
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(load(CPU, True).measure(batch, None))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*found)
    assert found[0].max() < 0.05
    blank = Batch(images.new_full(images.shape, 200), images, texts=batch.texts)
    assert load(CPU, True).measure(blank, None).tolist() == [1.0, 1.0, 1.0]
