"""Conventions on one picture: how it reaches 299 × 299 for the Inception network, and what else is done to it before."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as Pillow
from torch import Tensor

from harness.explain.pairs import Image, as_tensor
from harness.metrics.inception import resized

_SIDE = 299


def tensorflow(image: Image) -> Tensor:
    """The protocol's: TensorFlow 1's bilinear resize (torch-fidelity)."""
    return resized(as_tensor(image))[0]


def pytorch_fid(image: Image) -> Tensor:
    """pytorch-fid's: bilinear on floats, `align_corners=False`, no antialiasing; [0, 255] to [-1, 1]."""
    return _bilinear(image, antialias=False) / 127.5 - 1.0


def torchmetrics(image: Image) -> Tensor:
    """torchmetrics' since 1.8: the same with antialiasing, (x - 128) / 128."""
    return (_bilinear(image, antialias=True) - 128.0) / 128.0


def clean_fid(image: Image) -> Tensor:
    """clean-fid's: Pillow's bicubic, channel by channel in float32; (x - 128) / 128."""
    channels = [Pillow.fromarray(np.ascontiguousarray(image[..., c], dtype=np.float32)) for c in range(3)]
    planes = [np.array(one.resize((_SIDE, _SIDE), Pillow.Resampling.BICUBIC)) for one in channels]
    return (torch.from_numpy(np.stack(planes)) - 128.0) / 128.0


def _bilinear(image: Image, antialias: bool) -> Tensor:
    return F.interpolate(as_tensor(image), (_SIDE, _SIDE), mode="bilinear", align_corners=False, antialias=antialias)[0]


def rounded(image: Image, _: int) -> Image:
    """The protocol's: clamped by the decoder's stream, rounded half to even."""
    return np.rint(image).astype(np.uint8)


def truncated(image: Image, _: int) -> Image:
    """`(255 * x).astype(uint8)`: the fraction is cut off."""
    return np.floor(image).astype(np.uint8)


def jpeg(quality: int, image: Image, _: int) -> Image:
    """Written as JPEG by Pillow and read again."""
    stream = BytesIO()
    Pillow.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.array(Pillow.open(stream), dtype=np.uint8)


def squashed(image: Image, resolution: int) -> Image:
    """Both sides to R × R, whatever the shape: torchvision's Resize((R, R)) of a Pillow image, bilinear."""
    return np.array(Pillow.fromarray(image).resize((resolution, resolution), Pillow.Resampling.BILINEAR), dtype=np.uint8)


def short_side(antialias: bool, image: Image, resolution: int) -> Image:
    """torchvision's Resize(R) and CenterCrop(R) of a tensor in [0, 1], bilinear, with or without antialiasing; then rounded."""
    from torchvision.transforms.v2 import functional

    scaled = functional.resize(as_tensor(image) / 255.0, [resolution], antialias=antialias)
    cropped = functional.center_crop(scaled, [resolution, resolution])[0].clamp(0.0, 1.0)
    return np.asarray((cropped * 255.0).round().permute(1, 2, 0).to(torch.uint8).numpy())
