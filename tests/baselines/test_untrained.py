"""`identity`, `bicubic` and `jpeg`: what each must give back, and the options each must refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data

from baselines.identity import identity
from baselines.jpeg import budget_bytes, fit_to_budget, jpeg, jpeg_bytes
from baselines.resampling import bicubic
from harness.decoder import Decoder, DecoderOptions
from harness.errors import MsbenchError
from harness.noise import SampleNoise

FACTORIES = {"identity": identity, "bicubic": bicubic, "jpeg": jpeg}


def crop(size: int = 128, top: int = 20, left: int = 100) -> np.ndarray:
    return np.ascontiguousarray(data.chelsea()[top : top + size, left : left + size])


def as_batch(*images: np.ndarray) -> torch.Tensor:
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images]).float() / 127.5 - 1.0


def to_uint8(images: torch.Tensor) -> np.ndarray:
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def noise(count: int) -> SampleNoise:
    return SampleNoise.for_samples(0, [str(index) for index in range(count)])


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(float) - second.astype(float)) ** 2)))


@pytest.mark.parametrize("name", FACTORIES)
def test_specs_name_a_decoder_without_a_network(name: str) -> None:
    decoder = FACTORIES[name](DecoderOptions())
    assert isinstance(decoder, Decoder)
    assert (decoder.spec.name, decoder.spec.parameters, decoder.spec.steps, decoder.spec.scales) == (name, 0, 0, 1)
    assert (decoder.spec.trained_on, decoder.spec.weights_sha256) == ("nothing", None)


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize(
    "change", [{"steps": 4}, {"scales": 2}, {"preset": "small"}, {"checkpoint": Path("x.safetensors")}, {"weights": "random"}]
)
def test_options_without_meaning_are_refused(name: str, change: dict[str, Any]) -> None:
    with pytest.raises(MsbenchError, match=f"{name}.*{next(iter(change))}") as caught:
        FACTORIES[name](replace(DecoderOptions(), **change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FACTORIES)
def test_decoding_does_not_depend_on_the_batch(name: str) -> None:
    decoder = FACTORIES[name](DecoderOptions())
    images = as_batch(crop(64), crop(64, top=90), crop(64, left=200))
    together = decoder.decode(decoder.encode(images), noise(3))
    assert together.shape == images.shape
    for index in range(3):
        alone = decoder.decode(decoder.encode(images[index : index + 1]), noise(1))
        assert torch.equal(alone[0], together[index])


def test_identity_gives_back_every_level() -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    decoder = identity(DecoderOptions())
    assert np.array_equal(to_uint8(decoder.decode(decoder.encode(as_batch(levels)), noise(1)))[0], levels)


def test_bicubic_latents_are_an_eighth_and_in_range() -> None:
    edges = np.zeros((64, 96, 3), np.uint8)
    edges[:, 24:48] = 255  # a hard edge on the latents' grid makes the kernel overshoot
    latents = bicubic(DecoderOptions()).encode(as_batch(edges))
    assert latents.shape == (1, 3, 8, 12)
    assert latents.abs().max() <= 1.0


def test_bicubic_keeps_a_flat_image_and_blurs_a_photograph() -> None:
    decoder = bicubic(DecoderOptions())
    flat = torch.full((1, 3, 32, 32), 0.3)
    assert torch.allclose(decoder.decode(decoder.encode(flat), noise(1)), flat, atol=1e-5)
    photograph = crop()
    assert 18 < psnr(to_uint8(decoder.decode(decoder.encode(as_batch(photograph)), noise(1)))[0], photograph) < 30


def test_bicubic_names_a_size_that_does_not_fit() -> None:
    with pytest.raises(MsbenchError, match="multiples of 8, got 30x32"):
        bicubic(DecoderOptions()).encode(torch.zeros(1, 3, 30, 32))


@pytest.mark.parametrize(("height", "width", "expected"), [(256, 256, 8192), (224, 224, 28 * 28 * 8), (250, 130, 32 * 17 * 8)])
def test_jpeg_budget_is_that_of_f8c4_at_16_bits(height: int, width: int, expected: int) -> None:
    assert budget_bytes(height, width) == expected


@pytest.mark.parametrize(
    "image", [crop, lambda: crop(96, top=120), lambda: np.ascontiguousarray(data.coffee()[100:228, 150:278])]
)
def test_jpeg_takes_the_highest_quality_within_the_budget(image: Callable[[], np.ndarray]) -> None:
    pixels = image()
    budget = budget_bytes(*pixels.shape[:2])
    file, quality = fit_to_budget(pixels, budget)
    assert len(file) <= budget
    assert 1 < quality < 100
    assert file == jpeg_bytes(pixels, quality)
    assert all(len(jpeg_bytes(pixels, higher)) > budget for higher in range(quality + 1, 101))


def test_jpeg_latents_hold_the_file_and_decode_to_its_pixels() -> None:
    pixels = crop()
    decoder = jpeg(DecoderOptions())
    latents = decoder.encode(as_batch(pixels))
    budget = budget_bytes(128, 128)
    assert (latents.dtype, latents.shape, latents.device.type) == (torch.uint8, (1, 4 + budget), "cpu")
    length = int.from_bytes(latents[0, :4].numpy().tobytes(), "little")
    file = latents[0, 4 : 4 + length].numpy().tobytes()
    assert (file[:2], file[-2:]) == (b"\xff\xd8", b"\xff\xd9")
    assert not latents[0, 4 + length :].any()
    assert psnr(to_uint8(decoder.decode(latents, noise(1)))[0], pixels) > 25


def test_jpeg_falls_back_to_quality_1_where_nothing_fits() -> None:
    static = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    budget = budget_bytes(16, 16)  # 32 bytes: less than the headers
    file, quality = fit_to_budget(static, budget)
    assert quality == 1
    assert len(file) > budget
    decoder = jpeg(DecoderOptions())
    assert decoder.decode(decoder.encode(as_batch(static)), noise(1)).shape == (1, 3, 16, 16)


def test_jpeg_refuses_latents_of_another_decoder() -> None:
    decoder = jpeg(DecoderOptions())
    with pytest.raises(MsbenchError, match="its own latents only"):
        decoder.decode(torch.zeros(1, 4, 8, 8), noise(1))
    with pytest.raises(MsbenchError, match="no JPEG file"):
        decoder.decode(torch.zeros(1, 40, dtype=torch.uint8), noise(1))


def test_bits_of_jpeg_are_those_of_its_files() -> None:
    images = [crop(64), crop(64, 60, 140)]
    decoder = jpeg(DecoderOptions())
    files = [fit_to_budget(image, budget_bytes(64, 64))[0] for image in images]
    assert decoder.bits(decoder.encode(as_batch(*images))) == [8 * len(file) for file in files]


def test_jpeg_is_held_at_any_bits_a_pixel() -> None:
    pixels = crop()
    decoder = jpeg(DecoderOptions(own={"bits_per_pixel": "0.35"}))
    (bits,) = decoder.bits(decoder.encode(as_batch(pixels)))
    assert bits == 8 * len(fit_to_budget(pixels, int(0.35 * 128 * 128 / 8))[0])
    assert 0.3 < bits / 128**2 <= 0.35
    assert jpeg(DecoderOptions()).encode(as_batch(pixels)).shape == (1, 4 + 128 * 128 // 8)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "1e3", "24.1", "many", "", "1."])
def test_bits_a_pixel_are_a_number_above_0(value: str) -> None:
    with pytest.raises(MsbenchError, match=r"bits_per_pixel is a number above 0, at most 24, not"):
        jpeg(DecoderOptions(own={"bits_per_pixel": value}))
