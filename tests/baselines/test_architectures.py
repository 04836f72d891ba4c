"""The architectures through `diffusers`: their counts against formulas, and no quality run takes them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
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

NAMES = ("sd-vae-arch", "taesd-arch")


def noise(count: int = 1) -> SampleNoise:
    return SampleNoise.for_samples(0, [str(index) for index in range(count)])


def conv(channels_in: int, channels_out: int, pixels: int, kernel: int = 3) -> int:
    return channels_in * channels_out * kernel**2 * pixels


def sd_vae_multiply_adds(grid: int) -> int:
    """Of the decoder, level by level, in Rombach et al.'s configuration: 512, 512, 256, 128 channels, three blocks each."""
    pixels = grid**2

    def block(channels_in: int, channels_out: int) -> int:
        shortcut = conv(channels_in, channels_out, pixels, 1) if channels_in != channels_out else 0
        return conv(channels_in, channels_out, pixels) + conv(channels_out, channels_out, pixels) + shortcut

    attention = 4 * pixels * 512**2 + 2 * pixels**2 * 512
    total = conv(4, 4, pixels, 1) + conv(4, 512, pixels) + 2 * block(512, 512) + attention
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


@pytest.fixture
def build() -> Callable[[str], ArchitectureOnly]:
    pytest.importorskip("diffusers")
    return lambda name: build_decoder(name, DecoderOptions())


def test_the_formula_gives_the_published_order() -> None:
    assert 2 * sd_vae_multiply_adds(32) / 1e9 == pytest.approx(622, abs=1)
    assert 2 * taesd_multiply_adds(32) / 1e9 == pytest.approx(35.3, abs=0.1)


@pytest.mark.parametrize(("name", "formula"), [("sd-vae-arch", sd_vae_multiply_adds), ("taesd-arch", taesd_multiply_adds)])
def test_counts_are_those_of_the_architecture(
    build: Callable[[str], ArchitectureOnly], name: str, formula: Callable[[int], int]
) -> None:
    decoder = build(name)
    assert count_flops(decoder, torch.zeros(1, 4, 4, 4), noise()) == pytest.approx(2 * formula(4) / 1e9, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_what_the_record_says(build: Callable[[str], ArchitectureOnly], name: str) -> None:
    decoder = build(name)
    assert isinstance(decoder, Decoder)
    images = torch.linspace(-1, 1, 2 * 3 * 24 * 16).reshape(2, 3, 24, 16)
    latents = decoder.encode(images)
    assert latents.shape == (2, 4, 3, 2)
    assert torch.allclose(latents[:, 1, 2, 1], images[:, 1, 16:24, 8:16].mean(dim=(1, 2)), atol=1e-6)
    decoded = decoder.decode(latents, noise(2))
    assert (decoded.shape, decoded.dtype) == ((2, 3, 24, 16), torch.float32)
    spec = decoder.spec
    assert (spec.trained_on, spec.weights_sha256, spec.latent_channels, spec.down_factor) == ("random weights", None, 4, 8)
    assert spec.parameters == {"sd-vae-arch": 49_490_199, "taesd-arch": 1_222_531}[name]
    with pytest.raises(MsbenchError, match="multiples of 8"):
        decoder.encode(torch.zeros(1, 3, 20, 16))


def test_weights_are_the_same_every_time_and_the_generator_is_left_alone(build: Callable[[str], ArchitectureOnly]) -> None:
    state = torch.get_rng_state()
    latents = torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4)
    first, second = (build("taesd-arch").decode(latents, noise()) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_keeps_its_latents_and_gives_floats() -> None:
    pytest.importorskip("diffusers")
    decoder = build_decoder("taesd-arch", DecoderOptions(dtype=torch.bfloat16, weights="random"))
    latents = decoder.encode(torch.zeros(1, 3, 16, 16))
    assert latents.dtype == torch.bfloat16
    assert decoder.decode(latents, noise()).dtype == torch.float32


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
