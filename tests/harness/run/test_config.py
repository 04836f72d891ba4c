"""What a run may be asked for: every number in its range, texts where people write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import MsbenchError
from harness.run.config import RunConfig, check_config, check_device


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 10**20}, "--batch-size 100000000000000000000: a whole number from 1 to 65,536"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"batch_size": 2.5}, "--batch-size 2.5"),
        ({"batch_size": True}, "--batch-size True"),
        ({"seed": 10**22}, "--seed 1"),
        ({"seed": 2**63 - 1, "noise_seeds": 3}, "--seed and --noise-seeds together"),
        ({"noise_seeds": 100_000_000}, "--noise-seeds 100000000: a whole number from 1 to 1,000"),
        ({"max_samples": -1}, "--max-samples -1"),
        ({"steps": 0}, "--steps 0"),
        ({"scales": 10**20}, "--scales"),
        ({"mode": "fast"}, "unknown mode"),
        ({"dtype": torch.int8}, "dtype torch.int8"),
        ({"resume": True}, "--output-dir"),
    ],
)
def test_a_number_out_of_its_range_is_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(MsbenchError, match=words):
        check_config(RunConfig(("jpeg",), **changes))


def test_texts_are_taken_where_people_write_them() -> None:
    config = RunConfig("jpeg, bicubic", dtype="bf16", output_dir="runs/a", data_dir="~/x")  # type: ignore[arg-type]
    assert config.decoders == ("jpeg", "bicubic")
    assert config.dtype is torch.bfloat16
    assert config.output_dir == Path("runs/a")
    check_config(config)
    with pytest.raises(MsbenchError, match="unknown dtype 'bf17'"):
        RunConfig("jpeg", dtype="bf17")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rows",
    [
        {"a=b": "jpeg"},
        {"a,b": "jpeg"},
        {"a@b": "jpeg"},
        {"vae@steps=4": "diffusion@steps=2"},
        {"a=b": object()},
        {"a,b@range=01": object()},
    ],
)
def test_a_label_that_no_text_can_hold_is_refused(rows: dict[str, object]) -> None:
    with pytest.raises(MsbenchError, match=r"^label '.*': leave out =, @ and the comma, which"):
        check_config(RunConfig(rows))


def test_labels_survive_their_text() -> None:
    rows = {"vae@steps=2": "vae@steps=2", "two words": "jpeg@bits_per_pixel=1", "a@2": "jpeg"}
    config = RunConfig(rows)
    assert RunConfig(config.texts()).requests() == config.requests()
    assert [one.label for one in config.requests()] == list(rows)
    check_config(RunConfig({"mine@range=01": object()}))


@pytest.mark.parametrize("name", ["meta", "xpu", "gpu", "cuda:99"])
def test_a_device_that_cannot_serve_is_one_line(name: str) -> None:
    with pytest.raises(MsbenchError, match=f"--device {name}"):
        check_device(name)


def test_the_public_face_lists_what_it_has() -> None:
    import msbench

    assert {"RunConfig", "evaluate", "__version__"} <= set(dir(msbench))
    assert isinstance(msbench.__version__, str)
