"""The linear path: what networks begin as, and that those without it stay as they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.options import spec_of
from baselines.pca import PcaDecoder
from decoders.autoencoder import START_LOG_VARIANCE, Autoencoder
from decoders.blocks import zero
from decoders.checkpoint import Manifest, load_autoencoder, load_denoiser, save_checkpoint
from decoders.denoiser import Denoiser
from decoders.flow import halve, make_flow
from decoders.presets import DIFFUSION, SizePreset
from decoders.sampling import sample
from decoders.training import build as build_module
from decoders.training import train as train_module
from decoders.training.data import TrainingImages, load_training_images, to_float
from decoders.training.request import TrainRequest
from decoders.training.train import recipe_sha256, run_training
from harness.cells import cells, fit_linear_map, fit_pca
from harness.decoder import DecoderOptions
from harness.errors import MsbenchError
from harness.noise import SampleNoise
from harness.registry import build_decoder
from tests.decoders.conftest import TINY_AUTOENCODER, CountingNoise, tiny_denoiser_config
from tests.decoders.test_train import TINY, Lab, lab, silent  # noqa: F401 (a fixture)

LINEAR_AUTOENCODER = replace(TINY_AUTOENCODER, latent_channels=6, linear=True)


@pytest.fixture
def started(pictures: TrainingImages) -> Autoencoder:
    """An autoencoder that begins as the components of the pictures' cells."""
    torch.manual_seed(0)
    module = Autoencoder(LINEAR_AUTOENCODER).eval().requires_grad_(False)
    module.start_linear(fit_pca(pictures.images, 8, 6))
    return module


def test_the_autoencoder_begins_as_plain_pca(started: Autoencoder, pictures: TrainingImages) -> None:
    plain = PcaDecoder(fit_pca(pictures.images, 8, 6), spec_of("pca", 8, 6), torch.device("cpu"))
    images = to_float(pictures.images)
    latents = started.encode(images)
    assert torch.equal(latents, plain.encode(images))
    assert torch.equal(started.decode(latents), plain.decode(latents, SampleNoise.for_samples(0, ["a"])))
    assert (started.encoder(images)[1] == START_LOG_VARIANCE).all()


def test_both_networks_learn_from_the_first_step(started: Autoencoder, pictures: TrainingImages) -> None:
    started.requires_grad_(True)
    images = to_float(pictures.images)
    mean, _ = started.encoder(images)
    (started.decoder(mean) - images).square().mean().backward()
    for layer in (started.encoder.head, started.decoder.head, started.encoder.linear, started.decoder.linear):
        assert layer is not None
        assert layer.weight.grad is not None
        assert layer.weight.grad.abs().max() > 0


def test_checkpoints_without_the_fields_load_as_before(tmp_path: Path) -> None:
    """Files from before there was a linear path, or a choice of stem."""
    for name, kind, module in (
        ("vae", "autoencoder", Autoencoder(TINY_AUTOENCODER)),
        ("direct", "denoiser", Denoiser(tiny_denoiser_config(1))),
    ):
        former = {key: value for key, value in asdict(module.config).items() if key not in ("linear", "stem")}
        save_checkpoint(tmp_path / name, module, Manifest(name, kind, former, "pictures", None))  # type: ignore[arg-type]
    autoencoder, _ = load_autoencoder(tmp_path / "vae")
    assert (autoencoder.encoder.linear, autoencoder.decoder.linear) == (None, None)
    denoiser, _ = load_denoiser(tmp_path / "direct")
    assert (denoiser.linear, denoiser.stem.kernel_size) == (None, (3, 3))


def test_a_linear_path_of_zeros_changes_no_bit(pictures: TrainingImages) -> None:
    torch.manual_seed(0)
    plain = Autoencoder(TINY_AUTOENCODER).eval().requires_grad_(False)
    module = Autoencoder(replace(plain.config, linear=True)).eval().requires_grad_(False)
    assert {"encoder.linear.weight", "decoder.linear.bias"} <= set(
        module.load_state_dict(plain.state_dict(), strict=False).missing_keys
    )
    for layer in (module.encoder.linear, module.decoder.linear):
        assert layer is not None
        zero(layer)
    images = to_float(pictures.images[:2])
    latents = plain.encode(images)
    assert torch.equal(module.encode(images), latents)
    assert torch.equal(module.decode(latents), plain.decode(latents))


