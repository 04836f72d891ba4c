"""The architectures through `diffusers`: their counts against formulas, and no quality run takes them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch

from baselines.diffusers_model import ArchitectureOnly
from harness.cost.flops import count_flops
from harness.decoder import Decoder, DecoderOptions
from harness.errors import MsbenchError
from harness.noise import SampleNoise
from harness.registry import build_decoder
from harness.run.config import RunConfig
from harness.run.runner import evaluate

NAMES = ("sd-vae-arch", "taesd-arch", "flux2-vae-arch", "dc-ae-arch")
LATENTS = {"sd-vae-arch": (4, 8), "taesd-arch": (4, 8), "flux2-vae-arch": (128, 16), "dc-ae-arch": (32, 32)}


def noise(count: int = 1) -> SampleNoise:
    return SampleNoise.for_samples(0, [str(index) for index in range(count)])


def conv(channels_in: int, channels_out: int, pixels: int, kernel: int = 3) -> int:
    return channels_in * channels_out * kernel**2 * pixels


def sd_vae_multiply_adds(grid: int, latent: int = 4) -> int:
    """Of the decoder, level by level, in Rombach et al.'s configuration: 512, 512, 256, 128 channels, three blocks each."""
    pixels = grid**2

    def block(channels_in: int, channels_out: int) -> int:
        shortcut = conv(channels_in, channels_out, pixels, 1) if channels_in != channels_out else 0
        return conv(channels_in, channels_out, pixels) + conv(channels_out, channels_out, pixels) + shortcut

    attention = 4 * pixels * 512**2 + 2 * pixels**2 * 512
    total = conv(latent, latent, pixels, 1) + conv(latent, 512, pixels) + 2 * block(512, 512) + attention
    channels = 512
    for level, width in enumerate((512, 512, 256, 128)):
        if level:
            pixels *= 4
            total += conv(channels, channels, pixels)
        total += block(channels, width) + 2 * block(width, width)
        channels = width
    return total + conv(128, 3, pixels)


def taesd_multiply_adds(grid: int) -> int:
    """Of the decoder: 64 channels throughout, three blocks of three convolutions a level and one at full size."""
    pixels = grid**2
    total = conv(4, 64, pixels)
    for _ in range(3):
        total += 9 * conv(64, 64, pixels)
        pixels *= 4
        total += conv(64, 64, pixels)
    return total + 3 * conv(64, 64, pixels) + conv(64, 3, pixels)


def flux2_vae_multiply_adds(grid: int) -> int:
    """Of the decoder: SD-VAE's at 32 channels, whose 2×2 patches make a grid of 128."""
    return sd_vae_multiply_adds(2 * grid, 32)


def dc_ae_multiply_adds(grid: int) -> int:
    """Of the decoder: three levels of three EfficientViT blocks, three of three residual blocks, 3×3 after each enlargement."""
    pixels, channels = grid**2, 1024
    total = conv(32, channels, pixels)
    for level, width in enumerate((1024, 1024, 512, 512, 256, 128)):
        if level:
            pixels *= 4
            total += conv(channels, width, pixels)
        if level < 3:
            # Keys, queries and values of every channel, and these once more through 5×5 and mixed within 32; then attention in
            # heads of 32 channels, linear in the pixels where they are more than that, with one row more for the sums.
            qkv = conv(width, 3 * width, pixels, 1) + 3 * width * 5**2 * pixels + 3 * width * 32 * pixels
            heads = 2 * width // 32
            attention = heads * (2 * 33 * 32 * pixels if pixels > 32 else 2 * 32 * pixels**2)
            gated = conv(width, 8 * width, pixels, 1) + 8 * width * 3**2 * pixels + conv(4 * width, width, pixels, 1)
            total += 3 * (qkv + attention + conv(2 * width, width, pixels, 1) + gated)
        else:
            total += 3 * 2 * conv(width, width, pixels)
        channels = width
    return total + conv(channels, 3, pixels)


FORMULAS = dict(
    zip(NAMES, (sd_vae_multiply_adds, taesd_multiply_adds, flux2_vae_multiply_adds, dc_ae_multiply_adds), strict=True)
)


@pytest.fixture(scope="module")
def build() -> Callable[[str], ArchitectureOnly]:
    pytest.importorskip("diffusers")
    return cache(lambda name: build_decoder(name, DecoderOptions()))


