"""The sheet of images: a file of the right size that shows what it was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.report.sheet import ENLARGE, busiest_patch, write_sheet

RED, BLUE = (200, 30, 30), (30, 30, 200)


def flat(colour: tuple[int, int, int], size: int = 64) -> np.ndarray:
    return np.full((size, size, 3), colour, np.uint8)


def share(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    """Pixels of exactly this colour."""
    return int((np.asarray(sheet) == colour).all(axis=-1).sum())


def test_the_busiest_patch_is_where_the_detail_is() -> None:
    image = flat((128, 128, 128), 96)
    image[40:56, 60:76] = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
    assert busiest_patch(image, 16) == (40, 60)
    top, left = busiest_patch(flat(RED), 16)
    assert 0 <= top <= 48
    assert 0 <= left <= 48


def test_the_sheet_holds_every_image_and_its_enlarged_patch(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sheet.png"
    write_sheet(path, [flat(RED)] * 3, {"vae": [flat(BLUE)] * 3}, ["a", "b", "c"], {"vae": ["30 dB"] * 3}, max_rows=2)
    with Image.open(path) as sheet:
        assert (sheet.format, sheet.mode) == ("PNG", "RGB")
        assert sheet.width == 2 * 64 + 3 * 8
        assert sheet.height > 2 * (64 + 64)
        # Two rows of a 64-px image above a 16-px patch enlarged to 64 px; the originals lose the outline of the patch.
        assert share(sheet, BLUE) == 2 * 2 * 64 * 64
        outline = 2 * (4 * (64 // ENLARGE) - 4 + 4 * (64 // ENLARGE + 2) - 4)
        assert 2 * 2 * 64 * 64 - outline <= share(sheet, RED) < 2 * 2 * 64 * 64
    assert [child.name for child in path.parent.iterdir()] == ["sheet.png"]


def test_images_of_different_sizes_share_a_sheet(tmp_path: Path) -> None:
    images = [flat(RED, 64), np.zeros((48, 96, 3), np.uint8)]
    write_sheet(tmp_path / "sheet.png", images, {"a decoder with a long name": images}, ["a", "b"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 2 * 96 + 3 * 8


def test_images_that_do_not_pair_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    with pytest.raises(ValueError, match="'vae' do not pair"):
        write_sheet(path, [flat(RED)], {"vae": [flat(RED, 32)]}, ["a"])
    with pytest.raises(ValueError, match=r"1 and \[2\]"):
        write_sheet(path, [flat(RED)], {}, ["a", "b"])
    with pytest.raises(ValueError, match=r"0 and \[0\]"):
        write_sheet(path, [], {}, [])
    assert not path.exists()


def test_names_that_no_font_can_draw_are_drawn_as_escapes(tmp_path: Path) -> None:
    hostile, plain = "caf\udce9\n\x1b[31m", r"caf\xe9\n\x1b[31m"
    for file, name in (("hostile.png", hostile), ("plain.png", plain)):
        write_sheet(tmp_path / file, [flat(RED, 256)], {name: [flat(BLUE, 256)]}, [name], {name: [name]})
    assert (tmp_path / "hostile.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
