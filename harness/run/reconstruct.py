"""One batch through one decoder: encode, decode, what comes back checked, and the one rounding to uint8."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.decoder import Decoder, NoiseSource
from harness.errors import MsbenchError, plugin_boundary


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What one batch became."""

    latents: Tensor
    """[B, ...] as the encoder gave them"""
    pixels: Tensor
    """uint8 [B, 3, H, W] after the one rounding of the protocol"""
    clamped: int
    """values that lay outside [-1, 1]"""
    low: float
    """smallest value before rounding"""
    high: float
    """largest value before rounding"""

    @classmethod
    def of(cls, pixels: Tensor) -> Reconstruction:
        """Finished images, uint8 [B, 3, H, W]: nothing was decoded."""
        return cls(pixels.new_empty(len(pixels), 0), pixels, 0, 0.0, 0.0)


def reconstruct(decoder: Decoder, pixels: Tensor, noise: NoiseSource, keys: Sequence[str] = ()) -> Reconstruction:
    """Encode and decode a batch of any size: padded by repeating its edge to the decoder's factor, cropped after.

    Args:
        decoder: built on the device of `pixels`; it gets tensors of its own.
        pixels: uint8 [B, 3, H, W].
        noise: one stream per sample.
        keys: names of the images, for messages.

    Raises:
        MsbenchError: the decoder raised, or gave something else than the contract wants.
    """
    latents, output = decoded(decoder, pixels, noise, keys)
    clamped = int((output.abs() > 1.0).sum())
    return Reconstruction(latents, to_uint8(output), clamped, float(output.min()), float(output.max()))


def decoded(decoder: Decoder, pixels: Tensor, noise: NoiseSource, keys: Sequence[str] = ()) -> tuple[Tensor, Tensor]:
    """Latents [B, …] and images as the decoder gives them, float [B, 3, H, W]; arguments and errors as of `reconstruct`."""
    height, width = pixels.shape[-2:]
    images = padded(pixels, decoder.spec.down_factor)
    latents = _encode(decoder, images.clone(), keys)
    with isolated(decoder, "decode"):
        output = decoder.decode(latents.clone(), noise)
    _check(decoder, "decode", output, list(images.shape), keys)
    return latents, output[..., :height, :width]


def join(parts: Sequence[Reconstruction]) -> Reconstruction:
    """Batches one after the other as one."""
    latents, pixels = concatenate([part.latents for part in parts]), torch.cat([part.pixels for part in parts])
    low, high = min(part.low for part in parts), max(part.high for part in parts)
    return Reconstruction(latents, pixels, sum(part.clamped for part in parts), low, high)


def concatenate(parts: Sequence[Tensor]) -> Tensor:
    """Batches of latents as one; codes of different lengths are filled up with zeros, as within a batch."""
    sizes = [max(sides) for sides in zip(*(part.shape[1:] for part in parts), strict=True)]
    gaps = [[size - side for size, side in zip(sizes, part.shape[1:], strict=True)] for part in parts]
    return torch.cat(
        [F.pad(part, [n for gap in reversed(gap) for n in (0, gap)]) for part, gap in zip(parts, gaps, strict=True)]
    )


def encoder_of(decoder: Decoder) -> Callable[[Tensor], Tensor] | None:
    """uint8 images [B, 3, H, W] of any size -> latents by the decoder's own encoder; None where there are none to speak of."""
    if decoder.spec.latent_channels is None and decoder.spec.codebook_sizes is None:
        return None
    return lambda images: _encode(decoder, padded(images, decoder.spec.down_factor), ())


def _encode(decoder: Decoder, images: Tensor, keys: Sequence[str]) -> Tensor:
    with isolated(decoder, "encode"):
        latents = decoder.encode(images)
    _check(decoder, "encode", latents, [len(images)], keys)
    if decoder.spec.codebook_sizes is not None:
        by_codebook(decoder, latents)
    return latents


def by_codebook(decoder: Decoder, latents: Tensor) -> Tensor:
    """Latents that are indices as [B, codebooks, n].

    Raises:
        MsbenchError: they are not the indices that the decoder's spec announces.
    """
    sizes = decoder.spec.codebook_sizes or ()
    who = f"decoder {decoder.spec.name}: encode gave {latents.dtype} {list(latents.shape)}"
    several = len(sizes) > 1
    if latents.is_floating_point() or latents.ndim < 2 + several or (several and latents.shape[1] != len(sizes)):
        wanted = f"[B, {len(sizes)}, …]" if several else "[B, …]"
        raise MsbenchError(f"{who}, wanted indices {wanted} into codebooks of {', '.join(map(str, sizes))} entries")
    indices = latents.flatten(2) if several else latents.flatten(1).unsqueeze(1)
    for size, mine in zip(sizes, indices.unbind(1), strict=True):
        if not 0 <= int(mine.min()) <= int(mine.max()) < size:
            raise MsbenchError(f"{who} with indices from {int(mine.min())} to {int(mine.max())}: its codebook has {size}")
    return indices


@contextmanager
def isolated(decoder: Decoder, what: str) -> Iterator[None]:
    """No gradients inside; what the decoder raises names it; default dtype and gradient mode are as before afterwards."""
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        with plugin_boundary(f"decoder {decoder.spec.name}", what), torch.inference_mode():
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)


def _check(decoder: Decoder, what: str, came: object, wanted: list[int], keys: Sequence[str]) -> None:
    """Raise `MsbenchError` unless a decoder gave a tensor whose shape begins as `wanted`; `decode` a finite, floating one."""
    where, whole = f"decoder {decoder.spec.name}, image {keys[0] if keys else 0}: {what} gave", what == "decode"
    if not isinstance(came, Tensor):
        raise MsbenchError(f"{where} a {type(came).__name__}, wanted a torch.Tensor")
    if list(came.shape) != wanted if whole else list(came.shape[:1]) != wanted:
        raise MsbenchError(f"{where} {list(came.shape)}, wanted {wanted if whole else f'{wanted[0]} images first'}")
    if not whole:
        return
    if not came.is_floating_point():
        raise MsbenchError(f"{where} {came.dtype}, wanted floating-point values in [-1, 1]")
    bad = (~came.isfinite()).flatten(1).sum(dim=1)
    if bad.any():
        first = int(bad.nonzero()[0])
        name = keys[first] if keys else first
        raise MsbenchError(
            f"decoder {decoder.spec.name}, image {name}: decode gave {int(bad[first])} of {came[first].numel()} values "
            "that are not finite; --keep-going leaves such images out"
        )


def padded(pixels: Tensor, down_factor: int) -> Tensor:
    """uint8 -> float [-1, 1], its right and lower edges repeated up to a multiple of the factor."""
    height, width = pixels.shape[-2:]
    images = pixels.float() / 127.5 - 1.0
    bottom, right = -height % down_factor, -width % down_factor
    return F.pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images


def another_range(low: float, high: float, darkest: int) -> str:
    """The range that a decoder's values look to be in, from their extremes and the darkest reference value; "" for [-1, 1]."""
    if high > 10.0 and low > -1.5:
        return "[0, 255]"
    return "[0, 1]" if low >= -0.01 and darkest <= 32 else ""


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] -> uint8 [0, 255]: clamped, rounded once (half to even)."""
    return ((images.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
