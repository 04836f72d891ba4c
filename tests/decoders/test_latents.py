"""Denoisers on anybody's latents: the encoder by its name, its statistics, and what is said where it is not found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from decoders.checkpoint import load_denoiser, save_checkpoint
from decoders.latents import FrozenEncoder, named_encoder
from decoders.training import build as build_module
from decoders.training.data import encode_cached, load_training_images, to_float
from decoders.training.train import run_training
from harness.cells import fit_linear_map
from harness.decoder import Decoder, DecoderOptions
from harness.errors import MsbenchError, UnknownNameError
from harness.files import sha256_file
from harness.noise import SampleNoise
from harness.registry import build_decoder
from harness.request.requests import parse_request
from tests.decoders.test_train import TINY, Lab, lab, refused, silent  # noqa: F401 (a fixture)

# f8 latents of 5 channels that are neither centred nor of one spread; its weights lie beside it.
MODEL = """import pathlib, torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(3, 5, 8, 8), nn.ConvTranspose2d(5, 3, 8, 8)
        self.load_state_dict(torch.load(pathlib.Path(__file__).parent / "weights.pt", weights_only=True))
    def encode(self, images): return self.encoder(images) * torch.tensor([1.0, 2, 3, 4, 50]).view(5, 1, 1) + 7
    def decode(self, latents): return self.decoder(latents).tanh()
