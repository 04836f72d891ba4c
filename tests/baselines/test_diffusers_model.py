"""Autoencoders of `diffusers`: small random ones of each class, saved to a folder; pixels are those of direct calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from baselines.diffusers_model import DiffusersDecoder
from harness.cost.cost import CostProtocol
from harness.cost.flops import count_flops
from harness.cost.modes import in_mode
from harness.decoder import Decoder, DecoderOptions
from harness.errors import MsbenchError
from harness.files import sha256_file
from harness.noise import SampleNoise
from harness.registry import build_decoder
from harness.run.reconstruct import reconstruct, to_uint8
from tests.harness.run.conftest import LightRun, images, light

__all__ = ["images", "light"]

diffusers = pytest.importorskip("diffusers")

KL = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "sd": ("AutoencoderKL", {**KL, "latent_channels": 4, "scaling_factor": 0.18215}),
    "sdxl": (
        "AutoencoderKL",
        {**KL, "latent_channels": 2, "scaling_factor": 0.5, "latents_mean": [0.3, -0.1], "latents_std": [2.0, 3.0]},
    ),
    "flux": (
        "AutoencoderKL",
        {
            **KL,
            "latent_channels": 16,
            "scaling_factor": 0.3611,
            "shift_factor": 0.1159,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        },
    ),
    "flux2": ("AutoencoderKLFlux2", {**KL, "latent_channels": 4}),
    "tiny": (
        "AutoencoderTiny",
        {
            "encoder_block_out_channels": (8, 8, 8),
            "decoder_block_out_channels": (8, 8, 8),
            "num_encoder_blocks": (1, 1, 1),
            "num_decoder_blocks": (1, 1, 1),
        },
    ),
    "dc": (
        "AutoencoderDC",
        {
            "latent_channels": 8,
            "attention_head_dim": 4,
            "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "encoder_block_out_channels": (8, 16),
            "decoder_block_out_channels": (8, 16),
            "encoder_layers_per_block": (1, 1),
            "decoder_layers_per_block": (1, 1),
            "encoder_qkv_multiscales": ((), (5,)),
            "decoder_qkv_multiscales": ((), (5,)),
            "scaling_factor": 0.41407,
        },
    ),
    "vq": ("VQModel", {**KL, "latent_channels": 3, "num_vq_embeddings": 32, "vq_embed_dim": 2}),
    "consistency": (
        "ConsistencyDecoderVAE",
        {
            "encoder_block_out_channels": (8, 16),
            "encoder_down_block_types": ("DownEncoderBlock2D",) * 2,
            "encoder_layers_per_block": 1,
            "encoder_norm_num_groups": 4,
            "decoder_block_out_channels": (8, 16),
            "decoder_down_block_types": ("ResnetDownsampleBlock2D",) * 2,
            "decoder_up_block_types": ("ResnetUpsampleBlock2D",) * 2,
            "decoder_layers_per_block": 1,
            "decoder_norm_num_groups": 4,
        },
    ),
    "qwen": (
        "AutoencoderKLQwenImage",
        {
            "base_dim": 8,
            "z_dim": 4,
            "dim_mult": [1, 2],
            "num_res_blocks": 1,
            "temperal_downsample": [False],
            "latents_mean": [0.1, 0.2, 0.3, 0.4],
            "latents_std": [1.0, 2.0, 3.0, 4.0],
        },
    ),
}
FACTORS = {"flux2": 4, "tiny": 4}
IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 16).sin().reshape(2, 3, 32, 16)


def noise(count: int = 2, seed: int = 0) -> SampleNoise:
    return SampleNoise.for_samples(seed, [f"image-{index}" for index in range(count)])


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """`saved("sd")`: the folder of a small model with random weights."""

    def save(name: str, folder: str = "model") -> Path:
        kind, config = SMALL[name]
        if not hasattr(diffusers, kind):
            pytest.skip(f"this version of diffusers has no {kind}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = getattr(diffusers, kind)(**config)
            if name == "flux2":
                model.bn.running_mean.copy_(torch.randn(16))
                model.bn.running_var.copy_(torch.rand(16) + 0.5)
        model.save_pretrained(tmp_path / folder)
        return tmp_path / folder

    return save


def build(place: Path | str, dtype: torch.dtype = torch.float32, offline: bool = False, **own: str) -> DiffusersDecoder:
    decoder = build_decoder(f"diffusers:{place}", DecoderOptions(dtype=dtype, own=own, offline=offline))
    assert isinstance(decoder, DiffusersDecoder)
    return decoder


def direct(folder: Path, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Encoded and decoded by `diffusers` alone, without scaling."""
    kind = json.loads((folder / "config.json").read_text())["_class_name"]
    model = getattr(diffusers, kind).from_pretrained(folder, torch_dtype=dtype).eval().requires_grad_(False)
    with torch.no_grad():
        found = model.encode(images.to(dtype).unsqueeze(2) if "Qwen" in kind else images.to(dtype))
        code = found.latent_dist.mode() if "latent_dist" in found else found[0]
        decoded: Tensor = model.decode(code).sample.float()
    return decoded.squeeze(2) if "Qwen" in kind else decoded


