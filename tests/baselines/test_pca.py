"""`pca`: fitted, written, read and shipped; what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from baselines import pca as pca_module
from baselines.pca import FORMAT, SHIPPED, pca, read_pca, write_pca
from harness.cells import fit_pca
from harness.cli import app
from harness.decoder import Decoder, DecoderOptions
from harness.errors import MsbenchError
from harness.files import sha256_file
from harness.noise import SampleNoise
from harness.registry import build_decoder

NOISE = SampleNoise.for_samples(0, ["a", "b"])
FACTS = {"trained_on": "two ramps"}


@pytest.fixture
def images() -> Tensor:
    """uint8 [8, 3, 32, 48]."""
    coarse = torch.rand((8, 3, 6, 8), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(32, 48), mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)


def to_float(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1.0


def test_write_read_decode(images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "any.safetensors"
    write_pca(path, images, 8, 5, FACTS)
    found, down_factor, trained_on = read_pca(path)
    expected = fit_pca(images, 8, 5)
    assert (down_factor, trained_on) == (8, "two ramps")
    assert all(torch.equal(getattr(found, name), getattr(expected, name)) for name in ("mean", "components", "std"))
    decoder = build_decoder("pca", DecoderOptions(checkpoint=path))
    assert isinstance(decoder, Decoder)
    spec = decoder.spec
    assert (spec.down_factor, spec.latent_channels, spec.parameters, spec.steps) == (8, 5, 5 * 192 + 192, 1)
    assert spec.weights_sha256 == spec.encoder_sha256 == sha256_file(path)
    latents = decoder.encode(to_float(images[:2]))
    assert latents.shape == (2, 5, 4, 6)
    cells = torch.nn.functional.pixel_unshuffle(to_float(images[:2]), 8).movedim(1, -1) - expected.mean
    projected = cells @ expected.components.T @ expected.components + expected.mean
    decoded = torch.nn.functional.pixel_unshuffle(decoder.decode(latents, NOISE), 8).movedim(1, -1)
    assert torch.allclose(decoded, projected, atol=1e-5)


def test_all_components_give_the_image_back(images: Tensor, tmp_path: Path) -> None:
    write_pca(tmp_path / "all.safetensors", images, 2, 12, FACTS)
    decoder = pca(DecoderOptions(name="pca", checkpoint=tmp_path / "all.safetensors"))
    assert torch.allclose(decoder.decode(decoder.encode(to_float(images)), NOISE), to_float(images), atol=1e-3)


@pytest.mark.parametrize(("name", "channels"), [("pca-f8c4", 4), ("pca-f8c16", 16)])
def test_shipped_files_are_those_of_their_cards(name: str, channels: int) -> None:
    decoder = build_decoder(name, DecoderOptions())
    card = json.loads((SHIPPED / f"{name}.json").read_text())
    assert card["sha256"] == decoder.spec.weights_sha256
    assert card["trained_on"] == decoder.spec.trained_on
    assert card["trained_on"].startswith("imagenette train (9103 images")
    assert (decoder.spec.down_factor, decoder.spec.latent_channels) == (8, channels)
    components = read_pca(SHIPPED / f"{name}.safetensors")[0].components
    assert torch.allclose(components @ components.T, torch.eye(channels), atol=1e-5)


def test_options_without_a_meaning_are_refused(tmp_path: Path) -> None:
    for name, options, words in (
        ("pca", DecoderOptions(), "needs --checkpoint FILE"),
        ("pca-f8c4", DecoderOptions(checkpoint=tmp_path / "x"), "use `pca` for those of"),
        ("pca-f8c4", DecoderOptions(steps=2), "no steps"),
        ("pca-f8c4", DecoderOptions(weights="random"), "nothing to draw at random"),
    ):
        with pytest.raises(MsbenchError, match=words):
            build_decoder(name, options)
    with pytest.raises(MsbenchError, match="multiples of 8"):
        build_decoder("pca-f8c4", DecoderOptions()).encode(torch.zeros(1, 3, 20, 16))


def test_files_that_are_none_are_named(images: Tensor, tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    write_pca(good, images, 4, 3, FACTS)
    tensors = load_file(good)
    faulty = {
        "short mean": {**tensors, "mean": tensors["mean"][1:].clone()},
        "oblong": {**tensors, "mean": tensors["mean"][:-3].clone(), "components": tensors["components"][:, :-3].clone()},
        "not finite": {**tensors, "std": tensors["std"] * float("nan")},
        "flat": {**tensors, "components": tensors["components"].flatten()},
    }
    for name, content in faulty.items():
        save_file(content, tmp_path / name, {FORMAT: "x"})
        with pytest.raises(MsbenchError, match="is damaged"):
            read_pca(tmp_path / name)
    save_file({"mean": tensors["mean"]}, tmp_path / "half", {FORMAT: "x"})
    save_file(tensors, tmp_path / "foreign")
    (tmp_path / "text").write_text("no tensors")
    for name in ("half", "foreign", "text", "absent"):
        with pytest.raises(MsbenchError, match="is no file of principal components") as caught:
            read_pca(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seventeen small pictures."""
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for index in range(17):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / "pictures" / f"{index:02}.png")
    return tmp_path / "pictures"


def test_one_command_fits_any_rate_and_gives_the_same_file_twice(folder: Path, tmp_path: Path) -> None:
    words = f"train-decoder pca-f16c7 --dataset folder:{folder} --resolution 64 --offline --output-dir".split()
    first, second = (CliRunner().invoke(app, [*words, str(tmp_path / name)]) for name in ("one", "two"))
    assert (first.exit_code, second.exit_code) == (0, 0), first.output
    paths = [tmp_path / name / "pca-f16c7.safetensors" for name in ("one", "two")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    card = json.loads(paths[0].with_suffix(".json").read_text())
    assert (card["sha256"], card["fitted_images"], len(card["std"])) == (sha256_file(paths[0]), 17, 7)
    assert "17 images, 64 px" in build_decoder("pca", DecoderOptions(checkpoint=paths[0])).spec.trained_on
    again = CliRunner().invoke(app, [*words, str(tmp_path / "one")])
    assert again.exit_code == 2
    assert "is there already" in again.stderr


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("pca", "say which rate to fit"),
        ("pca-f8c0", "say which rate to fit"),
        ("pca-f8c16 --max-minutes 3", "--max-minutes has no meaning for pca-f8c16"),
        ("pca-f8c16 --set loss.l1=1", "--settings has no meaning for pca-f8c16"),
        ("pca-f2c13", "have 12 values: 13 components"),
        ("pca-f128c4", "cells of 128 px a side are too large to fit"),
    ],
)
def test_the_command_refuses_in_one_line(folder: Path, tmp_path: Path, words: str, answer: str) -> None:
    output = tmp_path / "new"
    place = ["--dataset", f"folder:{folder}", "--resolution", "64", "--offline", "--output-dir", str(output)]
    result = CliRunner().invoke(app, ["train-decoder", *words.split(), *place])
    assert result.exit_code == 2
    assert answer in result.stderr
    assert not output.exists()


def test_a_failed_write_leaves_nothing(images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pca_module, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_pca(tmp_path / "new" / "x.safetensors", images, 8, 2, FACTS)
    assert not (tmp_path / "new").exists()
