"""`pca-f8c4`, `pca-f8c16`, `pca`: f×f cells projected on their principal components, and back by the transpose.

The best linear code of single cells: the floor that a learned tokenizer must beat at equal rate. Latents are whitened: each
number has variance 1 over the images it was fitted on. `msbench train-decoder pca-f8c16` fits one, for any f and C.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from baselines.options import refuse_sampling_options, require_multiple, spec_of
from harness.cells import CellPca, fit_pca
from harness.decoder import DecoderOptions, DecoderSpec, NoiseSource
from harness.errors import MsbenchError
from harness.files import sha256_file, write_bytes, write_text

FORMAT = "msbench-pca-1"
SHIPPED = Path(__file__).parent / "checkpoints"


class PcaDecoder:
    """Projection and transpose, in float32 whatever the run's dtype. Latents: [B, C, H/f, W/f]."""

    def __init__(self, pca: CellPca, spec: DecoderSpec, device: torch.device) -> None:
        self.spec = spec
        self.weight, self.bias = (tensor.to(device) for tensor in pca.projection())
        self.back, self.mean = (tensor.to(device) for tensor in pca.transpose())

    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] -> [B, C, H/f, W/f]. Raises `MsbenchError` unless f divides H and W."""
        require_multiple(self.spec.name, images, self.spec.down_factor)
        cells = F.pixel_unshuffle(images.float(), self.spec.down_factor)
        return F.conv2d(cells, self.weight[:, :, None, None], self.bias)

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        """[B, C, h, w] -> float32 [B, 3, f·h, f·w]; values beyond [-1, 1] are left as they are; no noise is drawn."""
        cells = F.conv2d(latents.float(), self.back[:, :, None, None], self.mean)
        return F.pixel_shuffle(cells, self.spec.down_factor)


def write_pca(path: Path, images: Tensor, down_factor: int, channels: int, facts: dict[str, Any]) -> None:
    """Fit uint8 images [N, 3, H, W] and write PATH and its card, the .json beside it; the same images give the same file.

    Args:
        facts: what the card says of them; "trained_on" is shown in records.

    Raises:
        MsbenchError: as `fit_pca`.
    """
    pca = fit_pca(images, down_factor, channels)
    tensors = {entry.name: getattr(pca, entry.name) for entry in fields(CellPca)}
    write_bytes(path, save(tensors, {FORMAT: facts["trained_on"]}))
    std = [float(f"{value:.4g}") for value in pca.std.tolist()]
    card = {**facts, "sha256": sha256_file(path), "std": std, "date": time.strftime("%Y-%m-%d", time.gmtime())}
    write_text(path.with_suffix(".json"), json.dumps(card, indent=1) + "\n")


def read_pca(path: Path) -> tuple[CellPca, int, str]:
    """Components, f, and what they were fitted on.

    Raises:
        MsbenchError: no such file, or not one that `write_pca` wrote.
    """
    try:
        with safe_open(path, framework="pt") as file:
            trained_on = (file.metadata() or {})[FORMAT]
            pca = CellPca(*(file.get_tensor(entry.name).float() for entry in fields(CellPca)))
    except (SafetensorError, OSError, KeyError) as error:
        raise MsbenchError(
            f"{path} is no file of principal components ({error}); fit one with `msbench train-decoder pca-f8c16`"
        ) from error
    channels, values = (*pca.components.shape, 0, 0)[:2]
    down_factor = math.isqrt(values // 3)
    shapes = tuple(tuple(tensor.shape) for tensor in (pca.mean, pca.components, pca.std))
    wanted = ((3 * down_factor**2,), (channels, 3 * down_factor**2), (channels,))
    finite = all(bool(tensor.isfinite().all()) for tensor in (pca.mean, pca.components, pca.std))
    if shapes != wanted or not 1 <= channels <= values or not finite:
        raise MsbenchError(f"{path} is damaged: its tensors are not components of square cells (shapes {shapes})")
    return pca, down_factor, trained_on


def pca(options: DecoderOptions) -> PcaDecoder:
    """Build `pca` from the file `options.checkpoint`, or one of the shipped rates by its name.

    Raises `MsbenchError` for steps, scales, random weights, and a checkpoint that is missing, damaged or not asked for.
    """
    name = options.name
    refuse_sampling_options(name, options)
    if options.weights != "trained":
        raise MsbenchError(f"decoder {name!r} has nothing to draw at random; leave weights={options.weights!r} out for it")
    if name != "pca" and options.checkpoint is not None:
        raise MsbenchError(f"decoder {name!r} ships its components; use `pca` for those of {options.checkpoint}")
    if name == "pca" and options.checkpoint is None:
        raise MsbenchError("decoder 'pca' needs --checkpoint FILE, which `msbench train-decoder pca-f8c16` fits")
    path = options.checkpoint or SHIPPED / f"{name}.safetensors"
    components, down_factor, trained_on = read_pca(path)
    sha256, channels = sha256_file(path), len(components.std)
    with torch.device("meta"):
        layer = nn.Conv2d(channels, 3 * down_factor**2, 1)  # what decoding holds, to be counted
    spec = spec_of(name, down_factor, channels, layer, trained_on, sha256, sha256)
    return PcaDecoder(components, spec, options.device)
