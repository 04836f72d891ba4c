"""`jpeg`: an image codec at the bits of f8c4 latents, so that learned decoders face what 1992 could do with as much room.

f8c4 latents at 16 bits a number are H/8 · W/8 · 4 · 16 bits: one bit a pixel, 8,192 bytes at 256²; `bits_per_pixel=N` takes
another budget, as the effective rate of somebody's latents. It covers the whole file, headers and Huffman tables included.
Files: baseline JPEG, 4:2:0 chroma, optimised Huffman tables, quality per image.
"""

from __future__ import annotations

import io
import re

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from baselines.options import refuse_network_options, spec_of
from harness.decoder import DecoderOptions, NoiseSource
from harness.errors import MsbenchError

_LENGTH_BYTES = 4
_QUALITIES = range(100, 0, -1)


def budget_bytes(height: int, width: int, bits_per_pixel: float | None = None) -> int:
    """Bytes at so many bits a pixel; None = of f8c4 latents at 16 bits a number (an f8 encoder pads odd sizes: rounded up)."""
    if bits_per_pixel is not None:
        return int(bits_per_pixel * height * width / 8)
    return -(-height // 8) * -(-width // 8) * 4 * 16 // 8


def jpeg_bytes(image: np.ndarray, quality: int) -> bytes:
    """One JPEG file of uint8 [H, W, 3] RGB at `quality` 1..100."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="JPEG", quality=quality, subsampling="4:2:0", optimize=True)
    return stream.getvalue()


def fit_to_budget(image: np.ndarray, budget: int) -> tuple[bytes, int]:
    """The file of the highest quality that has at most `budget` bytes, and that quality.

    Every quality from 100 down is tried, since size is not strictly monotonic in quality. Where even quality 1 is too large,
    its file is returned all the same, and the baseline then has more bits than the latents.
    """
    file = b""
    for quality in _QUALITIES:
        file = jpeg_bytes(image, quality)
        if len(file) <= budget:
            return file, quality
    return file, _QUALITIES[-1]


class JpegDecoder:
    """JPEG through Pillow, on the CPU.

    Latents: uint8 [B, L] on the CPU; a row is the file's length (4 bytes, little-endian), the file, zeros. L = 4 + the budget,
    the same for every batch of one resolution; where a file of quality 1 overflows it, L fits the longest file of the batch.

    Args:
        device: where decoded images are put.
        bits_per_pixel: see `budget_bytes`.
    """

    spec = spec_of("jpeg", 1, None)

    def __init__(self, device: torch.device, bits_per_pixel: float | None = None) -> None:
        self.device, self.bits_per_pixel = device, bits_per_pixel

    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] (rounded to uint8 first) -> uint8 [B, L]."""
        levels = ((images.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
        height, width = images.shape[-2:]
        budget = self.budget_bits(height, width) // 8
        files = [fit_to_budget(pixels, budget)[0] for pixels in levels.permute(0, 2, 3, 1).cpu().numpy()]
        rows = torch.zeros(len(files), _LENGTH_BYTES + max([budget, *map(len, files)]), dtype=torch.uint8)
        for row, file in zip(rows, files, strict=True):
            content = len(file).to_bytes(_LENGTH_BYTES, "little") + file
            row[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return rows

    def bits(self, latents: Tensor) -> list[int]:
        """Bits of each file in uint8 [B, L] from `encode`, [B]."""
        return [8 * _length(row) for row in latents.cpu().numpy()]

    def budget_bits(self, height: int, width: int) -> int:
        """Bits that a file is to take at most; one of quality 1 may take more."""
        return 8 * budget_bytes(height, width, self.bits_per_pixel)

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        """uint8 [B, L] from `encode` -> float32 [B, 3, H, W] in [-1, 1] on the decoder's device; `noise` is not drawn from.

        Raises `MsbenchError` where the bytes are not latents of this decoder.
        """
        if latents.dtype != torch.uint8 or latents.ndim != 2:
            got = f"{latents.dtype} {tuple(latents.shape)}"
            raise MsbenchError(f"decoder 'jpeg' reads its own latents only, uint8 [B, L], and got {got}; encode with 'jpeg'")
        images = torch.stack([torch.from_numpy(_read_row(row)) for row in latents.cpu().numpy()])
        return images.permute(0, 3, 1, 2).to(self.device).float().div(127.5).sub(1.0)


def _length(row: np.ndarray) -> int:
    """Bytes of the file in a row."""
    return int.from_bytes(row[:_LENGTH_BYTES].tobytes(), "little")


def _read_row(row: np.ndarray) -> np.ndarray:
    """uint8 [L] -> uint8 [H, W, 3]."""
    file = row[_LENGTH_BYTES : _LENGTH_BYTES + _length(row)].tobytes()
    try:
        with Image.open(io.BytesIO(file), formats=["JPEG"]) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise MsbenchError(f"decoder 'jpeg': latents hold no JPEG file ({error}); encode with 'jpeg'") from error


def jpeg(options: DecoderOptions) -> JpegDecoder:
    """Build `jpeg`. Raises `MsbenchError` for steps, scales, a checkpoint, random weights, or no number of bits a pixel."""
    refuse_network_options("jpeg", options)
    given = options.own.get("bits_per_pixel")
    if given is not None and not (re.fullmatch(r"\d*\.?\d+", given) and 0 < float(given) <= 24):
        raise MsbenchError(f"decoder 'jpeg': bits_per_pixel is a number above 0, at most 24, not {given!r}")
    return JpegDecoder(options.device, None if given is None else float(given))
