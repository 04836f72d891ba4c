"""msbench beside the published packages: pairs that are pairs, the same figures from both sides, an honest table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.peer_metrics import Side, compare, equal, pairs, table
from harness import weights
from harness.errors import MsbenchError


def write(folder: Path, count: int, noise: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
        pixels = np.asarray(coarse).astype(int) + np.random.default_rng(index).integers(-noise, noise + 1, (64, 64, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    return folder


def test_folders_must_hold_the_same_pictures(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", 3, 0), write(tmp_path / "b", 3, 9)
    assert pairs(first, second) == ["0.png", "1.png", "2.png"]
    (second / "2.png").unlink()
    with pytest.raises(MsbenchError, match="they hold 3 and 2, 2 names in both"):
        pairs(first, second)


def test_the_table_says_how_many_times_and_how_far_apart() -> None:
    ours = Side({"rfid": 100.0, "psnr": 20.0, "ssim": 0.5, "lpips": 0.25}, 1.0, 1.0)
    theirs = Side({"rfid": 100.05, "psnr": 20.0, "ssim": 0.5, "lpips": 0.25}, 4.0, 2.0)
    assert equal(ours.figures, theirs.figures)
    assert not equal(ours.figures, theirs.figures | {"lpips": 0.2521})
    flops = {"rfid_seconds": 8e7, "pixel_seconds": 1e7, "seconds": 9e7}
    rows = {row["quantity"]: row for row in table([ours], [theirs], 10, 1, flops, 1e9)}
    assert rows["rFID half, seconds an image"]["times_faster"] == "4.00"
    assert rows["both, seconds an image"]["times_faster"] == "3.00"
    assert (rows["both, seconds an image"]["msbench"], rows["rfid"]["difference"]) == ("0.2000", "-5.00e-02")
    limit, share = (rows[f"rFID half, {name}"] for name in ("limit, seconds an image", "share of the limit"))
    assert (limit["msbench"], share["msbench"], share["packages"]) == ("0.0800", "0.800", "0.200")


@pytest.mark.slow
def test_both_sides_find_the_same_figures(tmp_path: Path) -> None:
    try:
        for name in ("inception", "lpips-alex"):
            weights.load(name, offline=True)
    except MsbenchError:
        pytest.skip("metric weights are not here")
    rows, verdict = compare(write(tmp_path / "a", 4, 0), write(tmp_path / "b", 4, 20), 1, 1, tmp_path)
    assert "on 4 pairs with 1 threads; figures equal to 0.001" in verdict
    assert len(rows) == 14
