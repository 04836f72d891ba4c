"""One sheet of images: a row per sample, the original beside each decoder, the busiest patch enlarged below each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from harness.files import atomic_path
from harness.report.table import visible

Pixels = NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

ENLARGE = 4
"""How many times the patch is enlarged; the patch has 1/ENLARGE of the image's shorter side, 64 px at 256."""

_GAP = 8
_PAPER = (255, 255, 255)
_INK = (20, 20, 20)
_FAINT = (95, 95, 95)
_FRAME = (255, 220, 0)
_TITLE_SIZES = range(20, 9, -1)
_NOTE_SIZE = 15


def busiest_patch(image: Pixels, size: int, stride: int = 4) -> tuple[int, int]:
    """(top, left) of the `size`² patch of uint8 [H, W, 3] whose luma varies most, on a grid of `stride` px."""
    luma = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    luma -= luma.mean()  # keeps the difference of two large sums exact

    def window_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        sums: NDArray[np.float64] = total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
        return sums[::stride, ::stride] / size**2

    variance = window_means(luma**2) - window_means(luma) ** 2
    row, column = np.unravel_index(variance.argmax(), variance.shape)
    return int(row) * stride, int(column) * stride


def write_sheet(
    path: Path,
    reference: Sequence[Pixels],
    reconstructions: Mapping[str, Sequence[Pixels]],
    keys: Sequence[str],
    captions: Mapping[str, Sequence[str]] | None = None,
    max_rows: int = 6,
) -> None:
    """Draw the sheet and write it to `path` (PNG) atomically.

    Args:
        path: where the PNG goes.
        reference: uint8 [H, W, 3] originals; sizes may differ between samples.
        reconstructions: decoder -> one image per original, of the original's size, in the order of the columns.
        keys: sample names, one per original, shown above each row.
        captions: decoder -> a short text per original, shown under its header ("30.1 dB · LPIPS .104").
        max_rows: samples drawn at most, from the first.

    Raises `ValueError` where the numbers or sizes of images do not agree, or there is nothing to draw.
    """
    texts = {**dict.fromkeys(reconstructions, [""] * len(reference)), **(captions or {})}
    columns = (keys, *reconstructions.values(), *texts.values())
    if not reference or any(len(column) != len(reference) for column in columns):
        raise ValueError(f"a sheet needs equally many images, keys, captions; got {len(reference)} and {[*map(len, columns)]}")
    for name, images in reconstructions.items():
        if any(image.shape != original.shape for image, original in zip(images, reference, strict=True)):
            raise ValueError(f"the reconstructions of {name!r} do not pair with the originals in size")
    rows = range(min(max_rows, len(reference)))
    names = ["original", *map(visible, reconstructions)]
    cell_width = max(reference[row].shape[1] for row in rows)
    title_font = _font_for(names, cell_width, _TITLE_SIZES)
    note_font = ImageFont.load_default(size=_NOTE_SIZE)
    title_height, note_height = _line_height(title_font), _line_height(note_font)

    row_heights = [
        note_height + _GAP // 2 + reference[row].shape[0] + _GAP // 2 + _patch_size(reference[row]) * ENLARGE for row in rows
    ]
    width = _GAP + len(names) * (cell_width + _GAP)
    height = _GAP + title_height + sum(2 * _GAP + row_height for row_height in row_heights) + _GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)

    for column, name in enumerate(names):
        draw.text((_GAP + column * (cell_width + _GAP), _GAP), name, font=title_font, fill=_INK)
    top = _GAP + title_height
    for row, row_height in zip(rows, row_heights, strict=True):
        top += 2 * _GAP
        size = _patch_size(reference[row])
        corner = busiest_patch(reference[row], size)
        for column, name in enumerate(("original", *reconstructions)):
            left = _GAP + column * (cell_width + _GAP)
            image = reconstructions[name][row] if column else reference[row]
            note = texts[name][row] if column else keys[row]
            draw.text((left, top), _shortened(visible(note), note_font, cell_width), font=note_font, fill=_FAINT)
            _paste_cell(sheet, image, corner, size, (left, top + note_height + _GAP // 2), framed=column == 0)
        top += row_height

    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def _paste_cell(
    sheet: Image.Image, image: Pixels, corner: tuple[int, int], size: int, place: tuple[int, int], framed: bool
) -> None:
    """The image at `place` (left, top), its patch at `corner` (top, left) enlarged below it; `framed` outlines the patch."""
    left, top = place
    sheet.paste(Image.fromarray(image), (left, top))
    y, x = corner
    patch = Image.fromarray(np.ascontiguousarray(image[y : y + size, x : x + size]))
    enlarged = patch.resize((size * ENLARGE, size * ENLARGE), Image.Resampling.NEAREST)
    sheet.paste(enlarged, (left, top + image.shape[0] + _GAP // 2))
    if framed:
        draw = ImageDraw.Draw(sheet)
        # A dark line around the bright one keeps it visible on any picture.
        draw.rectangle((left + x - 1, top + y - 1, left + x + size, top + y + size), outline=_INK)
        draw.rectangle((left + x, top + y, left + x + size - 1, top + y + size - 1), outline=_FRAME)


def _patch_size(image: Pixels) -> int:
    return max(1, min(int(side) for side in image.shape[:2]) // ENLARGE)


def _font_for(names: Sequence[str], width: int, sizes: Sequence[int]) -> Font:
    """The largest default font in which every name fits `width` pixels; the smallest where none does."""
    fonts = [ImageFont.load_default(size=size) for size in sizes]
    return next((font for font in fonts if max(map(font.getlength, names)) <= width), fonts[-1])


def _line_height(font: Font) -> int:
    return int(font.getbbox("Ågj")[3]) + 2


def _shortened(text: str, font: Font, width: int) -> str:
    """`text`, cut with "…" where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