@pytest.mark.parametrize("name", [name for name in SMALL if name != "consistency"])
def test_pixels_are_those_of_direct_calls(saved: Callable[..., Path], name: str) -> None:
    folder = saved(name)
    decoder = build(folder)
    assert isinstance(decoder, Decoder)
    latents = decoder.encode(IMAGES)
    factor = FACTORS.get(name, 2)
    assert latents.shape[-2:] == (32 // factor, 16 // factor)
    found, wanted = decoder.decode(latents, noise()), direct(folder, IMAGES)
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)
    levels = (to_uint8(found).int() - to_uint8(wanted).int()).abs()
    assert (int(levels.max()) <= 1) & (float(levels.float().mean()) <= 1e-3)  # float32 in another memory layout
    spec, sha256 = decoder.spec, sha256_file(folder / "diffusion_pytorch_model.safetensors")
    assert (spec.down_factor, spec.steps, spec.scales) == (factor, 1, 1)
    assert (spec.weights_sha256, spec.encoder_sha256) == (sha256, sha256)
    assert spec.latent_channels == (None if name == "vq" else latents.shape[1])
    assert spec.trained_on == f"unknown ({folder})"
    assert count_flops(decoder, latents[:1], noise(1))


@pytest.mark.parametrize("name", [name for name in SMALL if name != "consistency"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_the_same_pixels_as_diffusers_in_it(
    saved: Callable[..., Path], name: str, dtype: torch.dtype
) -> None:
    folder = saved(name)
    decoder = build(folder, dtype)
    latents = decoder.encode(IMAGES)
    found = decoder.decode(latents, noise())
    assert found.dtype == torch.float32
    if name == "vq":  # its distances have no half precision on a CPU
        assert torch.equal(latents, decoder.encode(IMAGES))
    else:
        assert latents.dtype == torch.float32
        assert torch.equal(found, direct(folder, IMAGES, dtype))


def test_latents_are_what_a_generative_model_sees(saved: Callable[..., Path]) -> None:
    def code(folder: Path, kind: str) -> Any:
        model = getattr(diffusers, kind).from_pretrained(folder)
        return model, model.encode(IMAGES).latent_dist.mode().detach()

    folder = saved("flux", "flux")
    _, flux = code(folder, "AutoencoderKL")
    torch.testing.assert_close(build(folder).encode(IMAGES), (flux - 0.1159) * 0.3611)
    folder = saved("sdxl", "sdxl")
    _, sdxl = code(folder, "AutoencoderKL")
    mean, deviation = (torch.tensor(values).view(2, 1, 1) for values in ([0.3, -0.1], [2.0, 3.0]))
    torch.testing.assert_close(build(folder).encode(IMAGES), (sdxl - mean) * 0.5 / deviation)
    folder = saved("flux2", "flux2")
    model, flux2 = code(folder, "AutoencoderKLFlux2")
    patches = flux2.reshape(2, 4, 8, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 16, 8, 4)  # as Flux2Pipeline does
    statistics = [one.view(1, -1, 1, 1) for one in (model.bn.running_mean, (model.bn.running_var + 1e-4).sqrt())]
    torch.testing.assert_close(build(folder).encode(IMAGES), (patches - statistics[0]) / statistics[1])


def test_tokens_are_indices_of_the_codebook(saved: Callable[..., Path]) -> None:
    folder = saved("vq")
    decoder = build(folder)
    tokens = decoder.encode(IMAGES)
    assert (tokens.dtype, list(tokens.shape)) == (torch.int64, [2, 16, 8])
    code = decoder.model.encode(IMAGES).latents
    assert torch.equal(tokens.flatten(), decoder.model.quantize(code)[2][2])
    assert len(tokens.unique()) > 2


def test_the_consistency_decoder_draws_noise_keyed_by_image(saved: Callable[..., Path]) -> None:
    folder = saved("consistency")
    decoder, state = build(folder), torch.get_rng_state()
    assert (decoder.spec.steps, decoder.spec.down_factor, decoder.spec.latent_channels) == (2, 2, 4)
    latents, source = decoder.encode(IMAGES), noise()
    found = decoder.decode(latents, source)
    assert source.used
    assert torch.equal(found, decoder.decode(latents, noise()))
    assert not torch.allclose(found, decoder.decode(latents, noise(seed=1)), atol=1e-3)
    torch.testing.assert_close(found[:1], decoder.decode(latents[:1], noise(1)), rtol=0, atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)
    model = diffusers.ConsistencyDecoderVAE.from_pretrained(folder)
    words = noise().normal((2,), 0).view(torch.int32).tolist()
    seeds = [(a * 2**32 + b % 2**32) % 2**63 for a, b in words]
    code = model.encode(IMAGES).latent_dist.mode()
    with torch.no_grad():
        wanted = model.decode(code, generator=[torch.Generator().manual_seed(seed) for seed in seeds]).sample
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)
    assert count_flops(decoder, latents[:1], noise(1))


def test_a_sampled_posterior_comes_from_the_global_generator(saved: Callable[..., Path]) -> None:
    folder = saved("sd")
    decoder = build(folder, posterior="sample")
    torch.manual_seed(3)
    first, second = decoder.encode(IMAGES), decoder.encode(IMAGES)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(first, decoder.encode(IMAGES))
    torch.manual_seed(3)
    torch.testing.assert_close(first, decoder.model.encode(IMAGES).latent_dist.sample() * 0.18215)


def test_tiles(saved: Callable[..., Path]) -> None:
    folder = saved("sd")
    decoder = build(folder, tiling="true")
    assert decoder.model.use_tiling
    large = functional.interpolate(IMAGES, (96, 64))
    tiled = decoder.decode(decoder.encode(large), noise())
    assert tiled.shape == (2, 3, 96, 64)
    assert not torch.allclose(tiled, build(folder).decode(build(folder).encode(large), noise()), atol=1e-4)


def test_any_size_through_the_harness(saved: Callable[..., Path]) -> None:
    decoder = build(saved("sd"))
    found = reconstruct(decoder, torch.zeros(1, 3, 31, 17, dtype=torch.uint8), noise(1))
    assert found.pixels.shape == (1, 3, 31, 17)
    with pytest.raises(MsbenchError, match="multiples of 2"):
        decoder.encode(torch.zeros(1, 3, 31, 16))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "dc"])