def test_the_formula_gives_the_published_order() -> None:
    assert 2 * sd_vae_multiply_adds(32) / 1e9 == pytest.approx(622, abs=1)
    assert 2 * taesd_multiply_adds(32) / 1e9 == pytest.approx(35.3, abs=0.1)
    assert 2 * flux2_vae_multiply_adds(16) / 1e9 == pytest.approx(622, abs=1)
    assert 2 * dc_ae_multiply_adds(8) / 1e9 == pytest.approx(523, abs=1)


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_those_of_the_architecture(build: Callable[[str], ArchitectureOnly], name: str) -> None:
    latents = torch.zeros(1, LATENTS[name][0], 2, 2)  # attention of dc-ae-arch is quadratic at 2 and 4, linear at 8
    assert count_flops(build(name), latents, noise()) == pytest.approx(2 * FORMULAS[name](2) / 1e9, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("flux2-vae-arch", 84_046_115),  # values of vae/diffusion_pytorch_model.safetensors of FLUX.2-klein-9B
        ("dc-ae-arch", 1.25e9 / 4),  # that file of mit-han-lab/dc-ae-f32c32-sana-1.0-diffusers has 1.25 GB in float32
    ],
)
def test_encoder_and_decoder_have_the_published_number_of_parameters(
    build: Callable[[str], ArchitectureOnly], name: str, published: float
) -> None:
    exact = isinstance(published, int)
    found = sum(one.numel() for one in build(name).model.parameters())
    assert found == published if exact else found == pytest.approx(published, rel=0.004)  # half a unit of its last digit


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_what_the_record_says(build: Callable[[str], ArchitectureOnly], name: str) -> None:
    decoder = build(name)
    assert isinstance(decoder, Decoder)
    channels, factor = LATENTS[name]
    images = torch.linspace(-1, 1, 2 * 3 * 3 * factor * 2 * factor).reshape(2, 3, 3 * factor, 2 * factor)
    latents = decoder.encode(images)
    assert latents.shape == (2, channels, 3, 2)
    wanted = images[:, 1, 2 * factor :, factor:].mean(dim=(1, 2))
    assert torch.allclose(latents[:, 1, 2, 1], wanted, atol=1e-6)
    assert torch.allclose(latents[:, channels - 3, 2, 1], wanted, atol=1e-6)
    decoded = decoder.decode(latents, noise(2))
    assert (decoded.shape, decoded.dtype) == (images.shape, torch.float32)
    spec = decoder.spec
    assert (spec.trained_on, spec.weights_sha256) == ("random weights", None)
    assert (spec.latent_channels, spec.down_factor) == LATENTS[name]
    counted = (49_490_199, 1_222_531, 49_620_259, 159_223_171)
    assert spec.parameters == dict(zip(NAMES, counted, strict=True))[name]
    with pytest.raises(MsbenchError, match=f"multiples of {factor}"):
        decoder.encode(torch.zeros(1, 3, factor + 4, factor))


def test_weights_are_the_same_every_time_and_the_generator_is_left_alone() -> None:
    pytest.importorskip("diffusers")
    state = torch.get_rng_state()
    latents = torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4)
    first, second = (build_decoder("taesd-arch", DecoderOptions()).decode(latents, noise()) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_keeps_its_latents_and_gives_floats() -> None:
    pytest.importorskip("diffusers")
    decoder = build_decoder("taesd-arch", DecoderOptions(dtype=torch.bfloat16, weights="random"))
    latents = decoder.encode(torch.zeros(1, 3, 16, 16))
    assert latents.dtype == torch.bfloat16
    assert decoder.decode(latents, noise()).dtype == torch.float32
    kernels = [one for one in decoder.model.parameters() if one.ndim == 4 and min(one.shape[1:]) > 1]
    assert all(one.is_contiguous(memory_format=torch.channels_last) and not one.is_contiguous() for one in kernels)
    assert kernels


@pytest.mark.parametrize("name", NAMES)
def test_options_without_a_meaning_are_refused(name: str) -> None:
    with pytest.raises(MsbenchError, match="no steps"):
        build_decoder(name, DecoderOptions(steps=2))
    with pytest.raises(MsbenchError, match="random weights only"):
        build_decoder(name, DecoderOptions(checkpoint=Path("weights")))


@pytest.mark.parametrize("name", NAMES)
def test_without_diffusers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real = importlib.import_module

    def absent(module: str, package: str | None = None) -> ModuleType:
        if module == "diffusers":
            raise ImportError("No module named 'diffusers'")
        return real(module, package)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MsbenchError, match=r"pip install 'msbench\[diffusers\]'") as caught:
        build_decoder(name, DecoderOptions())
    assert "\n" not in str(caught.value)


def test_a_quality_run_refuses_random_weights(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    with pytest.raises(MsbenchError, match="taesd-arch: random weights have a cost but no quality") as caught:
        evaluate(RunConfig(decoders=("bicubic", "taesd-arch"), output_dir=tmp_path / "run", offline=True))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
