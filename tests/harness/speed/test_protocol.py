"""Lists of numbers as options take them."""

from __future__ import annotations

import pytest

from harness.errors import MsbenchError
from harness.speed.protocol import parse_counts


def test_numbers_and_a_word() -> None:
    assert parse_counts("--batch-sizes", "1, 8,max,8", "max", 64, "memory") == (1, 8, "max")


@pytest.mark.parametrize("text", ["0", "65", "-1", "1.5", "", "9" * 5000])
def test_other_texts_are_one_line(text: str) -> None:
    with pytest.raises(MsbenchError, match=r"give whole numbers from 1 to 64 \(memory\) or a word, such as 1,max"):
        parse_counts("--batch-sizes", text, "max", 64, "memory")
