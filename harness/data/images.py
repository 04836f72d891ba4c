"""One picture: from the bytes of a file to uint8 [R, R, 3].

Decoding rules, the same for every dataset: EXIF orientation is applied where it can be read; grey becomes three equal channels;
CMYK and palettes are converted by Pillow (which undoes Adobe's inverted CMYK); transparency is laid over white; 16-bit grey is
scaled (65535 -> 255), 16-bit colour loses its low byte; of an animation or a multi-page file the first frame counts; colour
profiles are not applied.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from harness.data.types import MAX_RESOLUTION, MIN_RESOLUTION

ADM_CROP = "adm-center-crop-v1"
"""halve by box, bicubic to the short side, centre crop; images smaller than the resolution are left out"""
ADM_CROP_UPSAMPLE = "adm-center-crop-v1-upsample"
"""the same, but images smaller than the resolution are enlarged, as ADM does"""
AS_GIVEN = "as-given-v1"
"""nothing: every image keeps its pixels and its own size"""

# Pillow's readers raise these on damaged files, depending on the format and on where the damage is.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, RuntimeError)
_DAMAGE = (*_BROKEN, struct.error, zlib.error, Image.DecompressionBombError)
_TURNS = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"]
_UPRIGHT = {orientation: Image.Transpose[turn] for orientation, turn in enumerate(_TURNS, start=2)}
"""EXIF orientation -> what turns the picture upright"""
_UNCHANGED = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})
"""modes of Pillow that become RGB without a change of a pixel, if nothing is transparent"""
_MAX_PIXELS = 1 << 27  # an intermediate image larger than this comes from an absurd aspect ratio


class ImageError(Exception):
    """This file gives no image; the message is the reason shown to the user."""


def image_size(data: bytes) -> tuple[int, int]:
    """(width, height) as shown (after EXIF rotation), from the header alone; raises ImageError."""
    try:
        with Image.open(BytesIO(data)) as image:
            return (image.height, image.width) if _orientation(image) >= 5 else image.size  # 5..8 swap the axes
    except _DAMAGE as error:
        raise ImageError(_reason(error)) from error


def decode(data: bytes) -> Image.Image:
    """Any image file's bytes -> an RGB picture, by the rules at the top of this file.

    Raises:
        ImageError: damaged, truncated, not an image, or in a pixel format without a defined white.
    """
    if not data:
        raise ImageError("empty file")
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
            upright = _UPRIGHT.get(_orientation(image))
            return _to_rgb(image if upright is None else image.transpose(upright))
    except _DAMAGE as error:
        raise ImageError(_reason(error)) from error


def decode_unchanged(data: bytes) -> npt.NDArray[np.uint8]:
    """Any image file's bytes -> uint8 [H, W, 3], where RGB of 8 bits holds exactly what the file holds.

    Raises:
        ImageError: as `decode`; or the file has transparent pixels, more than 8 bits a channel or another colour space.
    """
    picture = decode(data)
    with Image.open(BytesIO(data)) as image:
        deep = image.format == "PNG" and data[24] == 16  # the depth stands in the header alone
        if deep or image.mode not in _UNCHANGED:
            raise ImageError(f"{'16-bit ' * deep}{image.mode} pixels: what is scored must be RGB of 8 bits, so save it as that")
        if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
            raise ImageError("transparent pixels: which colour lies below them is not said, so save it without")
    return np.array(picture, dtype=np.uint8)


def as_given(image: Image.Image) -> npt.NDArray[np.uint8]:
    """RGB picture -> uint8 [H, W, 3], nothing changed; raises ImageError where the metrics cannot take its size."""
    if min(image.size) < MIN_RESOLUTION or max(image.size) > MAX_RESOLUTION:
        raise ImageError(f"{image.width}x{image.height}: sides of {MIN_RESOLUTION} to {MAX_RESOLUTION} pixels are possible")
    return np.array(image, dtype=np.uint8)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1..8; 1 where there is none, or where the EXIF is damaged, which says nothing about the pixels."""
    try:
        orientation = image.getexif().get(0x0112)
    except _DAMAGE:
        return 1
    return orientation if orientation in _UPRIGHT else 1


def center_crop(image: Image.Image, resolution: int, allow_upsampling: bool) -> npt.NDArray[np.uint8]:
    """RGB picture -> uint8 [R, R, 3] by the centre crop of ADM (Dhariwal & Nichol 2021, arXiv 2105.05233).

    Halve with a box filter while the short side is at least 2R, resize bicubically until it is R, cut out the centre (an odd
    margin puts the extra row or column behind). An image that is R×R already is returned untouched.

    Raises:
        ImageError: the short side is below R and `allow_upsampling` is off, or the shape is absurd.
    """
    short = min(image.size)
    if short < resolution and not allow_upsampling:
        advice = f" (--resolution {short} takes it)" * (short >= MIN_RESOLUTION)
        raise ImageError(f"too small: {image.width}x{image.height}, the short side must be {resolution} or more{advice}")
    if resolution * resolution * max(image.size) / short > _MAX_PIXELS:
        raise ImageError(f"too elongated: {image.width}x{image.height}")
    while min(image.size) >= 2 * resolution:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = resolution / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    return native_crop(image, (image.width - resolution) // 2, (image.height - resolution) // 2, resolution)


def native_crop(image: Image.Image, left: int, top: int, resolution: int) -> npt.NDArray[np.uint8]:
    """RGB picture -> uint8 [R, R, 3], the square at (left, top), without resampling; raises ImageError where it sticks out."""
    if left < 0 or top < 0 or left + resolution > image.width or top + resolution > image.height:
        raise ImageError(f"{image.width}x{image.height} does not hold a {resolution}-px crop at ({left}, {top})")
    box = (left, top, left + resolution, top + resolution)
    return np.array(image.crop(box), dtype=np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError("floating-point pixels: the file does not say which value is white")
    if image.mode.startswith("I"):
        return _sixteen_bit_to_rgb(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _sixteen_bit_to_rgb(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits, 0..65535 -> 0..255 by rounding (Pillow's own conversion would clip at 255)."""
    values = np.asarray(image).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ImageError("32-bit or signed pixels: the file does not say which value is white")
    grey = ((values + 128) // 257).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: over {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"damaged: {text}"
