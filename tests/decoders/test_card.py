"""Model cards: the same facts for machines and for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decoders.training.card import read_curves, render_card, sparkline, write_card


def facts() -> dict[str, Any]:
    return {
        "decoder": "ms-onestep",
        "preset": "nano",
        "sha256": "a" * 64,
        "parameters": 2345678,
        "architecture": {"scales": 3},
        "flow": "cascade",
        "encoder_sha256": "b" * 64,
        "teacher_sha256": "c" * 64,
        "data": {"name": "imagenette train", "images": 9469, "resolution": 224, "pixels_sha256": "d" * 64},
        "objective": {"name": "DistillationObjective", "batch": 12, "lpips": 0.15},
        "optimiser": {"seed": 7},
        "perceptual_network": "LPIPS VGG16",
        "steps": 12000,
        "finished": True,
        "seconds": 5400.0,
        "hardware": {"platform": "Linux", "threads": 2, "cpu": "A processor", "gpus": [], "torch": "2.14.1"},
        "date": "2026-11-25",
        "loss_curves": {"step": [100.0 * (i + 1) for i in range(40)], "loss": [None, *(1.0 / (i + 1) for i in range(1, 40))]},
    }


def test_a_card_states_what_a_reader_needs() -> None:
    card = render_card(facts())
    for words in (
        "# ms-onestep (nano)",
        "2,345,678 parameters",
        "a" * 64,
        "b" * 64,
        "c" * 64,
        "d" * 64,
        "imagenette train, 9,469 images at 224 px",
        "batch 12, lpips 0.15",
        "12,000",
        "90.0 min",
        "A processor, 2 threads, torch 2.14.1",
        "| seed | 7 |",
        "cascade, 3 scale(s)",
        "| loss | ` █",
    ):
        assert words in card, words
    assert "stopped early" not in card
    tables = [line for line in card.splitlines() if line.startswith("| step |")]
    assert len(tables) == 1
    assert tables[0].count("|") == 13


def test_a_card_without_flow_teacher_or_curve() -> None:
    plain = facts() | {"flow": None, "loss_curves": {}, "finished": False}
    del plain["teacher_sha256"]
    card = render_card(plain)
    assert "flow" not in card
    assert "teacher" not in card
    assert "Training curves" not in card
    assert "(stopped early)" in card


def test_a_gpu_is_named_before_the_processor() -> None:
    with_gpu = facts()
    with_gpu["hardware"]["gpus"] = ["NVIDIA H100"]
    assert "| hardware | NVIDIA H100, 2 threads" in render_card(with_gpu)


def test_both_files_are_written(tmp_path: Path) -> None:
    write_card(tmp_path / "ms-onestep", facts())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ms-onestep.json", "ms-onestep.md"]
    assert json.loads((tmp_path / "ms-onestep.json").read_text()) == facts()
    assert (tmp_path / "ms-onestep.md").read_text() == render_card(facts())


def test_curves_come_from_the_log_and_skip_nan(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,loss,grad_norm,seconds,lpips_0\n10,4,1,1,nan\n20,2,1,2,0.5\n30,1,1,3,nan\n40,1,1,4,nan\n")
    assert read_curves(log, points=2) == {"step": [20.0, 40.0], "loss": [3.0, 1.0], "lpips_0": [0.5, None]}
    assert read_curves(tmp_path / "absent.csv") == {}


@pytest.mark.parametrize(
    ("values", "expected"), [([0.0, 1.0], "▁█"), ([3.0, 3.0], "▁▁"), ([0.0, 0.5, 1.0], "▁▅█"), ([8, 4, 2, 1, 1], "█▄▂▁▁")]
)
def test_sparkline(values: list[float], expected: str) -> None:
    assert sparkline(values) == expected