"""


def write_model(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    layers = torch.nn.ModuleDict({"encoder": torch.nn.Conv2d(3, 5, 8, 8), "decoder": torch.nn.ConvTranspose2d(5, 3, 8, 8)})
    torch.save(layers.state_dict(), folder / "weights.pt")
    (folder / "mine.py").write_text(MODEL)
    return folder / "mine.py"


def train(lab: Lab, decoder: str, encoder: str, **changes: object) -> Path:  # noqa: F811
    return run_training(replace(lab.request(decoder), vae=None, encoder=encoder, **changes), silent, None)  # type: ignore[arg-type]


def built(name: str, path: Path, **own: str) -> Decoder:
    return build_decoder(name, DecoderOptions(checkpoint=path, own=own))


def pixels(lab: Lab) -> Tensor:  # noqa: F811
    return load_training_images(lab.request("direct").data).images


def test_a_denoiser_on_the_latents_of_a_file(lab: Lab, tmp_path: Path) -> None:  # noqa: F811
    model = write_model(tmp_path / "models")
    path = train(lab, "direct", f"{model}@trained_on=dreams")
    images = to_float(pixels(lab))
    latents = build_decoder(str(model), DecoderOptions()).encode(images)
    network, manifest = load_denoiser(path)
    assert (network.config.latent_channels, network.config.down_factor) == (5, 8)
    assert manifest.latents is not None
    assert manifest.latents.encoder == f"{model}@trained_on=dreams"
    rows = latents.movedim(1, 0).flatten(1).double()
    assert manifest.latents.mean == pytest.approx(rows.mean(dim=1).tolist(), rel=1e-5)
    assert manifest.latents.std == pytest.approx(rows.std(dim=1, unbiased=False).tolist(), rel=1e-5)
    card = json.loads(path.with_suffix(".json").read_text())
    assert (card["encoder"], card["encoder_sha256"]) == (manifest.latents.encoder, manifest.encoder_sha256)
    assert f"| latents of | `{manifest.latents.encoder}` |" in path.with_suffix(".md").read_text()
    assert not (path.parent / "vae.safetensors").exists()
    decoder = built("direct", path)
    assert torch.equal(decoder.encode(images), latents)  # those of the encoder itself: rows of one table share them
    assert decoder.spec.encoder_sha256 == manifest.encoder_sha256
    assert decoder.spec.trained_on.endswith("latents of mine@trained_on=dreams")
    normalised = (latents[:1] - torch.tensor(manifest.latents.mean).view(5, 1, 1)) / torch.tensor(manifest.latents.std).view(
        5, 1, 1
    )
    unnamed = tmp_path / "unnamed.safetensors"
    save_checkpoint(unnamed, network, replace(manifest, latents=replace(manifest.latents, mean=(0.0,) * 5, std=(1.0,) * 5)))
    noise = SampleNoise.for_samples(0, ["a"])
    assert torch.allclose(decoder.decode(latents[:1], noise), built("direct", unnamed).decode(normalised, noise), atol=1e-5)


def test_training_sees_normalised_latents(lab: Lab, tmp_path: Path) -> None:  # noqa: F811
    request = replace(lab.request("direct"), vae=None, encoder=str(write_model(tmp_path / "models")))
    networks = build_module.networks(request, build_module.plan(request))
    data = build_module.encoded(networks, load_training_images(request.data), torch.device("cpu"), silent)
    _, latents = data.encoded_crops(400, 64, 8, torch.Generator().manual_seed(0), 8, torch.device("cpu"))
    rows = latents.movedim(1, 0).flatten(1)
    assert torch.allclose(rows.mean(dim=1), torch.zeros(5), atol=0.05)
    assert torch.allclose(rows.std(dim=1), torch.ones(5), atol=0.05)


def test_the_linear_start_maps_latents_as_they_are(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """With a step too small to move a weight, `direct` is the least-squares map."""
    linear = replace(TINY, denoiser=replace(TINY.denoiser, linear=True))
    monkeypatch.setattr(build_module, "size_preset", lambda name: linear)
    still = replace(lab.request("direct").config, learning_rate=1e-30, weight_decay=0.0)
    decoder = built("direct", train(lab, "direct", str(write_model(tmp_path / "models")), config=still))
    latents = decoder.encode(to_float(pixels(lab)))
    weight, bias = fit_linear_map(latents, pixels(lab), 8)
    expected = F.pixel_shuffle(F.conv2d(latents[:1], weight[:, :, None, None], bias), 8)
    assert torch.allclose(decoder.decode(latents[:1], SampleNoise.for_samples(0, ["a"])), expected, atol=5e-3)


def test_a_student_reads_latents_as_its_teacher_does(lab: Lab) -> None:  # noqa: F811
    teacher = train(lab, "diffusion", "pca-f8c4")
    for path in sorted(lab.pictures.iterdir())[:1]:
        path.unlink()
    student = load_denoiser(train(lab, "onestep", "pca-f8c4", teacher=teacher))[1]
    alone = load_denoiser(train(lab, "direct", "pca-f8c4"))[1]
    assert student.latents == load_denoiser(teacher)[1].latents
    assert alone.latents != student.latents
    run_training(lab.request("vae"), silent, None)
    with pytest.raises(MsbenchError, match=r"teacher .* was trained on another encoder's latents \(pca-f8c4\)"):
        run_training(replace(lab.request("onestep"), teacher=teacher, output=lab.output / "own"), silent, None)


def test_options_of_an_encoder_are_part_of_the_recipe(lab: Lab, tmp_path: Path) -> None:  # noqa: F811
    model = write_model(tmp_path / "models")
    recipes = [
        load_denoiser(train(lab, "direct", f"{model}@range={range_}", output=tmp_path / range_))[1].recipe_sha256
        for range_ in ("11", "01")
    ]
    assert recipes[0] != recipes[1]


@pytest.mark.parametrize(
    ("decoder", "encoder", "words"),
    [
        ("direct", "taef3", "unknown decoder 'taef3'"),
        ("direct", "taef2", "ships no weights"),
        ("direct", "pca-f8c4@quality=3", "unknown option of decoder pca-f8c4"),
        ("direct", "vae@weights=random", "encoder vae@weights=random gives no latents to train on"),
        ("direct", "jpeg", r"encoder jpeg gives no latents to train on"),
        ("vae", "pca-f8c4", "--encoder pca-f8c4 has no meaning for vae:"),
        ("vae-ft", "pca-f8c4", "--encoder pca-f8c4 has no meaning for vae-ft:"),
    ],
)
def test_an_encoder_that_cannot_serve_is_refused(lab: Lab, decoder: str, encoder: str, words: str) -> None:  # noqa: F811
    with pytest.raises((MsbenchError, UnknownNameError), match=words) as caught:
        run_training(replace(lab.request(decoder), vae=None, encoder=encoder), refused, None)
    assert "\n" not in str(caught.value)
    assert not lab.output.exists()


def test_a_factor_that_is_no_grid_of_the_preset_is_refused(lab: Lab, tmp_path: Path) -> None:  # noqa: F811
    text = "def encode(x): return x[..., ::{0}, ::{0}]\ndef decode(z): return z\n"
    for factor in (6, 32):
        (tmp_path / f"f{factor}.py").write_text(text.format(factor))
        request = replace(lab.request("direct"), vae=None, encoder=f"{tmp_path}/f{factor}.py@down_factor={factor}")
        with pytest.raises(MsbenchError, match=rf"is f{factor}; preset 'nano' has grids of \[4, 8, 16\] px"):
            run_training(request, refused, None)
    with pytest.raises(MsbenchError, match=r"--vae x has no meaning for direct with --encoder pca-f8c4"):
        run_training(replace(lab.request("direct"), vae=Path("x"), encoder="pca-f8c4"), refused, None)


def test_an_encoder_that_is_gone_or_another_is_one_line(lab: Lab, tmp_path: Path) -> None:  # noqa: F811
    model = write_model(tmp_path / "models")
    path = train(lab, "direct", str(model))
    moved = model.parent.rename(tmp_path / "elsewhere") / "mine.py"
    with pytest.raises(MsbenchError, match=r"needs the encoder of .*mine\.py \(.*no file.*\): say where by @encoder=PATH"):
        built("direct", path)
    assert built("direct", path, encoder=str(moved)).spec.latent_channels == 5
    write_model(moved.parent, seed=1)  # the same file with other weights beside it
    with pytest.raises(
        MsbenchError, match=r"needs the encoder of .* \(its sha256 is \w{64}, not \w{64}\): say where"
    ) as caught:
        built("direct", path, encoder=str(moved))
    assert "\n" not in str(caught.value)


def test_statistics_that_do_not_fit_are_damage(lab: Lab, tmp_path: Path) -> None:  # noqa: F811
    network, manifest = load_denoiser(train(lab, "direct", "pca-f8c4"))
    assert manifest.latents is not None
    save_checkpoint(tmp_path / "b.safetensors", network, replace(manifest, latents=replace(manifest.latents, std=(0.0,) * 4)))
    with pytest.raises(MsbenchError, match=r"its manifest cannot be read \(latents\.std\.0"):
        built("direct", tmp_path / "b.safetensors")


def test_the_autoencoder_of_ours_may_lie_elsewhere(lab: Lab, tmp_path: Path) -> None:  # noqa: F811
    vae = run_training(lab.request("vae"), silent, None)
    path = run_training(lab.request("direct"), silent, None)
    assert load_denoiser(path)[1].latents is None
    (path.parent / "vae.safetensors").unlink()
    with pytest.raises(MsbenchError, match="was trained on latents of an encoder with sha256"):
        built("direct", path)
    assert built("direct", path, encoder=str(vae)).spec.encoder_sha256 == sha256_file(vae)
    with pytest.raises(MsbenchError, match=r"none \(looked for .*nowhere\)"):
        built("direct", path, encoder=str(tmp_path / "nowhere"))
    with pytest.raises(MsbenchError, match="encoder=x goes with a checkpoint, not with random weights"):
        build_decoder("direct", DecoderOptions(weights="random", own={"encoder": "x"}))


def test_an_encoder_that_draws_leaves_the_runs_own_draws(lab: Lab) -> None:  # noqa: F811
    data = load_training_images(lab.request("direct").data)
    encoder = FrozenEncoder(lambda images: images[..., ::8, ::8] + torch.rand(1), 8, 3, "a" * 64, "draws")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    encode_cached(data, encoder, torch.device("cpu"), silent)
    assert torch.equal(torch.rand(3), expected)


def test_an_encoder_that_breaks_its_word_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.py").write_text("def encode(x): return x[..., ::8, ::8] if len(x) == 1 else x\ndef decode(z): return z\n")
    encoder = named_encoder(parse_request(f"{tmp_path}/m.py"), torch.device("cpu"), True)
    with pytest.raises(MsbenchError, match=r"gave latents \[2, 3, 64, 64\], wanted \[2, 3, 8, 8\]"):
        encoder.encode(torch.zeros(2, 3, 64, 64))