def test_round_trip_through_a_checkpoint(started: Autoencoder, tmp_path: Path) -> None:
    manifest = Manifest("vae", "autoencoder", asdict(started.config), "pictures", None)
    save_checkpoint(tmp_path / "vae.safetensors", started, manifest)
    loaded, _ = load_autoencoder(tmp_path / "vae.safetensors")
    assert loaded.config == started.config
    for name, value in started.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name


def linear_denoiser(scales: int, weight: Tensor, bias: Tensor) -> Denoiser:
    torch.manual_seed(0)
    network = Denoiser(replace(tiny_denoiser_config(scales), latent_channels=weight.shape[1], linear=True))
    network.start_linear(weight, bias)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("scales", [1, 3])
def test_a_denoiser_begins_as_the_linear_image_of_each_scale(
    started: Autoencoder, pictures: TrainingImages, scales: int
) -> None:
    latents = started.encode(to_float(pictures.images[:2]))
    weight, bias = fit_linear_map(started.encode(to_float(pictures.images)), pictures.images, 8)
    network = linear_denoiser(scales, weight, bias)
    image = F.pixel_shuffle(torch.einsum("dc,bchw->bdhw", weight, latents) + bias[:, None, None], 8)
    assert torch.allclose(image, started.decode(latents), atol=1e-3)  # least squares from PCA's numbers is their transpose
    conditions, time = network.project(latents), torch.full((2,), 0.3)
    for scale in reversed(range(scales)):
        x = torch.randn(image.shape, generator=torch.Generator().manual_seed(scale))
        assert torch.allclose(network(x, conditions[scale], scale, time, time), image, atol=1e-5)
        assert all(map(torch.equal, conditions[scale], network.project_scale(latents, scale)))
        image = halve(image)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_within_cells_has_the_bits_of_pooling_pixels(dtype: torch.dtype) -> None:
    drawn = torch.Generator().manual_seed(0)
    network = linear_denoiser(5, torch.randn(192, 4, generator=drawn), torch.randn(192, generator=drawn)).to(dtype)
    latents = torch.randn(2, 4, 16, 32, generator=drawn).to(dtype)
    assert network.linear is not None
    finest = F.pixel_shuffle(network.linear(latents), 8)
    for scale, condition in enumerate(network.project(latents)):
        assert condition.image is not None
        pooled = F.avg_pool2d(finest, 2 ** (4 - scale))
        assert torch.equal(condition.image, pooled) if scale else torch.allclose(condition.image, pooled, atol=1e-2)


@pytest.mark.parametrize("name", ["direct", "ms-direct", "ms-onestep", "ms-diffusion"])
def test_every_flow_decodes_the_linear_image_at_the_start(
    started: Autoencoder, pictures: TrainingImages, counting_noise: Callable[[int], CountingNoise], name: str
) -> None:
    preset = DIFFUSION[name]
    latents = started.encode(to_float(pictures.images[:2]))
    network = linear_denoiser(preset.scales, *fit_pca(pictures.images, 8, 6).transpose())
    decoded = sample(network, make_flow(preset.flow, preset.scales), latents, (4,) * preset.scales, counting_noise(2))
    assert torch.allclose(decoded, started.decode(latents), atol=1e-4)


def test_a_linear_path_needs_image_prediction() -> None:
    with pytest.raises(ValueError, match="prediction must be image"):
        Denoiser(replace(tiny_denoiser_config(1), prediction="velocity", linear=True))


class StillLab(Lab):
    """Its trainings take steps too small to move a weight."""

    def request(self, decoder: str, steps: int = 2) -> TrainRequest:
        made = super().request(decoder, steps)
        return replace(made, config=replace(made.config, learning_rate=1e-30, weight_decay=0.0))


