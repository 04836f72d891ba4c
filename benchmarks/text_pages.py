"""Draws the pages of the dataset `text` from harness/data/pages/pages.json into the PNG files beside it.

    python benchmarks/text_pages.py --fonts /usr/share/fonts/truetype/liberation2

DejaVu comes from matplotlib; `--fonts` names the folder of Liberation 2. Glyphs differ a little from one FreeType to the next,
so the committed files are the dataset: this says how they were made.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

PAGES = Path(__file__).parents[1] / "harness" / "data" / "pages"
SIDE, MARGIN, LEADING = 256, 12, 1.4
"""side of a page and its margin in pixels; distance of two lines in font sizes"""


def paper(colours: list[str], texture: str, seed: int) -> Image.Image:
    """An empty page: one colour, or two mixed by a ramp, by stripes or by smooth grain."""
    first, last = (np.array(ImageColor.getrgb(one), float) for one in (colours[0], colours[-1]))
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    if texture == "grain":
        cells = np.random.default_rng(seed).integers(0, 256, (SIDE // 4, SIDE // 4), np.uint8)
        mix = np.asarray(Image.fromarray(cells).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 255
    else:
        mix = (x + y) / 2 if texture == "ramp" else 0.5 + 0.5 * np.sin(2 * np.pi * (12 * x + 5 * y))
    return Image.fromarray((first + mix[..., None] * (last - first)).round().astype(np.uint8))


def draw(page: dict[str, Any], fonts: dict[str, Path], seed: int) -> Image.Image:
    """One page; raises ValueError where a line does not fit."""
    image, font = paper(page["paper"], page["texture"], seed), ImageFont.truetype(fonts[page["font"]], page["size"])
    pen, step, lines = ImageDraw.Draw(image), round(LEADING * page["size"]), page["lines"]
    for number, line in enumerate(lines):
        corner = (MARGIN, (SIDE - len(lines) * step) // 2 + number * step)
        if max(pen.textbbox(corner, line, font)) > SIDE:
            raise ValueError(f"{page['key']}: {line!r} does not fit")
        pen.text(corner, line, page["ink"], font)
    return image


def main() -> None:
    """Draw every page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fonts", type=Path, required=True, help="folder of Liberation 2")
    folders = (Path(matplotlib.get_data_path(), "fonts", "ttf"), parser.parse_args().fonts)
    fonts = {path.stem: path for folder in folders for path in folder.glob("*.ttf")}
    for seed, page in enumerate(json.loads((PAGES / "pages.json").read_text())["pages"]):
        draw(page, fonts, seed).save(PAGES / f"{page['key']}.png", optimize=True)


if __name__ == "__main__":
    main()
