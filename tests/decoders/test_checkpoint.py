"""Checkpoints: what is written comes back, what is not one of ours is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from decoders import checkpoint
from decoders.autoencoder import Autoencoder
from decoders.checkpoint import (
    FORMAT,
    Manifest,
    lineage_of,
    load_autoencoder,
    load_denoiser,
    read_checkpoint,
    save_checkpoint,
    shipped_path,
)
from decoders.denoiser import Denoiser
from decoders.models import build
from harness.decoder import DecoderOptions
from harness.errors import MsbenchError
from harness.files import sha256_file

MakeDenoiser = Callable[[int], Denoiser]


def manifest_of(network: Denoiser) -> Manifest:
    return Manifest("ms-onestep", "denoiser", asdict(network.config), "synthetic", "e" * 64, "cascade")


def plain(manifest: Manifest) -> object:
    """As JSON says it: tuples are lists."""
    return json.loads(json.dumps(asdict(manifest)))


@pytest.fixture
def saved(tmp_path: Path, tiny_denoiser: MakeDenoiser) -> Path:
    path = tmp_path / "ms-onestep.safetensors"
    network = tiny_denoiser(3)
    assert save_checkpoint(path, network, manifest_of(network)) == sha256_file(path)
    return path


def test_a_denoiser_comes_back_in_fp16_precision(saved: Path, tiny_denoiser: MakeDenoiser) -> None:
    original = tiny_denoiser(3)
    random_state = torch.get_rng_state()
    loaded, manifest = load_denoiser(saved)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert plain(manifest) == plain(manifest_of(original))
    assert loaded.config == original.config
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    for name, value in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name
    with safe_open(saved, framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    # Half the bytes of fp32, and little else.
    parameters = sum(p.numel() for p in original.parameters())
    assert 2 * parameters < saved.stat().st_size < 2 * parameters + 20_000


def test_an_autoencoder_comes_back_with_its_statistics(tmp_path: Path, tiny_autoencoder: Autoencoder) -> None:
    tiny_autoencoder.latent_mean.fill_(0.25)
    tiny_autoencoder.latent_std.fill_(1.5)
    manifest = Manifest("vae", "autoencoder", asdict(tiny_autoencoder.config), "synthetic", None)
    save_checkpoint(tmp_path / "vae.safetensors", tiny_autoencoder, manifest)
    loaded, read = load_autoencoder(tmp_path / "vae.safetensors")
    assert plain(read) == plain(manifest)
    assert loaded.config == tiny_autoencoder.config
    assert loaded.latent_mean.flatten().tolist() == [0.25] * 4
    images = torch.rand((2, 3, 32, 32))
    assert torch.allclose(loaded.encode(images), tiny_autoencoder.encode(images), atol=0.02)


def test_the_same_weights_give_the_same_file(saved: Path, tmp_path: Path, tiny_denoiser: MakeDenoiser) -> None:
    network = tiny_denoiser(3)
    for index in range(4):  # the library's own order of the metadata is random
        assert save_checkpoint(tmp_path / f"{index}.safetensors", network, manifest_of(network)) == sha256_file(saved)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(MsbenchError, match=r"no checkpoint at .*train-decoder"):
            read_checkpoint(path)


def damage_text(path: Path) -> None:
    path.write_text("not safetensors at all")


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_foreign(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def damage_other_format(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path, {"format": "pt"})


def damage_no_manifest(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path, {"format": FORMAT})


def damage_manifest_json(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path, {"format": FORMAT, "manifest": "{"})


def damage_manifest_fields(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path, {"format": FORMAT, "manifest": json.dumps({"colour": "red"})})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_text, "not a readable safetensors"),
        (damage_empty, "not a readable safetensors"),
        (damage_truncate, "not a readable safetensors"),
        (damage_foreign, "not written by msbench"),
        (damage_other_format, "not written by msbench"),
        (damage_no_manifest, "manifest"),
        (damage_manifest_json, "manifest"),
        (damage_manifest_fields, "manifest"),
    ],
)
def test_what_is_not_a_checkpoint_is_named(saved: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(saved)
    with pytest.raises(MsbenchError, match=words) as error:
        load_denoiser(saved)
    assert str(saved) in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config.widths": [8, 16, 24]}, "do not fit the architecture"),
        ({"config.colour": 1}, "colour"),
        ({"config.widths": 3}, "widths: input should be a valid array"),
        ({"config.widths": [10**9]}, "widths.0"),
        ({"config.widths": [1] * 300_000}, "widths: tuple should have at most 16 items"),
        ({"config.depths": [1] * 17}, "depths: tuple should have at most 16 items"),
        ({"latents": {"encoder": "x", "mean": [0.0] * 16_385, "std": [1.0]}}, "latents.mean: tuple should have at most 16384"),
        ({"config.scales": "three"}, "scales"),
        ({"config.scales": 0}, "scales"),
        ({"config.down_factor": 0}, "down_factor"),
        ({"config.down_factor": 24}, "do not fit the architecture"),
        ({"config.patch": -8}, "patch"),
        ({"config.patch": 4.5}, "patch"),
        ({"config.patch": "4"}, "patch: input should be a valid integer, got '4'"),
        ({"config.prediction": "zzz"}, "prediction: input should be 'image' or 'velocity', got 'zzz'"),
        ({"flow": "zzz"}, "flow: input should be 'cascade'"),
        ({"kind": 3}, "kind"),
        ({"config": None}, "config"),
        ({"config": "abc"}, "config"),
        ({"trained_on": None}, "trained_on"),
        ({"trained_on": 5}, "trained_on"),
        ({"encoder_sha256": 5}, "encoder_sha256"),
        ({"training_seed": "abc"}, "training_seed"),
        ({"zzz": 1}, "zzz"),
    ],
)
def test_a_manifest_with_wrong_values_is_one_line_that_names_them(saved: Path, change: dict[str, object], words: str) -> None:
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    manifest = json.loads(metadata["manifest"])
    for name, value in change.items():
        group, _, field = name.rpartition(".")
        (manifest[group] if group else manifest)[field] = value
    save_file(tensors, saved, metadata | {"manifest": json.dumps(manifest)})
    with pytest.raises(MsbenchError, match=words) as error:
        load_denoiser(saved)
    assert "\n" not in str(error.value)
    assert str(saved) in str(error.value)


@pytest.mark.parametrize(
    "value", [torch.full((3,), torch.nan), torch.tensor([0.0, torch.inf]), torch.ones(3, dtype=torch.int8)]
)
def test_weights_that_are_no_finite_numbers_are_refused(saved: Path, value: torch.Tensor) -> None:
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    save_file({"head.bias": value}, saved, metadata)
    with pytest.raises(MsbenchError, match=r"head\.bias has values that are not finite floating-point numbers"):
        load_denoiser(saved)


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_weights_that_fp16_cannot_hold_are_not_written(saved: Path, tiny_denoiser: MakeDenoiser, value: float) -> None:
    before, network = saved.read_bytes(), tiny_denoiser(3)
    network.head.bias.data[1] = value
    with pytest.raises(MsbenchError, match=r"is not written: head\.bias is not finite in fp16"):
        save_checkpoint(saved, network, manifest_of(network))
    assert saved.read_bytes() == before


def test_the_kind_is_checked(saved: Path) -> None:
    with pytest.raises(MsbenchError, match=r"holds the denoiser of 'ms-onestep', an autoencoder is needed"):
        load_autoencoder(saved)


def test_writing_is_atomic(saved: Path, tiny_denoiser: MakeDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def fail(path: Path, data: bytes) -> None:
        with path.open("wb") as stream:
            stream.write(data[:100])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    network = tiny_denoiser(3)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(saved, network, manifest_of(network))
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_shipped_weights_lie_in_the_package() -> None:
    assert shipped_path("ms-onestep") == Path(checkpoint.__file__).parent / "checkpoints" / "ms-onestep.safetensors"


@pytest.mark.parametrize(("student", "teacher"), [("ms-onestep", "ms-diffusion"), ("onestep", "diffusion"), ("vae", None)])
def test_the_card_says_what_a_student_was_distilled_from(student: str, teacher: str | None) -> None:
    path = shipped_path(student)
    found = lineage_of(path, sha256_file(path))
    assert found.get("teacher_sha256") == (sha256_file(shipped_path(teacher)) if teacher else None)
    assert found["training_pflops"] > 0
    assert ("objective" in found) == (teacher is not None)


@pytest.mark.parametrize(
    "card", [None, "[]", "{", '{"sha256": "other", "teacher_sha256": "t"}', '{"sha256": "s", "teacher_sha256": 5}']
)
def test_a_card_of_another_file_says_nothing_of_the_teacher(tmp_path: Path, card: str | None) -> None:
    if card is not None:
        (tmp_path / "x.json").write_text(card)
    assert "teacher_sha256" not in lineage_of(tmp_path / "x.safetensors", "s")


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ({}, {"start_pflops": 0.0}),
        (
            {"objective": {"objective": "paired", "l1": 1.0}, "throughput": {"training_pflops": 0.2}},
            {"objective": "paired", "training_pflops": 0.2, "start_pflops": 0.0},
        ),
        ({"teacher_sha256": "t", "start_pflops": 0.4}, {"teacher_sha256": "t", "start_pflops": 0.4}),
        ({"start_sha256": "t"}, {}),
        ({"start_sha256": "t", "start_pflops": None, "throughput": None, "objective": "x"}, {}),
        ({"throughput": {"training_pflops": "much"}, "objective": {"objective": 3}}, {"start_pflops": 0.0}),
    ],
)
def test_a_card_says_what_a_training_took_and_what_it_started_from(
    tmp_path: Path, card: dict[str, object], expected: dict[str, object]
) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"sha256": "s", **card}))
    assert lineage_of(tmp_path / "x.safetensors", "s") == expected


def test_a_decoder_s_spec_says_how_it_was_trained() -> None:
    spec = build(DecoderOptions(name="ms-onestep")).spec
    assert (spec.flow, spec.objective) == ("pyramid", "paired")
    assert spec.training_pflops == pytest.approx(0.15, rel=0.01)