def test_compiled(saved: Callable[..., Path], name: str) -> None:
    decoder = build(saved(name))
    latents = decoder.encode(IMAGES)
    compiled = in_mode(decoder, "compile", torch.device("cpu")).decode(latents, noise())
    torch.testing.assert_close(compiled, decoder.decode(latents, noise()), rtol=0, atol=1e-4)


def test_a_subfolder_and_random_weights(saved: Callable[..., Path]) -> None:
    folder = saved("sd", "pipeline/vae")
    assert build(f"{folder.parent}#vae").spec.weights_sha256 == build(folder).spec.weights_sha256
    decoder = build_decoder(f"diffusers:{folder}", DecoderOptions(weights="random"))
    assert (decoder.spec.trained_on, decoder.spec.weights_sha256) == ("random weights", None)


def test_a_run_of_each_class_and_what_its_code_takes(saved: Callable[..., Path], light: LightRun) -> None:
    names = ("sd", "tiny", "dc", "vq", "consistency")
    texts = [f"diffusers:{saved(name, name)}" for name in names]
    cost = CostProtocol(batch_sizes=(1,), min_calls=1, max_calls=1, max_seconds=0.1)
    record = light(",".join(texts), cost=cost)
    bits = {"sd": 256 * 4 * 16, "tiny": 64 * 4 * 16, "dc": 256 * 8 * 16, "vq": 256 * 5, "consistency": 256 * 4 * 16}
    for name, result in zip(names, record.data.results, strict=True):
        assert result.rate is not None
        assert (result.rate.bits_per_image, result.rate.bits_per_pixel) == (bits[name], bits[name] / 32**2)
        assert result.gflops is not None
        assert result.gflops > 0
        assert result.ms_per_image["1"] > 0
    noises = [record.data.decoders[result.label].noise for result in record.data.results]
    assert [one.drawn for one in noises] == [False] * 4 + [True]
    assert not any(one.global_draws for one in noises)
    again = light(",".join(texts), "again", batch_size=3)
    first, second = (one.samples()["psnr"].to_numpy() for one in (record, again))
    assert first == pytest.approx(second, abs=1e-3)
    assert record.data.results[3].metrics["token_agreement"] is not None


