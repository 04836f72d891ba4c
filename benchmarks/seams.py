"""How visible the grid of the latents is in what decoders give, also at a size they were not trained on.

    python benchmarks/seams.py [--decoder vae,direct,onestep,ms-onestep] [--output results/seams.csv]

Public-domain photographs at 256 and 512 px; for each decoder PSNR and the *seam ratio*: mean |difference| between neighbouring
pixels across the latents' grid lines, over that everywhere else; 1 = no seams; the original's own ratio stands beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from benchmarks.plumbing import options, run_script, write_csv
from harness.data.images import center_crop
from harness.noise import SampleNoise
from harness.request.requests import parse_requests, split_list

PHOTOGRAPHS = (("astronaut", 256), ("coffee", 256), ("chelsea", 256), ("astronaut", 512))
"""Public domain or CC0, from scikit-image; (name, side in pixels)"""


def photograph(name: str, side: int) -> Tensor:
    """Centre crop, float32 [1, 3, side, side] in [-1, 1]."""
    from skimage import data

    pixels = center_crop(Image.fromarray(getattr(data, name)()), side, False)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1.0


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


def main() -> None:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("--decoder", default="vae,direct,onestep,ms-onestep")
    parser.add_argument("--output", type=Path, default=Path("results/seams.csv"))
    arguments = parser.parse_args()
    rows = []
    for request in parse_requests(split_list(arguments.decoder)):
        decoder = request.build(torch.device("cpu"), torch.float32)
        for name, side in PHOTOGRAPHS:
            original, grid = photograph(name, side), decoder.spec.down_factor
            noise = SampleNoise.for_samples(0, [f"{name}-{side}"])
            image = decoder.decode(decoder.encode(original), noise).float().clamp(-1, 1)
            psnr = float(-10 * torch.log10(((image - original) / 2).square().mean()))
            ratios = {"seam_ratio": seam_ratio(image, grid), "seam_ratio_original": seam_ratio(original, grid)}
            rows.append({"decoder": request.label, "photograph": name, "side": side, "psnr": psnr, **ratios})
    write_csv(rows, arguments.output)


if __name__ == "__main__":
    sys.exit(run_script(main))
