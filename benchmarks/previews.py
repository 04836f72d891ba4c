"""Are the coarse outputs of a cascade student usable previews, and does it decode a larger image than it was trained on?

    python benchmarks/previews.py [--checkpoint FILE] [--output results/previews]

Writes PREFIX.png: public-domain photographs, each scale's end enlarged to the full size beside the original, at 256 and 512 px;
and PREFIX.csv: PSNR of every scale's end against the original halved to its resolution, and of bicubic interpolation from that
scale to the full size (what the preview shows of the whole), and the *seam ratio*: mean |difference| between neighbouring
pixels across the latents' grid lines, over that everywhere else; 1 = no seams; the original's own ratio stands beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.plumbing import options, run_script, write_csv
from decoders.flow import halve
from decoders.models import DiffusionDecoder
from harness.data.images import center_crop
from harness.decoder import DecoderOptions
from harness.noise import SampleNoise
from harness.registry import build_decoder
from harness.report.sheet import write_sheet
from harness.run.reconstruct import to_uint8

PHOTOGRAPHS = (("astronaut", 256), ("coffee", 256), ("chelsea", 256), ("astronaut", 512))
"""Public domain or CC0, from scikit-image; (name, side in pixels)"""

COLUMNS = (
    *("photograph", "side", "scale", "resolution"),
    *("psnr_at_scale", "psnr_enlarged", "seam_ratio", "seam_ratio_original"),
)


def photograph(name: str, side: int) -> Tensor:
    """Centre crop, float32 [1, 3, side, side] in [-1, 1]."""
    from skimage import data

    pixels = center_crop(Image.fromarray(getattr(data, name)()), side, False)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1.0


def psnr(image: Tensor, reference: Tensor) -> float:
    """dB of images in [-1, 1], the first clamped."""
    error = ((image.clamp(-1, 1) - reference) / 2).square().mean()
    return float(-10 * torch.log10(error))


def seam_ratio(image: Tensor, grid: int) -> float:
    """Mean |difference| of neighbours across lines at multiples of `grid`, over the mean of all others; [1, 3, H, W]."""
    across: list[Tensor] = []
    inside: list[Tensor] = []
    for axis in (-1, -2):
        steps = image.diff(dim=axis).abs().mean(dim=[d for d in range(4) if d != axis % 4])
        lines = torch.arange(1, len(steps) + 1) % grid == 0
        across.append(steps[lines])
        inside.append(steps[~lines])
    return float(torch.cat(across).mean() / torch.cat(inside).mean())


def enlarged(image: Tensor, side: int) -> NDArray[np.uint8]:
    """Nearest-neighbour enlargement to `side`, uint8 [side, side, 3]."""
    return to_uint8(F.interpolate(image, size=(side, side), mode="nearest"))[0].permute(1, 2, 0).numpy()


def measure(decoder: DiffusionDecoder, name: str, side: int) -> tuple[list[dict[str, Any]], list[NDArray[np.uint8]]]:
    """Table rows and pictures of one photograph: every scale's end, then the original."""
    original = photograph(name, side)
    ends: list[Tensor] = []
    noise = SampleNoise.for_samples(0, [f"{name}-{side}"])
    decoder.decode_scales(decoder.encode(original), noise, lambda _, end: ends.append(end.float()))
    rows, grid = [], decoder.spec.down_factor
    for scale, end in enumerate(ends):
        small = original
        while small.shape[-1] > end.shape[-1]:
            small = halve(small)
        whole = F.interpolate(end, size=(side, side), mode="bicubic", align_corners=False)
        psnrs = f"{psnr(end, small):.3f}", f"{psnr(whole, original):.3f}"
        seams = (f"{seam_ratio(image, grid):.4f}" for image in (end, small))
        rows.append(dict(zip(COLUMNS, (name, side, scale, end.shape[-1], *psnrs, *seams), strict=True)))
    return rows, [enlarged(image, side) for image in (*ends, original)]


def main() -> None:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("--checkpoint", type=Path, help="an ms-onestep checkpoint; default: the shipped one")
    parser.add_argument("--output", type=Path, default=Path("results/previews"), help="prefix of the two files")
    arguments = parser.parse_args()
    decoder = build_decoder("ms-onestep", DecoderOptions(checkpoint=arguments.checkpoint))
    assert isinstance(decoder, DiffusionDecoder)
    measured = [measure(decoder, name, side) for name, side in PHOTOGRAPHS]
    *scales, originals = zip(*(pictures for _, pictures in measured), strict=True)
    columns = {f"scale {index}": list(pictures) for index, pictures in enumerate(scales)}
    names = [f"{name}, {side} px" for name, side in PHOTOGRAPHS]
    write_sheet(arguments.output.with_suffix(".png"), list(originals), columns, names)
    write_csv([row for rows, _ in measured for row in rows], arguments.output.with_suffix(".csv"))


if __name__ == "__main__":
    sys.exit(run_script(main))
