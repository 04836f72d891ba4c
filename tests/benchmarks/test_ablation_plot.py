"""The figure of an ablation table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from benchmarks.ablation import METRICS, Training, row
from benchmarks.ablation_plot import FAMILIES, draw, label, ordered
from decoders.presets import DIFFUSION
from decoders.training.request import trainable_decoders
from harness.record.record import Record
from tests.harness.records import details, result, run_data


def frame(*rows: tuple[str, int, float]) -> pd.DataFrame:
    """(decoder, calls, rFID) -> a table like the ablation's; every other metric follows from the rFID."""
    lines: list[dict[str, Any]] = []
    for index, (decoder, nfe, rfid) in enumerate(rows):
        line: dict[str, Any] = {
            "cell": f"cell-{index}",
            "decoder": decoder,
            "nfe": nfe,
            "scales": 3 if decoder.startswith("ms") else 1,
            "seed": index % 2,
        }
        for metric in METRICS:
            value = rfid if metric != "psnr" else 30 - rfid / 20
            line |= {metric: value, f"{metric}_low": value - 3, f"{metric}_high": value + 4}
        lines.append(line)
    return pd.DataFrame(lines)


ROWS = (("direct", 1, 80.0), ("diffusion", 50, 150.0), ("diffusion", 10, 140.0), ("ms-onestep", 3, 90.0), ("vae", 1, 85.0))


def test_rows_stand_by_family_and_then_by_rfid() -> None:
    rows = ordered(frame(*ROWS))
    assert rows["decoder"].tolist() == ["diffusion", "diffusion", "ms-onestep", "direct", "vae"]
    assert rows["rfid"].tolist()[:2] == [140.0, 150.0]
    assert [label(line) for _, line in rows.iterrows()] == [
        "cell-2, 10 calls",
        "cell-1, 50 calls, seed 1",
        "cell-3, seed 1",
        "cell-0",
        "cell-4",
    ]


def test_every_trainable_decoder_has_a_family() -> None:
    assert {name for decoders in FAMILIES.values() for name in decoders} == set(trainable_decoders()) | set(DIFFUSION)
    with pytest.raises(KeyError, match="jpeg"):
        ordered(frame(("jpeg", 1, 1.0)))


def test_the_figure_is_written_twice_alike_and_without_a_metric_that_was_not_measured(tmp_path: Path) -> None:
    rows = frame(*ROWS)
    draw(rows, tmp_path / "a")
    draw(rows, tmp_path / "b")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    text = (tmp_path / "a.svg").read_text()
    assert "DISTS" in text
    rows.loc[:, ["dists", "dists_low", "dists_high"]] = float("nan")
    draw(rows, tmp_path / "c")
    assert "DISTS" not in (tmp_path / "c.svg").read_text()
    with Image.open(tmp_path / "a.png") as wide, Image.open(tmp_path / "c.png") as narrow:
        assert wide.width == narrow.width


def test_a_card_that_does_not_state_its_budget_leaves_it_empty(tmp_path: Path) -> None:
    data = run_data([(result("vae", psnr=23.0), details())])
    card = {"flow": None, "objective": {"name": "AutoencoderObjective"}, "perceptual_network": "LPIPS vgg", "steps": 3}
    line = row(Training("vae", "vae"), 0, card | {"seconds": 60.0, "parameters": 5}, Record(tmp_path, data))
    assert line["training_pflops"] is None
    assert (line["objective"], line["training_minutes"], line["psnr"], line["psnr_low"]) == ("autoencoder", 1.0, 23.0, None)
