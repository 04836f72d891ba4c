from __future__ import annotations

import contextlib
import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from harness.data.images import ImageError, center_crop, decode, decode_unchanged, image_size, native_crop
from harness.data.registry import open_dataset
from harness.data.types import Request

PICTURES = Path(__file__).resolve().parents[4] / "shared" / "cases" / "pictures.tar.gz"

RED, BLUE = (255, 0, 0), (0, 0, 255)


def solid(mode, color, size=(8, 8)):
    return Image.new(mode, size, color)


def first_pixel(data):
    return np.asarray(decode(data))[0, 0].tolist()


def test_grey_becomes_three_equal_channels(encode):
    assert first_pixel(encode(solid("L", 77))) == [77, 77, 77]
    assert first_pixel(encode(solid("1", 1))) == [255, 255, 255]


def test_16_bit_is_scaled_not_clipped(encode):
    ramp = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    for format in ("PNG", "TIFF"):
        levels = np.asarray(decode(encode(Image.fromarray(ramp), format)))[0, :, 0]
        assert levels.tolist() == [0, 0, 1, 1, 128, 255]  # round(v / 257)


def test_32_bit_without_a_defined_white_is_named(encode):
    with pytest.raises(ImageError, match="white"):
        decode(encode(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"))
    with pytest.raises(ImageError, match="white"):
        decode(encode(Image.fromarray(np.full((4, 4), 1 << 20, np.int32)), "TIFF"))


def test_cmyk_and_adobes_inverted_cmyk(encode, picture):
    rgb = picture(32, 32)
    data = encode(rgb.convert("CMYK"), "JPEG", quality=98)
    assert b"Adobe" in data  # Pillow writes the inverted kind, with the marker
    assert np.abs(np.asarray(decode(data)).astype(int) - np.asarray(rgb)).mean() < 6
    assert first_pixel(encode(solid("CMYK", (0, 255, 255, 0)), "TIFF")) == [255, 0, 0]


def test_palette_and_alpha_over_white(encode):
    assert first_pixel(encode(solid("RGB", RED).convert("P"))) == [255, 0, 0]
    assert first_pixel(encode(solid("RGBA", (*RED, 0)))) == [255, 255, 255]
    assert first_pixel(encode(solid("RGBA", (0, 0, 0, 128)))) == [127, 127, 127]
    assert first_pixel(encode(solid("LA", (0, 0)))) == [255, 255, 255]
    assert first_pixel(encode(solid("P", 0), transparency=0)) == [255, 255, 255]
    assert first_pixel(encode(solid("RGB", RED), transparency=RED)) == [255, 255, 255]


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation(encode, format):
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(solid("RGB", RED), format, save_all=True, append_images=[solid("RGB", BLUE)], **options)
    assert first_pixel(data) == [255, 0, 0]


def test_exif_rotation_is_applied(encode, picture):
    upright = picture(12, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    data = encode(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    assert image_size(data) == (12, 20)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(upright))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(encode, picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture(12, 20), "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert np.array_equal(np.asarray(decode(data)), np.asarray(expected))
    assert image_size(data) == expected.size


def with_exif(jpeg, payload):
    """A JPEG with an APP1 segment of these bytes behind its start."""
    segment = b"Exif\0\0" + payload
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"garbage, not TIFF",
        b"II*\0\x08\0\0\0",
        b"II*\0\x08\0\0\0\x05\0\x12\x01",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x08\0\0\0\xff\xff\xff\x7f\0\0\0\0",
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x03up\0\0\0\0\0\0",
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_leaves_the_pixels_as_they_are(encode, picture, payload):
    jpeg = encode(picture(24, 16), "JPEG")
    data = with_exif(jpeg, payload)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(decode(jpeg)))
    assert image_size(data) == (24, 16)


def test_damage_elsewhere_in_exif_keeps_its_orientation(encode, picture):
    """A resolution of 1/0, which Pillow cannot write back, beside a readable orientation."""
    tags = b"\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\x01\x1a\0\x05\0\0\0\x01\0\0\0\x26\0\0\0\0\0\0\0\x01\0\0\0\0"
    jpeg = encode(picture(24, 16), "JPEG")
    data = with_exif(jpeg, b"MM\0*\0\0\0\x08" + tags)
    turned = Image.fromarray(np.asarray(decode(jpeg))).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(turned))
    assert image_size(data) == (16, 24)


def test_exif_that_pillow_cannot_read_at_all(encode, picture, monkeypatch):
    jpeg = encode(picture(24, 16), "JPEG")

    def damaged(self):
        raise struct.error("unpack requires a buffer of 12 bytes")

    monkeypatch.setattr(Image.Image, "getexif", damaged)
    assert decode(jpeg).size == image_size(jpeg) == (24, 16)


def test_too_many_pixels_are_named(encode, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match=r"^too large: over 200 pixels$"):
        decode(encode(Image.new("RGB", (20, 20))))


@pytest.mark.skipif(not PICTURES.is_file(), reason="the shared cases are not beside this checkout")
@pytest.mark.parametrize(
    ("folder", "usable", "skipped"),
    [
        ("exif", 9, {}),
        ("modes", 12, {"10_float.tif": "white", "12_cut.jpg": "truncated"}),
        ("bomb", 3, {"big195MP.png": "too large"}),
        ("names_latin1_class", 4, {}),
        ("names_latin1_broken", 4, {"caf\\xe9.png": "not an image"}),
        ("flat", 4, {}),
        ("one", 1, {}),
        ("two", 2, {}),
        ("shards/val-000.tar", 6, {}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_the_shared_pictures(tmp_path, folder, usable, skipped):
    top = folder.partition("/")[0]
    with tarfile.open(PICTURES) as archive:
        members = [member for member in archive if member.name.partition("/")[0] == top]
        archive.extractall(tmp_path, members, filter="data")
    dataset = open_dataset(Request(f"folder:{tmp_path / folder}"))
    assert len(list(dataset)) == usable
    reasons = {skip.name: skip.reason for skip in dataset.skipped}
    assert reasons.keys() == skipped.keys()
    assert all(words in reasons[name] for name, words in skipped.items())


def test_broken_files_are_named(encode, picture):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    formats = ["JPEG", "PNG", "WEBP", "GIF"] + ["AVIF"] * features.check("avif")
    for format in formats:
        data = encode(noise, format)
        with pytest.raises(ImageError, match=r"damaged|not an image"):
            decode(data[: len(data) // 2])
    with pytest.raises(ImageError, match="not an image"):
        decode(b"<html>404</html>")
    with pytest.raises(ImageError, match="empty"):
        decode(b"")


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_flipped_bytes_never_escape_as_another_error(encode, picture, cut):
    data = bytearray(encode(picture(24, 24), "PNG"))
    data[cut % len(data)] ^= 0xFF
    with contextlib.suppress(ImageError):  # the only error allowed
        assert decode(bytes(data)).mode == "RGB"


def test_exact_size_is_untouched(picture):
    image = picture(32, 32)
    assert np.array_equal(center_crop(image, 32, False), np.asarray(image))


def test_large_images_are_halved_by_box():
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = values.reshape(32, 2, 32, 2, 3).astype(float).mean(axis=(1, 3))
    result = center_crop(Image.fromarray(values), 32, False)
    assert result.dtype == np.uint8
    assert np.abs(result - expected).max() <= 1.0  # Pillow rounds after each of the two axes


def test_short_side_is_resized_bicubically_and_the_centre_kept():
    # 90x48 at R=32: no halving (48 < 64), one bicubic step to 60x32, columns 14..45.
    values = np.random.default_rng(1).integers(0, 256, (48, 90, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    expected = np.asarray(image.resize((60, 32), Image.Resampling.BICUBIC))[:, 14:46]
    assert np.array_equal(center_crop(image, 32, False), expected)


def test_halving_then_bicubic():
    # 131x150 at R=32 halves to 65x75, again to 32x37, which needs no bicubic step.
    values = np.random.default_rng(2).integers(0, 256, (150, 131, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    half = image.resize((65, 75), Image.Resampling.BOX).resize((32, 37), Image.Resampling.BOX)
    assert np.array_equal(center_crop(image, 32, False), np.asarray(half)[2:34])


def test_upsampling_is_refused_unless_allowed(picture):
    with pytest.raises(ImageError, match=r"too small: 40x20, the short side must be 32 or more$"):
        center_crop(picture(40, 20), 32, False)
    with pytest.raises(ImageError, match=r"too small: 60x40, the short side must be 48 or more \(--resolution 40 takes it\)$"):
        center_crop(picture(60, 40), 48, False)
    assert center_crop(picture(40, 20), 32, True).shape == (32, 32, 3)
    with pytest.raises(ImageError, match="elongated"):
        center_crop(Image.new("RGB", (60000, 1)), 256, True)


def test_native_crop_stays_inside(picture):
    image = picture(20, 20)
    assert np.array_equal(native_crop(image, 3, 5, 8), np.asarray(image)[5:13, 3:11])
    with pytest.raises(ImageError, match="does not hold"):
        native_crop(image, 13, 0, 8)


def test_what_rgb_of_8_bits_holds_exactly_is_unchanged(encode, picture):
    rgb = picture(16, 12)
    assert np.array_equal(decode_unchanged(encode(rgb)), np.asarray(rgb))
    assert np.array_equal(decode_unchanged(encode(rgb.convert("L"))), np.asarray(rgb.convert("L").convert("RGB")))
    palette = rgb.quantize(16)
    assert np.array_equal(decode_unchanged(encode(palette)), np.asarray(palette.convert("RGB")))
    opaque = rgb.copy()
    opaque.putalpha(255)
    assert np.array_equal(decode_unchanged(encode(opaque)), np.asarray(rgb))
    assert decode_unchanged(encode(rgb, "JPEG")).shape == (12, 16, 3)


def test_what_would_change_pixels_is_refused(encode, picture):
    rgb = picture(16, 12)
    clear = rgb.copy()
    clear.putalpha(254)
    for data, words in (
        (encode(clear), "transparent pixels"),
        (encode(solid("P", 0), transparency=0), "transparent pixels"),
        (encode(Image.fromarray(np.zeros((8, 8), np.uint16))), "16-bit I;16 pixels"),
        (png_of_16_bits(), "16-bit RGB pixels"),
        (encode(rgb.convert("CMYK"), "JPEG"), "^CMYK pixels"),
        (b"", "empty file"),
        (encode(rgb)[:80], "damaged"),
    ):
        with pytest.raises(ImageError, match=words):
            decode_unchanged(data)


def png_of_16_bits():
    """2 x 2 pixels of 16-bit RGB, which Pillow cannot write and cuts to 8 bits on reading."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + bytes(12)) * 2
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
