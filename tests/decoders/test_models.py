"""The decoders as the harness sees them: any size, any batch, and one clear line for what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from decoders import models
from decoders.autoencoder import Autoencoder
from decoders.checkpoint import Manifest, save_checkpoint
from decoders.denoiser import Denoiser
from decoders.presets import DIFFUSION, SIZES, size_preset
from harness.decoder import Decoder, DecoderOptions
from harness.errors import MsbenchError, UnknownNameError
from harness.files import sha256_file
from harness.noise import SampleNoise
from harness.registry import build_decoder


@pytest.fixture
def weights(tmp_path: Path, tiny_autoencoder: Autoencoder, tiny_denoiser: Callable[[int], Denoiser]) -> Path:
    """A folder with a tiny checkpoint of every decoder."""
    vae = Manifest("vae", "autoencoder", asdict(tiny_autoencoder.config), "synthetic", None)
    sha256 = save_checkpoint(tmp_path / "vae.safetensors", tiny_autoencoder, vae)
    tuned = replace(vae, decoder="vae-ft", encoder_sha256=sha256)
    save_checkpoint(tmp_path / "vae-ft.safetensors", tiny_autoencoder, tuned)
    for name, preset in DIFFUSION.items():
        network = tiny_denoiser(preset.scales)
        manifest = Manifest(name, "denoiser", asdict(network.config), "synthetic", sha256, preset.flow)
        save_checkpoint(tmp_path / f"{name}.safetensors", network, manifest)
    return tmp_path


def build(name: str, folder: Path, steps: int | None = None, scales: int | None = None) -> Decoder:
    return build_decoder(name, DecoderOptions(checkpoint=folder / f"{name}.safetensors", steps=steps, scales=scales))


def noise(count: int, first: int = 0, seed: int = 0) -> SampleNoise:
    return SampleNoise.for_samples(seed, [f"sample-{index}" for index in range(first, first + count)])


def to_uint8(images: Tensor) -> Tensor:
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def random_latents(count: int, height: int = 4, width: int = 4) -> Tensor:
    return torch.randn((count, 4, height, width), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["vae", "vae-ft", *DIFFUSION])
def test_a_decoder_says_what_it_is(weights: Path, name: str) -> None:
    decoder = build(name, weights)
    assert isinstance(decoder, Decoder)
    spec = decoder.spec
    preset = DIFFUSION.get(name)
    assert (spec.name, spec.down_factor, spec.latent_channels, spec.trained_on) == (name, 8, 4, "synthetic")
    assert (spec.steps, spec.scales) == ((preset.steps, preset.scales) if preset else (1, 1))
    assert spec.weights_sha256 == sha256_file(weights / f"{name}.safetensors")
    assert spec.encoder_sha256 == sha256_file(weights / "vae.safetensors")
    assert spec.parameters > 1000


@pytest.mark.parametrize("name", ["vae", *DIFFUSION])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (13, 9), (32, 32), (1, 1), (30, 5)])
def test_any_size_decodes(weights: Path, name: str, height: int, width: int) -> None:
    steps = None if name == "vae" else DIFFUSION[name].scales
    images = build(name, weights, steps).decode(random_latents(1, height, width), noise(1))
    assert images.shape == (1, 3, 8 * height, 8 * width)
    assert images.isfinite().all()
    assert images.std() > 1e-3


@pytest.mark.parametrize("name", ["ms-onestep", "onestep"])
def test_padding_is_cropped_from_the_bottom_and_the_right(weights: Path, name: str) -> None:
    """13 × 9 latents decode as the top left of the latents padded by hand (noise aside, which is drawn on the padded grid)."""
    decoder = build(name, weights)
    latents = random_latents(2, 13, 9)
    padded = torch.nn.functional.pad(latents, (0, 3, 0, 3), mode="replicate")
    multiple = 4 if name == "ms-onestep" else 1
    by_hand = padded if multiple == 4 else latents
    whole = decoder.decode(by_hand, noise(2))
    assert torch.allclose(decoder.decode(latents, noise(2)), whole[..., : 13 * 8, : 9 * 8], atol=1e-6)


def test_encoders_agree(weights: Path, tiny_autoencoder: Autoencoder) -> None:
    images = torch.rand((2, 3, 64, 40), generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = build("vae", weights).encode(images)
    assert expected.shape == (2, 4, 8, 5)
    for name in DIFFUSION:
        assert torch.equal(build(name, weights).encode(images), expected)
    # Latents stay fp32 whatever the decoder's dtype.
    options = DecoderOptions(checkpoint=weights / "ms-onestep.safetensors", dtype=torch.bfloat16)
    decoder = build_decoder("ms-onestep", options)
    assert torch.equal(decoder.encode(images), expected)
    difference = decoder.decode(expected, noise(2)) - build("ms-onestep", weights).decode(expected, noise(2))
    assert 0 < difference.abs().mean() < 0.05


@pytest.mark.parametrize("name", ["vae", "onestep", "ms-onestep", "ms-diffusion", "direct"])
def test_images_do_not_depend_on_the_batch(weights: Path, name: str) -> None:
    """fp32: at most one uint8 level in at most 0.1 % of the values (design §2)."""
    decoder = build(name, weights, None if name in ("vae", "direct", "onestep") else 4)
    latents = random_latents(32)
    whole = to_uint8(decoder.decode(latents, noise(32))).int()
    assert whole.unique().numel() > 1
    for size in (1, 7):
        starts = range(0, 32, size)
        parts = [decoder.decode(latents[start : start + size], noise(min(size, 32 - start), start)) for start in starts]
        difference = (to_uint8(torch.cat(parts)).int() - whole).abs()
        assert difference.max() <= 1
        assert (difference > 0).double().mean() <= 1e-3
    again = to_uint8(decoder.decode(latents, noise(32))).int()
    assert torch.equal(again, whole)
    other = to_uint8(decoder.decode(latents, noise(32, seed=1))).int()
    assert torch.equal(other, whole) == (name in ("vae", "direct"))


def test_previews_see_every_scale(weights: Path) -> None:
    decoder = build("ms-onestep", weights)
    assert isinstance(decoder, models.DiffusionDecoder)
    seen: dict[int, tuple[int, ...]] = {}
    decoder.decode_scales(random_latents(1, 5, 4), noise(1), lambda k, end: seen.__setitem__(k, tuple(end.shape[-2:])))
    assert seen == {0: (16, 8), 1: (32, 16), 2: (64, 32)}


@pytest.mark.parametrize(
    ("name", "steps", "scales", "words"),
    [
        ("vae", 2, None, "one step at one scale"),
        ("vae", None, 3, "one step at one scale"),
        ("ms-onestep", 2, None, "2 steps cannot cover 3 scales"),
        ("ms-onestep", 0, None, "0 steps cannot cover 3 scales"),
        ("diffusion", -1, None, "steps cannot cover"),
        ("diffusion", None, 0, "at least one"),
        ("ms-diffusion", None, 2, r"trained for 3 scales, not 2.*--scales 3"),
    ],
)
def test_options_that_do_not_fit(weights: Path, name: str, steps: int | None, scales: int | None, words: str) -> None:
    with pytest.raises(MsbenchError, match=words) as error:
        build(name, weights, steps, scales)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "other", "words"),
    [
        ("vae", "diffusion", "an autoencoder is needed"),
        ("diffusion", "vae", "a denoiser is needed"),
        ("diffusion", "ms-diffusion-cascade", "trained for 3 scales, not 1"),
        ("ms-onestep", "onestep", "trained for 1 scales, not 3"),
        ("ms-onestep", "ms-diffusion-cascade", "cascade flow; ms-onestep needs pyramid"),
        ("diffusion", "direct", "noise-free flow; diffusion needs cascade"),
        ("direct", "onestep", "cascade flow; direct needs noise-free"),
    ],
)
def test_another_decoder_s_checkpoint_is_refused(weights: Path, name: str, other: str, words: str) -> None:
    with pytest.raises(MsbenchError, match=words) as error:
        build_decoder(name, DecoderOptions(checkpoint=weights / f"{other}.safetensors"))
    assert "\n" not in str(error.value)


def test_a_teacher_in_one_step_is_allowed(weights: Path) -> None:
    decoder = build_decoder("onestep", DecoderOptions(checkpoint=weights / "diffusion.safetensors"))
    assert (decoder.spec.name, decoder.spec.steps) == ("onestep", 1)


def test_another_encoder_s_latents_are_refused(
    weights: Path, tiny_denoiser: Callable[[int], Denoiser], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network = tiny_denoiser(1)
    manifest = Manifest("diffusion", "denoiser", asdict(network.config), "synthetic", "a" * 64, "cascade")
    save_checkpoint(weights / "diffusion.safetensors", network, manifest)
    with pytest.raises(MsbenchError, match=r"encoder with sha256 aaaa.*vae\.safetensors") as error:
        build("diffusion", weights)
    assert "\n" not in str(error.value)
    monkeypatch.setattr(models, "shipped_path", lambda name: tmp_path / "nowhere" / f"{name}.safetensors")
    (weights / "vae.safetensors").unlink()
    with pytest.raises(MsbenchError, match="looked for"):
        build("diffusion", weights)


def test_unknown_presets_get_a_suggestion() -> None:
    assert size_preset("nano") is SIZES["nano"]
    with pytest.raises(UnknownNameError, match="Did you mean 'nano'"):
        size_preset("nanno")


@pytest.mark.parametrize(
    ("name", "scales", "steps"),
    [("diffusion", 1, 2), ("ms-diffusion", 2, 5), ("ms-diffusion-cascade", 4, 4), ("direct", 1, 1)],
)
def test_random_weights_serve_cost_measurements(name: str, scales: int, steps: int) -> None:
    before = torch.get_rng_state()
    options = DecoderOptions(weights="random", scales=scales, steps=steps)
    decoder = build_decoder(name, options)
    assert torch.equal(torch.get_rng_state(), before)
    spec = decoder.spec
    assert (spec.scales, spec.steps, spec.weights_sha256, spec.trained_on) == (scales, steps, None, "random weights")
    assert decoder.encode(torch.zeros(1, 3, 64, 64)).shape == (1, 16, 8, 8)
    assert decoder.decode(torch.randn(1, 16, 3, 2), noise(1)).shape == (1, 3, 24, 16)
    again = build_decoder(name, options)
    assert isinstance(decoder, models.DiffusionDecoder)
    assert isinstance(again, models.DiffusionDecoder)
    pairs = zip(decoder.denoiser.parameters(), again.denoiser.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", ["vae", "diffusion"])
def test_a_preset_sizes_random_weights_alone(name: str, weights: Path) -> None:
    options = DecoderOptions(weights="random")
    small = build_decoder(name, replace(options, preset="small")).spec.parameters
    assert (
        small
        > 3 * build_decoder(name, replace(options, preset="nano")).spec.parameters
        == 3 * build_decoder(name, options).spec.parameters
    )
    with pytest.raises(UnknownNameError, match="Did you mean 'small'"):
        build_decoder(name, replace(options, preset="smal"))
    with pytest.raises(MsbenchError, match=r"preset=small goes with weights=random"):
        build_decoder(name, DecoderOptions(checkpoint=weights / f"{name}.safetensors", preset="small"))


def test_default_steps_follow_the_scales() -> None:
    random = DecoderOptions(weights="random", device=torch.device("meta"))
    assert build_decoder("ms-onestep", replace(random, scales=2)).spec.steps == 2
    assert build_decoder("ms-diffusion", replace(random, scales=2)).spec.steps == 50