def test_a_sampled_posterior_is_keyed_by_image(saved: Callable[..., Path], light: LightRun) -> None:
    text = f"diffusers:{saved('sd')}@posterior=sample"
    runs = [light(text, f"run-{size}", batch_size=size) for size in (1, 4)]
    assert runs[0].data.decoders[runs[0].results[0]["label"]].noise.global_draws
    assert runs[0].samples()["psnr"].to_numpy() == pytest.approx(runs[1].samples()["psnr"].to_numpy(), abs=1e-6)
    mode = light(text.partition("@")[0], "mode")
    assert not mode.samples()["psnr"].equals(runs[0].samples()["psnr"])


def test_parts_of_a_file_are_hashed_together(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved("sd")
    diffusers.AutoencoderKL.from_pretrained(folder).save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    whole, parts = build(folder), build(tmp_path / "parts")
    assert torch.equal(whole.encode(IMAGES), parts.encode(IMAGES))
    assert whole.spec.weights_sha256 != parts.spec.weights_sha256
    assert len(parts.spec.weights_sha256 or "") == 64


def rewritten(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def refused(words: str, place: Path | str, **own: str) -> None:
    with pytest.raises(MsbenchError, match=words) as caught:
        build(place, offline=True, **own)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_one_line(saved: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    refused("there is no folder .*absent", tmp_path / "absent")
    refused("no folder nobody/nothing, and no repository that can be had", "nobody/nothing")
    folder = saved("sd", "pipeline/vae")
    refused("no config.json in .*: name its subfolder, as .*#vae", folder.parent)
    refused("revision=main goes with a repository's name", folder, revision="main")
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")
    refused(r"no diffusion_pytorch_model.safetensors in .*\(.bin\) are not read", folder)


def test_another_class_or_content_is_one_line(saved: Callable[..., Path]) -> None:
    refused("'UNet2DModelling', which is no autoencoder", rewritten(saved("sd", "a"), _class_name="UNet2DModelling"))
    refused("'UNet2DModel', which is no autoencoder", rewritten(saved("sd", "b"), _class_name="UNet2DModel"))
    refused(r"takes images in \[0, 1\]", rewritten(saved("sd", "rae"), _class_name="AutoencoderRAE"))
    refused("None, which is no autoencoder", rewritten(saved("sd", "c"), _class_name=None))
    refused("reading .* as a AutoencoderKL raised", rewritten(saved("sd", "d"), latent_channels=8))
    refused(r"lacks \d+ tensors, first", rewritten(saved("sd", "e"), layers_per_block=2))
    folder = saved("sd", "f")
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"broken")
    refused("reading .* as a AutoencoderKL raised OSError: Unable to load weights", folder)
    (folder / "config.json").write_text("{")
    refused("config.json cannot be read", folder)


def test_options_are_checked(saved: Callable[..., Path]) -> None:
    folder = saved("tiny")
    refused("no posterior to sample", folder, posterior="sample")
    refused("posterior is mode or sample, not 'mean'", folder, posterior="mean")
    refused("tiling is false or true, not 'yes'", folder, tiling="yes")
    for options in (DecoderOptions(steps=2), DecoderOptions(checkpoint=folder)):
        with pytest.raises(MsbenchError, match=r"no steps to set|its location names its weights"):
            build_decoder(f"diffusers:{folder}", options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_consistency_decoder_in_half_precision(saved: Callable[..., Path], dtype: torch.dtype) -> None:
    folder = saved("consistency")
    whole, half = build(folder), build(folder, dtype)
    found = half.decode(half.encode(IMAGES), noise())
    assert found.dtype == torch.float32
    assert float((found - whole.decode(whole.encode(IMAGES), noise())).abs().mean()) < 0.1
