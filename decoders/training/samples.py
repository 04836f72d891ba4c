"""The sheet a training ends with: a few of its own images, decoded by the checkpoint it wrote."""

from __future__ import annotations

from pathlib import Path

import torch

from decoders.models import make_autoencoder, make_diffusion
from decoders.presets import DIFFUSION
from decoders.training.data import TrainingImages, trim
from harness.decoder import Decoder, DecoderOptions
from harness.noise import SampleNoise
from harness.report.sheet import write_sheet
from harness.run.reconstruct import reconstruct

COUNT = 6
STEPS_PER_SCALE = 4
"""network calls a scale of a multi-step decoder: enough to look at, an eighth of the time"""


def write_samples(path: Path, checkpoint: Path, name: str, scales: int | None, data: TrainingImages) -> None:
    """Decode `COUNT` images spread over `data` with the weights in `checkpoint` and draw them beside the originals.

    Args:
        path: where the PNG goes.
        name: registry name the checkpoint was trained as.
        scales: K of a denoiser.
    """
    decoder = _decoder(checkpoint, name, scales)
    picks = torch.linspace(0, len(data.images) - 1, min(COUNT, len(data.images))).long()
    originals = trim(data.images[picks], decoder.spec.down_factor)
    keys = [f"training image {int(index)}" for index in picks]
    # The arrangement every decoder shows the harness: uint8 in, uint8 out, rounded once.
    decoded = reconstruct(decoder, originals, SampleNoise.for_samples(0, keys)).pixels
    error = (decoded.double() - originals.double()).square().mean(dim=(1, 2, 3)).clamp(min=1e-9)
    captions = [f"{float(10 * torch.log10(255**2 / value)):.1f} dB" for value in error]
    pictures = {name: [image.permute(1, 2, 0).numpy() for image in decoded]}
    write_sheet(path, [image.permute(1, 2, 0).numpy() for image in originals], pictures, keys, {name: captions}, COUNT)


def _decoder(checkpoint: Path, name: str, scales: int | None) -> Decoder:
    preset = DIFFUSION.get(name)
    if preset is None:
        return make_autoencoder(name, DecoderOptions(checkpoint=checkpoint))
    scales = scales or preset.scales
    steps = STEPS_PER_SCALE * scales if preset.objective == "flow" else scales
    return make_diffusion(name, DecoderOptions(checkpoint=checkpoint, steps=steps, scales=scales))