@pytest.fixture
def linear_lab(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:  # noqa: F811
    """The lab with networks that have a linear path, which stay as they begin."""
    tiny = SizePreset(replace(TINY.autoencoder, latent_channels=6, linear=True), replace(TINY.denoiser, linear=True))
    monkeypatch.setattr(build_module, "size_preset", lambda name: tiny)
    return StillLab(lab.pictures, lab.output)


def test_trainings_begin_at_their_fits(linear_lab: Lab) -> None:
    vae = run_training(linear_lab.request("vae"), silent, None)
    autoencoder, _ = load_autoencoder(vae)
    data = load_training_images(linear_lab.request("vae").data).images
    weight, bias = fit_pca(data, 8, 6).projection()
    assert autoencoder.encoder.linear is not None
    assert torch.allclose(autoencoder.encoder.linear.weight[:, :, 0, 0], weight, rtol=2e-3, atol=1e-4)
    assert torch.allclose(autoencoder.encoder.linear.bias, bias, rtol=2e-3, atol=1e-4)  # type: ignore[arg-type]
    path = run_training(linear_lab.request("ms-diffusion-cascade"), silent, None)
    decoder = build_decoder("ms-diffusion-cascade", DecoderOptions(checkpoint=path, steps=3))
    latents = decoder.encode(to_float(data))
    weight, bias = fit_linear_map(latents, data, 8)
    expected = F.pixel_shuffle(torch.einsum("dc,bchw->bdhw", weight, latents) + bias[:, None, None], 8)
    decoded = decoder.decode(latents, SampleNoise.for_samples(0, [str(i) for i in range(len(data))]))
    assert torch.allclose(decoded, expected, atol=0.02)  # weights of the checkpoint are fp16
    error = (decoded - to_float(data)).square().mean()
    assert error < 1.01 * (cells(data, 8) - F.pixel_unshuffle(expected, 8)).square().mean()


@pytest.mark.parametrize(("name", "field"), [("vae", "linear"), ("direct", "stem")])
def test_fields_at_their_former_value_are_no_part_of_the_recipe(
    lab: Lab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    field: str,
) -> None:
    """Checkpoints from before there was a linear path, or a choice of stem, stay repetitions of those of today."""
    run_training(lab.request("vae"), silent, None)

    def digest() -> str:
        request = lab.request(name)
        planned = build_module.plan(request)
        return recipe_sha256(request, planned, build_module.networks(request, planned), data)

    data = load_training_images(lab.request("vae").data)
    today = digest()
    fields = train_module.asdict
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "asdict", lambda one: {k: v for k, v in fields(one).items() if k != field})
        assert digest() == today
    other = SizePreset(replace(TINY.autoencoder, linear=True), replace(TINY.denoiser, stem=1))
    monkeypatch.setattr(build_module, "size_preset", lambda name: other)
    assert digest() != today


def test_a_student_keeps_its_teachers_linear_path(linear_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run_training(linear_lab.request("vae"), silent, None)
    teacher = run_training(linear_lab.request("diffusion"), silent, None)
    monkeypatch.setattr(build_module, "fit_linear_map", lambda *_: pytest.fail("fitted again"))
    student = run_training(replace(linear_lab.request("onestep"), teacher=teacher), silent, None)
    before, after = load_denoiser(teacher)[0].state_dict(), load_denoiser(student)[0].state_dict()
    assert torch.equal(before["linear.weight"], after["linear.weight"])


def test_a_resumed_run_goes_on_from_its_state(linear_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    request = linear_lab.request("vae", steps=3)
    begun = run_training(replace(request, config=replace(request.config, stop_after=1)), silent, None)
    before = load_autoencoder(begun)[0].state_dict()
    monkeypatch.setattr(build_module, "fit_pca", lambda *_: pytest.fail("fitted again"))
    after = load_autoencoder(run_training(replace(request, resume=True), silent, None))[0].state_dict()
    assert torch.equal(before["encoder.linear.weight"], after["encoder.linear.weight"])


def test_velocity_prediction_beside_it_is_refused_before_anything_is_read(linear_lab: Lab) -> None:
    run_training(linear_lab.request("vae"), silent, None)
    request = replace(linear_lab.request("diffusion"), settings=("denoiser.prediction=velocity",))
    with pytest.raises(MsbenchError, match=r"these settings make no network .*prediction must be image"):
        run_training(request, silent, None)
