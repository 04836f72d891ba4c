"""Whole training runs, with tiny networks: from a folder of pictures to checkpoints that decode."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from decoders.autoencoder import Autoencoder, AutoencoderConfig
from decoders.checkpoint import load_autoencoder, load_denoiser
from decoders.denoiser import DenoiserConfig
from decoders.latents import own_encoder
from decoders.presets import SizePreset
from decoders.training import build as build_module
from decoders.training import train as train_module
from decoders.training.config import TrainConfig
from decoders.training.data import TrainingImages, cut, encode_cached, gather, load_training_images
from decoders.training.request import TrainRequest
from decoders.training.train import run_training
from harness.data.types import Request
from harness.decoder import DecoderOptions
from harness.errors import MsbenchError, UnknownNameError
from harness.files import sha256_file
from harness.noise import SampleNoise
from harness.registry import build_decoder

TINY = SizePreset(
    AutoencoderConfig(encoder_widths=(8, 8), encoder_depths=(1, 1), decoder_widths=(8, 8), decoder_depths=(1, 1)),
    DenoiserConfig(widths=(8, 16, 16), depths=(1, 1, 1), embedding=16, latent_width=8),
)


class StubLpips(torch.nn.Module):
    """In place of the LPIPS network."""

    @classmethod
    def load(cls, net: str, device: object, offline: bool) -> StubLpips:
        return cls()

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        return (estimate - target).square().mean(dim=(1, 2, 3))


def write_pictures(folder: Path, count: int, prefix: str = "picture", seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{prefix}-{index:02}.png")


@dataclass(frozen=True)
class Lab:
    """A folder of pictures and where runs go."""

    pictures: Path
    output: Path

    def request(self, decoder: str, steps: int = 2) -> TrainRequest:
        data = Request(f"folder:{self.pictures}", None, 64, None, 0, False, "train", True)
        config = TrainConfig(max_steps=steps, warmup=1, precision="fp32", log_every=1)
        vae = None if decoder == "vae" else self.output / "vae" / "vae.safetensors"
        return TrainRequest(decoder, data, self.output / decoder, config=config, vae=vae)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("MSBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(train_module, "Lpips", StubLpips)
    monkeypatch.setattr(build_module, "size_preset", lambda name: TINY)
    write_pictures(tmp_path / "pictures", 17)
    return Lab(tmp_path / "pictures", tmp_path / "runs")


def silent(text: str) -> None:
    assert "\n" not in text


def refused(text: str) -> None:
    raise AssertionError(f"a stage began: {text}")


def test_from_pictures_to_a_one_step_decoder(lab: Lab) -> None:
    vae = run_training(lab.request("vae"), silent, None)
    autoencoder, _ = load_autoencoder(vae)
    assert not torch.equal(autoencoder.latent_std, torch.ones(1, 4, 1, 1))
    teacher = run_training(lab.request("ms-diffusion"), silent, None)
    steps: list[int] = []
    student = run_training(
        replace(lab.request("ms-onestep", steps=3), teacher=teacher), silent, lambda step, loss, progress: steps.append(step)
    )
    assert steps == [1, 2, 3]
    card = json.loads((lab.output / "ms-onestep" / "ms-onestep.json").read_text())
    assert card["sha256"] == sha256_file(student)
    assert card["encoder_sha256"] == sha256_file(vae)
    assert card["teacher_sha256"] == sha256_file(teacher)
    took = json.loads((lab.output / "ms-diffusion" / "ms-diffusion.json").read_text())["throughput"]
    assert card["start_pflops"] == took["training_pflops"] > 0.0
    assert (card["steps"], card["finished"], card["flow"]) == (3, True, "pyramid")
    assert card["data"]["images"] == 17
    assert card["loss_curves"]["step"] == [1, 2, 3]
    assert (lab.output / "ms-onestep" / "ms-onestep.md").is_file()
    with Image.open(lab.output / "ms-onestep" / "ms-onestep.png") as sheet:
        assert sheet.width > 2 * 64
        assert sheet.height > 6 * 64
    decoder = build_decoder("ms-onestep", DecoderOptions(checkpoint=student))
    assert "17 images, 64 px" in decoder.spec.trained_on
    images = decoder.decode(decoder.encode(torch.zeros(1, 3, 64, 64)), SampleNoise.for_samples(0, ["a"]))
    assert images.shape == (1, 3, 64, 64)
    assert images.isfinite().all()


def test_an_encoder_from_elsewhere_is_kept_beside_the_checkpoint(lab: Lab) -> None:
    vae = run_training(lab.request("vae"), silent, None)
    path = run_training(lab.request("direct"), silent, None)
    assert sha256_file(path.parent / "vae.safetensors") == sha256_file(vae)
    vae.unlink()
    assert build_decoder("direct", DecoderOptions(checkpoint=path)).spec.encoder_sha256 == sha256_file(
        path.parent / "vae.safetensors"
    )


def test_the_student_begins_as_its_teacher(lab: Lab) -> None:
    run_training(lab.request("vae"), silent, None)
    teacher = run_training(lab.request("diffusion"), silent, None)
    request = replace(lab.request("onestep", steps=1), teacher=teacher)
    request = replace(request, config=replace(request.config, learning_rate=0.0))
    student = run_training(request, silent, None)
    before, after = load_denoiser(teacher)[0].state_dict(), load_denoiser(student)[0].state_dict()
    assert all(torch.equal(before[name], value) for name, value in after.items())


def test_direct_trains_without_teacher(lab: Lab) -> None:
    run_training(lab.request("vae"), silent, None)
    path = run_training(lab.request("direct"), silent, None)
    assert load_denoiser(path)[1].flow == "noise-free"


def test_an_earlier_step_is_kept_as_a_second_checkpoint(lab: Lab) -> None:
    run_training(lab.request("vae"), silent, None)
    request = lab.request("diffusion", steps=4)
    path = run_training(replace(request, config=replace(request.config, snapshot=0.5)), silent, None)
    earlier, last = (load_denoiser(file) for file in (path.with_stem("diffusion-snapshot"), path))
    assert earlier[1] == last[1]
    assert not torch.equal(earlier[0].head.weight, last[0].head.weight)


def test_controls_without_teacher(lab: Lab) -> None:
    run_training(lab.request("vae"), silent, None)
    run_training(lab.request("ms-direct"), silent, None)
    run_training(lab.request("rate-bound"), silent, None)
    cards = {name: json.loads((lab.output / name / f"{name}.json").read_text()) for name in ("ms-direct", "rate-bound")}
    assert {name: card["flow"] for name, card in cards.items()} == {"ms-direct": "noise-free", "rate-bound": "noise-free"}
    assert set(cards["ms-direct"]["loss_curves"]) >= {"l1_0", "l1_2", "lpips"}
    assert "mse_0" in cards["rate-bound"]["loss_curves"]
    assert not any(name.startswith(("l1", "lpips")) for name in cards["rate-bound"]["loss_curves"])


def test_a_tuned_autoencoder_keeps_its_encoder_and_its_latents(lab: Lab) -> None:
    vae = run_training(lab.request("vae"), silent, None)
    tuned = run_training(lab.request("vae-ft"), silent, None)
    before, after = load_autoencoder(vae)[0].state_dict(), load_autoencoder(tuned)[0].state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed
    assert all(name.startswith("decoder.") for name in changed)
    first = build_decoder("vae", DecoderOptions(checkpoint=vae)).spec
    second = build_decoder("vae-ft", DecoderOptions(checkpoint=tuned)).spec
    assert first.weights_sha256 != second.weights_sha256
    assert first.encoder_sha256 == second.encoder_sha256 == sha256_file(vae)


def test_settings_and_scales_reach_networks_objective_and_card(lab: Lab) -> None:
    run_training(lab.request("vae"), silent, None)
    settings = ("denoiser.width=24", "loss.time_floor=0.05", "train.beta2=0.95", "perceptual.share=0.5")
    request = replace(lab.request("ms-diffusion"), settings=settings, scales=2)
    path = run_training(request, silent, None)
    network, manifest = load_denoiser(path)
    assert (network.config.widths, network.config.scales, manifest.flow) == ((24, 24, 24), 2, "pyramid")
    card = json.loads((lab.output / "ms-diffusion" / "ms-diffusion.json").read_text())
    assert (card["architecture"]["widths"], card["objective"]["time_floor"]) == ([24, 24, 24], 0.05)
    assert (card["optimiser"]["beta2"], card["perceptual"]["share"]) == (0.95, 0.5)
    other = run_training(replace(request, settings=settings[1:], output=lab.output / "other"), silent, None)
    assert load_denoiser(other)[1].recipe_sha256 != manifest.recipe_sha256


@pytest.mark.parametrize("name", ["paired", "direct", "paired+direct"])
def test_every_distillation_trains_and_decodes(lab: Lab, name: str) -> None:
    run_training(lab.request("vae"), silent, None)
    teacher = run_training(lab.request("ms-diffusion"), silent, None)
    request = replace(lab.request("ms-onestep"), teacher=teacher, settings=(f"loss.objective={name}",))
    decoder = build_decoder("ms-onestep", DecoderOptions(checkpoint=run_training(request, silent, None)))
    assert decoder.decode(torch.zeros(1, 4, 8, 8), SampleNoise.for_samples(0, ["a"])).isfinite().all()
    card = json.loads((lab.output / "ms-onestep" / "ms-onestep.json").read_text())
    assert card["objective"]["objective"] == name


def test_divergence_leaves_no_checkpoint(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StubLpips, "__call__", lambda self, estimate, target: estimate.mean((1, 2, 3)) * float("nan"))
    with pytest.raises(MsbenchError, match="diverged at step 0"):
        run_training(replace(lab.request("vae"), settings=("loss.lpips_from=0",)), silent, None)
    assert not (lab.output / "vae").exists()


def test_bad_requests_are_refused_before_anything_is_read(lab: Lab) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'ms-onestep'"):
        run_training(replace(lab.request("vae"), decoder="ms-onestp"), silent, None)
    with pytest.raises(MsbenchError, match="needs a budget"):
        run_training(replace(lab.request("vae"), config=TrainConfig()), silent, None)
    with pytest.raises(MsbenchError, match="no checkpoint at"):
        run_training(lab.request("diffusion"), refused, None)
    for decoder, setting, words in (
        ("diffusion", "denoiser.widhts=8", "Did you mean 'widths'"),
        ("diffusion", "autoencoder.patch=8", "unknown group of settings"),
        ("diffusion", "loss.teacher_steps=4", "unknown field of loss"),
        ("vae", "loss.batch=many", "should be a valid integer"),
        ("vae", "width=8", "expected group.field=value"),
        ("diffusion", "denoiser.latent_channels=8", "it follows from the latents"),
        ("diffusion", "denoiser.scales=2", "it follows from --scales"),
    ):
        with pytest.raises(MsbenchError, match=words):
            run_training(replace(lab.request(decoder), settings=(setting,)), refused, None)
    with pytest.raises(MsbenchError, match="--scales 2 has no meaning for vae"):
        run_training(replace(lab.request("vae"), scales=2), refused, None)
    with pytest.raises(MsbenchError, match=r"denoiser\.scales=0"):
        run_training(replace(lab.request("diffusion"), scales=0), refused, None)
    assert not lab.output.exists()


def test_another_encoder_or_teacher_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run_training(lab.request("vae"), silent, None)
    teacher = run_training(lab.request("diffusion"), silent, None)
    with pytest.raises(MsbenchError, match="another architecture than preset"):
        run_training(replace(lab.request("ms-onestep"), teacher=teacher), silent, None)
    other_flow = run_training(lab.request("ms-diffusion-cascade"), silent, None)
    with pytest.raises(MsbenchError, match=r"teacher .* follows the cascade flow; ms-onestep needs pyramid"):
        run_training(replace(lab.request("ms-onestep"), teacher=other_flow), silent, None)
    no_teacher = run_training(lab.request("direct"), silent, None)
    with pytest.raises(MsbenchError, match=r"teacher .* is a direct, which takes no steps: give one as diffusion"):
        run_training(replace(lab.request("onestep"), teacher=no_teacher), silent, None)
    # A second encoder in another folder: the teacher's latents are not its.
    other = replace(lab.request("vae", steps=3), output=lab.output / "other")
    vae = run_training(other, silent, None)
    with pytest.raises(MsbenchError, match="another encoder's latents"):
        run_training(replace(lab.request("onestep"), teacher=teacher, vae=vae), silent, None)
    wide = replace(TINY, autoencoder=replace(TINY.autoencoder, latent_channels=8))
    monkeypatch.setattr(build_module, "size_preset", lambda name: wide)
    with pytest.raises(MsbenchError, match="gives f8c4 latents; preset 'nano' needs f8c8"):
        run_training(lab.request("ms-diffusion"), silent, None)
    monkeypatch.setattr(build_module, "size_preset", lambda name: TINY)
    with pytest.raises(MsbenchError, match="these settings make no network"):
        run_training(replace(lab.request("ms-diffusion"), settings=("denoiser.widths=8",)), silent, None)


def test_a_control_goes_on_from_other_weights(lab: Lab) -> None:
    """With a step too small to move a weight, what comes out is what went in; the recipe names it."""
    run_training(lab.request("vae"), silent, None)
    start = run_training(lab.request("rate-bound"), silent, None)
    still = replace(lab.request("direct"), start=start)
    still = replace(still, config=replace(still.config, learning_rate=1e-30, weight_decay=0.0))
    gone_on, _ = load_denoiser(run_training(still, silent, None))
    begun, _ = load_denoiser(start)
    for name, value in gone_on.state_dict().items():
        assert torch.allclose(value, begun.state_dict()[name], rtol=2e-3, atol=1e-6), name
    card = json.loads((lab.output / "direct" / "direct.json").read_text())
    assert card["start_sha256"] == sha256_file(start)
    assert "start sha256" in (lab.output / "direct" / "direct.md").read_text()
    fresh = run_training(replace(still, start=None, output=lab.output / "fresh"), silent, None)
    assert json.loads(fresh.with_suffix(".json").read_text())["recipe_sha256"] != card["recipe_sha256"]
    with pytest.raises(MsbenchError, match=r"start .* has another architecture"):
        run_training(replace(lab.request("ms-direct"), start=start), silent, None)
    for decoder in ("onestep", "vae-ft"):
        with pytest.raises(MsbenchError, match=r"--start-from .* has no meaning"):
            run_training(replace(lab.request(decoder), start=start), refused, None)


def test_validation_images_are_never_trained_on(lab: Lab) -> None:
    write_pictures(lab.pictures / "class", 3, prefix="ILSVRC2012_val_000000", seed=1)
    data = load_training_images(lab.request("vae").data)
    assert len(data.images) == 17
    for path in lab.pictures.glob("picture-0[0-4].png"):
        path.unlink()
    with pytest.raises(MsbenchError, match="12 usable images, training needs at least 16"):
        load_training_images(lab.request("vae").data)


def test_latents_are_encoded_once(lab: Lab, pictures: TrainingImages, tiny_autoencoder: Autoencoder) -> None:
    lines: list[str] = []
    cpu = torch.device("cpu")
    one, other = (own_encoder(tiny_autoencoder, letter * 64) for letter in "ab")
    first = encode_cached(pictures, one, cpu, lines.append)
    second = encode_cached(pictures, one, cpu, lines.append)
    assert len(lines) == 1
    assert first.latents is not None
    assert second.latents is not None
    assert torch.equal(first.latents, second.latents)
    assert torch.equal(first.latents, pictures.with_latents(tiny_autoencoder.encode, 8).latents)  # type: ignore[arg-type]
    encode_cached(pictures, other, cpu, lines.append)
    encode_cached(replace(pictures, sha256="1" * 64), one, cpu, lines.append)
    encode_cached(pictures, replace(one, name="one@posterior=sample"), cpu, lines.append)
    assert len(lines) == 4


def test_one_gather_cuts_what_windows_cut(pictures: TrainingImages) -> None:
    index, corners = [3, 0, 3, 15], [[0, 0], [5, 48], [48, 1], [7, 7]]
    assert torch.equal(gather(pictures.images, index, corners, 16), cut(pictures.images, index, corners, 16))


def test_pictures_do_not_come_from_the_tests_own_seed(lab: Lab, make_seeded: Callable[[int], str]) -> None:
    """The run's seed is the only source of randomness: the global state changes nothing."""
    assert make_seeded(1) == make_seeded(2)


@pytest.fixture
def make_seeded(lab: Lab) -> Callable[[int], str]:
    def make(global_seed: int) -> str:
        torch.manual_seed(global_seed)
        request = replace(lab.request("vae"), output=lab.output / str(global_seed))
        return sha256_file(run_training(request, silent, None))

    return make
