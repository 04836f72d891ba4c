"""Anybody's model in a run: from a file, as an object of the calling program, or as two functions; nothing is installed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import msbench
from harness import registry
from harness.cli import app
from harness.decoder import Compilable, DecoderOptions, DecoderSpec
from harness.errors import MsbenchError
from harness.record.run import FEATURES, open_run
from harness.request.foreign import ForeignDecoder
from harness.run import runner
from harness.verify.verification import verify
from tests.harness.run.conftest import LightRun
from tests.harness.run.light import LightSuite

# What a user writes: twelve lines.
MODEL = """import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(3, 5, 8, 8), nn.ConvTranspose2d(5, 3, 8, 8)
        for layer in self.parameters():
            layer.data = torch.linspace(-0.3, 0.3, layer.numel()).view_as(layer)
    def encode(self, images): return self.encoder(images)
    def decode(self, latents): return self.decoder(latents).tanh()
"""
DECODER_PARAMETERS = 5 * 3 * 64 + 3


class Halves:
    """Exact in [-1, 1] and, told so, in [0, 1]: images are halved and doubled."""

    def encode(self, images: Tensor) -> Tensor:
        self.low = float(images.min())
        return images * 0.5

    def decode(self, latents: Tensor, noise: Any = None) -> Tensor:
        return latents * 2.0


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def build(path: Path | str, **options: Any) -> Any:
    return registry.build_decoder(str(path), DecoderOptions(**options))


def foreign(thing: object, **options: Any) -> ForeignDecoder:
    return ForeignDecoder(thing, DecoderOptions(name="mine", **options))


def test_a_file_stands_beside_other_decoders_in_one_run(light: LightRun, tmp_path: Path) -> None:
    path = write(tmp_path / "my_model.py", MODEL)
    record = light(f"{path},vae@dtype=bf16,vae,jpeg,two=vae")
    rows = {row["label"]: row for row in record.results}
    assert list(rows) == ["my_model", "vae@dtype=bf16", "vae", "jpeg", "two"]
    assert [row["decoder"] for row in record.results] == [str(path), "vae", "vae", "jpeg", "vae"]
    assert [row["options"] for row in record.results] == [{}, {"dtype": "bf16"}, {}, {}, {}]
    assert rows["two"]["psnr"] == rows["vae"]["psnr"] != rows["vae@dtype=bf16"]["psnr"]
    details = record.data.decoders["my_model"]
    assert details.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    spec = details.spec
    assert (spec.down_factor, spec.latent_channels, spec.steps, spec.scales) == (8, 5, 1, 1)
    assert (spec.parameters, spec.weights_sha256, spec.trained_on) == (DECODER_PARAMETERS, None, "unknown (my_model.py)")
    assert (record.folder / "sheet.png").is_file()
    assert verify(record.folder).disagreements == []
    # The file is what the row was measured of: another one is neither gone on with nor verified against.
    write(path, MODEL.replace("tanh", "sin"))
    checks = {check.number: check for check in verify(record.folder).checks if check.decoder == "my_model"}
    assert checks["parameters"].agrees is None
    assert "the file here is another one" in checks["parameters"].how


def test_a_run_is_not_gone_on_with_after_its_file_changed(
    light: LightRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "my_model.py", MODEL)
    monkeypatch.setattr("harness.run.journal.PART_IMAGES", 4)
    broken = write(tmp_path / "fails.py", f"{MODEL}\nimport sys\ncalls = [0]\n").read_text()
    stops = broken.replace("return self.decoder", "calls[0] += 1; return 1 / 0 if calls[0] > 5 else self.decoder")
    write(tmp_path / "fails.py", stops)
    with pytest.raises(MsbenchError, match="ZeroDivisionError"):
        light(f"{path},{tmp_path / 'fails.py'}")
    write(path, MODEL.replace("tanh", "sin"))
    with pytest.raises(MsbenchError, match=r"decoder my_model is another one now \(its spec, weights or file\)"):
        light(f"{path},{tmp_path / 'fails.py'}", resume=True)


def test_labels_never_become_paths(light: LightRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = ("../../x", "/etc/x", "reference", "a:b", "$\\frac", "shown:x")
    saved = tmp_path / "below" / "saved"
    record = light(",".join(f"{label}=identity" for label in labels), "below/run", save_images=saved)
    assert tuple(row["label"] for row in record.results) == labels
    assert {one.name for one in tmp_path.iterdir()} == {"images", "below"}
    assert {one.name for one in (tmp_path / "below").iterdir()} == {"run", "saved"}
    folders = [one for one in saved.iterdir() if one.is_dir()]
    assert len(folders) == 1 + len(labels)
    assert all(len(list(one.glob("*.png"))) == 10 for one in folders)
    assert open_run(record).features("../../x") is not None
    (record.folder / FEATURES).unlink()  # those of the light suite are nobody else's
    read: list[str] = []
    monkeypatch.setattr("harness.verify.images.pixel_checks", lambda group: read.append(group.result.label) or [])
    monkeypatch.setattr("harness.verify.images._latent_checks", lambda *_: [])
    monkeypatch.setattr("harness.verify.images.MOST_FOR_TORCH_FIDELITY", 0)
    verify(record.folder, saved)
    assert read == list(labels)  # none is missing


def test_a_run_without_a_folder_gets_one_of_a_harmless_name(
    light: LightRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert light("../x y=jpeg", output_dir=None).folder.parent.resolve() == (tmp_path / "runs").resolve()


def test_paths_with_blanks_colons_and_commas(light: LightRun, tmp_path: Path) -> None:
    path = write(tmp_path / "a b:c, d" / "my model,2.py", MODEL)
    record = light(f"{path},jpeg,it={path}:Model")
    assert [row["label"] for row in record.results] == ["my model,2", "jpeg", "it"]
    done = CliRunner().invoke(app, ["compare", f"{record.folder}:my model,2", f"{record.folder}:it", "--json"])
    assert done.exit_code == 0, done.output
    assert [row["label"] for row in json.loads(done.stdout)["results"]] == ["my model,2", "it"]


def test_run_and_label_are_split_where_a_run_ends(light: LightRun, tmp_path: Path) -> None:
    record = light("vae,b:c=vae,x=jpeg", "r:1")
    for text, labels in (
        (record.folder, ["vae", "b:c", "x"]),
        (f"{record.folder}:b:c", ["b:c"]),
        (f"{record.folder}:vae", ["vae"]),
    ):
        done = CliRunner().invoke(app, ["compare", str(text), "--json"])
        assert [row["label"] for row in json.loads(done.stdout)["results"]] == labels, done.output
    done = CliRunner().invoke(app, ["compare", f"{record.folder}:b"])
    assert (done.exit_code, "unknown decoder of" in done.stderr) == (2, True)
    done = CliRunner().invoke(app, ["compare", f"{tmp_path}/nothing:b"])
    assert (done.exit_code, "no run at" in done.stderr) == (2, True)


def test_range_01_is_the_same_model_in_other_units(light: LightRun, tmp_path: Path) -> None:
    whole = "class M:\n    def encode(self, x): return {}\n    def decode(self, z): return {}\n"
    signed = write(
        tmp_path / "signed.py", whole.format("x[..., ::2, ::2]", "z.repeat_interleave(2, 2).repeat_interleave(2, 3)")
    )
    unit = write(
        tmp_path / "unit.py",
        whole.format(
            "x[..., ::2, ::2] + 0 * (x.min() >= 0) + (0 if 0 <= x.min() <= x.max() <= 1 else 9)",
            "z.repeat_interleave(2, 2).repeat_interleave(2, 3)",
        ),
    )
    one, other = light(f"{signed},{unit}@range=01").results
    assert (other["label"], other["options"]) == ("unit@range=01", {"range": "01"})
    assert one["psnr"] == pytest.approx(other["psnr"], abs=1e-6)
    assert one["psnr"] < 40
    with pytest.raises(MsbenchError, match=r"range is 11 for images in \[-1, 1\] or 01 for \[0, 1\], not '255'"):
        light(f"{unit}@range=255", "other")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import torch\n\nraise KeyError('x\\ny')\n", r"m.py, line 3: importing it raised KeyError: 'x\\ny'"),
        ("import torch\n\ndef (:\n", r"m.py, line 3: importing it raised SyntaxError"),
        ("import no_such_package\n", r"m.py, line 1: importing it raised ModuleNotFoundError: .*no_such_package"),
        ("import sys\nsys.exit(0)\n", r"m.py, line 2: importing it raised SystemExit"),
        (
            "x = 1\n",
            r"m.py offers nothing with encode and decode; say which by .*m.py:NAME, or call it decoder or make or build",
        ),
        (f"{MODEL}\nclass Other(Model): pass\n", r"m.py offers several: Model, Other; say which by .*m.py:NAME"),
        (f"{MODEL}\nmake = Model\nbuild = Model\n", r"offers several: make, build"),
        ("def make():\n    return 1 / 0\n", r"m.py, line 2: making make raised ZeroDivisionError"),
        ("def make():\n    return 3\n", r"m.py: give an object with encode and decode, .* not a int"),
        ("make = 3\n", r"m.py: give an object with encode and decode, .* not a int"),
        ("def make(a, b): pass\n", r"make needs a, b; it may take nothing, or one DecoderOptions"),
        ("def encode(x): return 3\ndef decode(z): return z\n", r"encode gave a int, wanted a torch.Tensor"),
        ("def encode(x): return x[..., :7, :7]\ndef decode(z): return z\n", r"does not show its factor: give @down_factor=N"),
        (
            "def encode(x): raise ValueError('no')\ndef decode(z): return z\n",
            r"encode takes no image of 32, 64, 128, 224, 256, 384, 512 px \(ValueError: no\): give",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(light: LightRun, tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path / "m.py", text)
    with pytest.raises(MsbenchError, match=words) as caught:
        light(str(path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_file_or_attribute_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "m.py", MODEL)
    with pytest.raises(MsbenchError, match=r"there is no file .*n\.py"):
        build(tmp_path / "n.py")
    with pytest.raises(MsbenchError, match=r"there is no file .*n\.py"):
        build(f"{tmp_path}/n.py:make")
    with pytest.raises(MsbenchError, match=r"unknown attribute of .*m.py 'Modle'. Did you mean 'Model'"):
        build(f"{path}:Modle")


@pytest.mark.parametrize(
    "ending",
    [
        "def make(): return Model()",
        "def build(options): return Model().to(options.device)",
        "make = lambda options=None: Model()",
        "decoder = Model()",
        "it = Model()",
        "_hidden = Model()",
        "m = Model()\npair = (m.encode, m.decode)\ndecoder = pair",
        "m = Model()\ndef encode(x): return m.encode(x)\ndef decode(z): return m.decode(z)\ndecoder = encode, decode",
        "Model.spec = __import__('types').SimpleNamespace(trained_on='cats', steps=2)",
    ],
)
def test_what_a_file_may_offer(tmp_path: Path, ending: str) -> None:
    decoder = build(write(tmp_path / "m.py", f"{MODEL}\n{ending}\n"))
    spec = decoder.spec
    assert (spec.down_factor, spec.latent_channels, spec.parameters) == (8, 5, DECODER_PARAMETERS)
    assert (spec.steps, spec.trained_on) == ((2, "cats") if "cats" in ending else (1, "unknown (m.py)"))
    images = torch.rand(2, 3, 16, 24)
    with torch.inference_mode():
        assert decoder.decode(decoder.encode(images), None).shape == images.shape


def test_plain_functions_of_a_file_and_siblings_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "beside_it_only.py", "def halve(x): return x[..., ::2, ::2]\n")
    text = (
        "from beside_it_only import halve as encode\ndef decode(z): return z.repeat_interleave(2, 2).repeat_interleave(2, 3)\n"
    )
    spec = build(write(tmp_path / "m.py", text)).spec
    assert (spec.down_factor, spec.latent_channels, spec.parameters) == (2, 3, 0)


def test_a_file_hides_no_package(tmp_path: Path) -> None:
    write(tmp_path / "this.py", "raise SystemExit('the wrong one')\n")
    assert build(write(tmp_path / "zipapp.py", MODEL)).spec.down_factor == 8
    for name in ("zipapp", "this"):
        found = importlib.util.find_spec(name)
        assert found is not None
        assert not Path(str(found.origin)).is_relative_to(tmp_path)


def test_options_go_to_a_factory_that_takes_them_and_are_refused_elsewhere(tmp_path: Path) -> None:
    takes = write(tmp_path / "takes.py", f"{MODEL}\ndef make(options):\n    m = Model(); m.steps = options.steps; return m\n")
    assert build(takes, steps=7)._thing.steps == 7
    plain = write(tmp_path / "plain.py", MODEL)
    for given in ({"steps": 7}, {"scales": 2}, {"checkpoint": Path("w")}, {"weights": "random"}, {"preset": "small"}):
        with pytest.raises(MsbenchError, match=f"Model takes no {next(iter(given))}=.*; a factory of one DecoderOptions can"):
            build(plain, **given)
    assert build(plain, own={"trained_on": "cats", "down_factor": "16"}).spec.trained_on == "cats"
    assert build(plain, own={"down_factor": "16"}).spec.down_factor == 16
    with pytest.raises(MsbenchError, match="its spec has down_factor = 0: Input should be greater than or equal to 1"):
        build(plain, own={"down_factor": "0"})


TOKENS = """import torch
from torch import nn
import torch.nn.functional as F

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.books, self.positions = nn.ModuleList(nn.Embedding(n, 3) for n in (SIZES)), nn.Embedding(64, 3)
    def encode(self, images):
        means = F.avg_pool2d(images, 8).flatten(2)
        parts = [((means[:, i] + 1) / 2 * (len(book.weight) - 1)).round().int() for i, book in enumerate(self.books)]
        return parts[0] if len(parts) == 1 else torch.stack(parts, 1)
    def decode(self, code):
        code = code.unsqueeze(1) if code.dim() == 2 else code
        vectors = self.positions(torch.arange(code.shape[-1])) + sum(book(code[:, i]) for i, book in enumerate(self.books))
        side = int(code.shape[-1] ** 0.5)
        return F.interpolate(vectors.movedim(2, 1).unflatten(2, (side, side)), scale_factor=8).tanh()
"""


@pytest.mark.parametrize(("sizes", "seen"), [("1000,", (1000,)), ("512, 16", (512, 16))])
def test_the_codebooks_that_indices_are_looked_up_in_give_the_rate(
    light: LightRun, tmp_path: Path, sizes: str, seen: tuple[int, ...]
) -> None:
    file = write(tmp_path / "tokens.py", TOKENS.replace("SIZES", sizes))
    record = light(f"tokens={file}@down_factor=8")
    rate = record.data.results[0].rate
    assert record.data.decoders["tokens"].spec.codebook_sizes == seen
    assert rate is not None
    assert (rate.kind, rate.codebook_sizes) == ("tokens", seen)
    tokens = (record.data.protocol.resolution // 8) ** 2
    assert rate.bits_per_image == pytest.approx(tokens * sum(np.log2(seen)))


def test_codebooks_that_nobody_sees_stand_in_the_spec(light: LightRun, tmp_path: Path) -> None:
    """A code of levels is arithmetic, without a table."""
    code = "F.avg_pool2d(images.mean(1, keepdim=True), 8)[:, 0].add(1).mul(7.5).long().clamp(0, 15)"
    back = "F.interpolate((codes / 7.5 - 1)[:, None].float(), scale_factor=8).expand(-1, 3, -1, -1)"
    text = f"import torch.nn.functional as F\ndef encode(images): return {code}\ndef decode(codes): return {back}\n"
    assert light(str(write(tmp_path / "bare.py", text)), "a").data.results[0].rate is None
    made = (
        f"{text}class Mine:\n    encode, decode = map(staticmethod, (encode, decode))\n    class spec: codebook_sizes = [16]\n"
    )
    rate = light(f"{write(tmp_path / 'told.py', made)}:Mine", "b").data.results[0].rate
    assert rate is not None
    assert (rate.bits_per_pixel, rate.codebook_sizes) == (pytest.approx(4 / 64), (16,))


def test_networks_are_in_evaluation_mode_and_the_decoder_in_its_dtype() -> None:
    class Mine:
        def __init__(self) -> None:
            self.inner = SimpleNamespace(
                parts=[nn.Conv2d(3, 4, 2, 2), nn.Sequential(nn.Dropout(), nn.ConvTranspose2d(4, 3, 2, 2))]
            )

        def encode(self, images: Tensor) -> Tensor:
            return self.inner.parts[0](images)

        def decode(self, latents: Tensor) -> Tensor:
            return self.inner.parts[1](latents)

    mine = Mine()
    images = torch.rand(1, 3, 8, 8)
    half = foreign(mine, dtype=torch.bfloat16)
    assert not any(part.training for part in mine.inner.parts)
    latents = half.encode(images)
    assert latents.dtype is torch.float32  # every decoder gets the latents of the one encoder
    assert half.decode(latents, None).dtype is torch.bfloat16
    assert {one.dtype for part in mine.inner.parts for one in part.parameters()} == {torch.float32}
    assert half.spec.parameters == 4 * 3 * 4 + 3
    whole = foreign(mine)
    assert torch.equal(whole.decode(latents, None), mine.decode(latents))
    functions = (lambda x: mine.encode(x) + 0, lambda z: mine.decode(z) + 0)
    with pytest.raises(MsbenchError, match="a function's networks stay in their dtype"):
        foreign(functions, dtype=torch.bfloat16)
    assert foreign((mine.encode, mine.decode), dtype=torch.bfloat16).decode(latents, None).dtype is torch.bfloat16


class Fitted(nn.Module):
    """Weights that nothing trains, as a fitted PCA has them: 4 numbers of 2x2 cells."""

    def __init__(self, plain: bool = False, learned: bool = False) -> None:
        super().__init__()
        basis = torch.linspace(-1.0, 1.0, 48).view(4, 3, 2, 2)
        if plain:
            self.basis = basis
        else:
            self.register_buffer("basis", basis)
            self.register_buffer("seen", torch.tensor(7))
        self.encoder = nn.Conv2d(3, 4, 2, 2) if learned else None

    def encode(self, images: Tensor) -> Tensor:
        return self.encoder(images) if self.encoder else torch.nn.functional.conv2d(images, self.basis, stride=2)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.nn.functional.conv_transpose2d(latents, self.basis, stride=2)


@pytest.mark.parametrize("learned", [False, True])
def test_buffers_are_weights_of_who_has_no_others(learned: bool) -> None:
    mine = Fitted(learned=learned)
    half, whole = foreign(mine, dtype=torch.bfloat16), foreign(mine)
    latents = half.encode(torch.rand(1, 3, 8, 8))
    assert latents.dtype is mine.basis.dtype is torch.float32
    assert half.decode(latents, None).dtype is torch.bfloat16
    exact = mine.decode(latents).detach()
    assert torch.allclose(half.decode(latents, None).float(), exact, atol=0.02 * float(exact.abs().max()))
    assert half.spec.parameters == whole.spec.parameters == 48


def test_a_dtype_that_nothing_would_compute_in_is_refused() -> None:
    held = SimpleNamespace(basis=torch.ones(3))
    plain = SimpleNamespace(encode=lambda x: x / held.basis.view(3, 1, 1), decode=lambda z: z * held.basis.view(3, 1, 1))
    assert foreign(plain).decode(torch.ones(1, 3, 8, 8), None).dtype is torch.float32
    for thing in (plain, (plain.encode, plain.decode), Halves(), Fitted(plain=True)):
        with pytest.raises(
            MsbenchError, match=r"mine: it holds no nn.Module with weights to put in torch.bfloat16: keep @dtype=fp32"
        ):
            foreign(thing, dtype=torch.bfloat16)
    held.basis = held.basis.bfloat16()  # whoever reads the options' dtype himself
    assert foreign(plain, dtype=torch.bfloat16).spec.parameters == 0


FIXED = MODEL.replace(
    "return self.encoder(images)", "assert images.shape[-1] == 32, 'takes 32 px'; return self.encoder(images)"
)


def test_a_model_of_one_size_is_probed_at_the_runs(light: LightRun, tmp_path: Path) -> None:
    path = write(tmp_path / "fixed.py", FIXED)
    record = light(f"{path}")
    spec = record.data.decoders["fixed"].spec
    assert (spec.down_factor, spec.latent_channels, spec.parameters) == (8, 5, DECODER_PARAMETERS)
    assert "built" not in " ".join(check.how for check in verify(record.folder).checks if check.agrees is None)
    with pytest.raises(
        MsbenchError, match=r"takes no image of 64, .*takes 32 px\): give --resolution the side it takes, or a spec with down"
    ):
        build(path)
    # What the run's side does not show, another one may: 34 px become 4x4 positions.
    spec = foreign(SimpleNamespace(encode=lambda x: x[..., 4::8, 4::8], decode=lambda z: z), resolution=34).spec
    assert spec.down_factor == 8


def test_a_factor_that_the_latents_contradict_is_refused() -> None:
    mine = SimpleNamespace(encode=lambda x: x[..., ::8, ::8], decode=lambda z: z)
    for given in ("7", "4"):
        words = rf"down_factor {given} does not fit: encode makes \[1, 3, 8, 8\] of 64 px, a factor of 8"
        with pytest.raises(MsbenchError, match=words):
            foreign(mine, own={"down_factor": given})
    assert foreign(mine, own={"down_factor": "16"}).spec.down_factor == 16  # images are padded to it
    mine.spec = foreign(mine).spec
    with pytest.raises(MsbenchError, match="down_factor 7 does not fit"):
        foreign(mine, own={"down_factor": "7"})
    with pytest.raises(MsbenchError, match="its spec has down_factor = '9999"):
        registry.build_by(
            lambda options: ForeignDecoder(mine, options), "here", DecoderOptions(own={"down_factor": "9" * 5000})
        )


@pytest.mark.parametrize(
    ("encode", "factor", "channels"),
    [
        (lambda x: x[..., ::4, ::4], 4, 3),
        (lambda x: (x[:, 0, ::16, ::16] > 0).long(), 16, None),
        (lambda x: (x[:, :2, ::8, ::8] > 0).int(), 8, None),
        (lambda x: (x.flatten(1)[:, :32] > 0).long(), 1, None),
        (lambda x: x.flatten(1)[:, :32].view(len(x), 8, 4), 1, None),
        (lambda x: torch.cat([x[..., ::32, ::32]] * 2, 1) if x.shape[-1] == 256 else 1 / 0, 32, 6),
    ],
)
def test_what_a_probe_shows(encode: Any, factor: int, channels: int | None) -> None:
    state = torch.get_rng_state()
    spec = foreign((lambda x: encode(x) + 0 * torch.randn(()).long(), lambda z: z)).spec
    assert (spec.down_factor, spec.latent_channels, spec.steps, spec.scales, spec.parameters) == (factor, channels, 1, 1, 0)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("decode", "draws"),
    [
        (lambda z: z, False),
        (lambda z, noise: z + noise.normal(z.shape[1:], 0), True),
        (lambda z, noise=None: z + noise.normal(z.shape[1:], 0), True),
        (lambda z, source: z + source.normal(z.shape[1:], 0), True),
        (lambda z, return_dict=True: z if return_dict is True else None, False),
        (lambda z, *rest, **more: z if not rest else None, False),
    ],
)
def test_noise_goes_to_who_asks_for_it(light: LightRun, decode: Any, draws: bool) -> None:
    record = light({"it": (lambda x: x, decode)})  # type: ignore[arg-type]
    assert record.data.decoders["it"].noise.drawn is draws


def test_a_whole_decoder_keeps_its_own_spec_and_its_compiled_form() -> None:
    class Whole(Halves):
        spec = DecoderSpec("whole", 1, 3, 4, 1, 9, "w", "e", "dogs")

        def compiled(self, compiler: Any) -> Any:
            return SimpleNamespace(spec=self.spec, encode=self.encode, decode=lambda latents, noise: latents * 3.0)

    decoder = foreign(Whole())
    assert decoder.spec == Whole.spec
    assert isinstance(decoder, Compilable)
    assert not isinstance(foreign(Halves()), Compilable)
    assert decoder.compiled(lambda f: f).decode(torch.ones(1), None).item() == 3.0


def test_live_objects_and_functions(light: LightRun, images: Path, tmp_path: Path) -> None:
    mine = Halves()
    record = msbench.evaluate(
        decoders={
            "mine": mine,
            "unit@range=01": mine,
            "two": (mine.encode, mine.decode),
            "base": "vae@dtype=bf16",
            "jpeg": "jpeg",
        },
        dataset=f"folder:{images}",
        resolution=32,
        cost=None,
        output_dir=tmp_path / "live",
    )
    rows = {row["label"]: row for row in record.results}
    assert list(rows) == ["mine", "unit@range=01", "two", "base", "jpeg"]
    assert (rows["base"]["decoder"], rows["base"]["options"]) == ("vae", {"dtype": "bf16"})
    assert rows["unit@range=01"]["options"] == {"range": "01"}
    assert rows["mine"]["psnr"] is None  # exact
    assert rows["mine"]["trained_on"] == "unknown (mine)"
    assert record.data.config["decoders"] == ["mine", "unit@range=01", "two", "base=vae@dtype=bf16", "jpeg"]
    checks = [check for check in verify(record.folder).checks if check.decoder == "mine" and check.number == "parameters"]
    assert "cannot be built here" in checks[0].how
    config = msbench.RunConfig("jpeg", f"folder:{images}", resolution=32, cost=None, output_dir=tmp_path / "both")
    assert msbench.evaluate(config, decoders={"mine": mine}).results[0]["label"] == "mine"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {"decoders": {"mine": 3}},
            "decoder mine: give an object with encode and decode, or a pair of these functions, not a int",
        ),
        ({"decoders": {"mine": Halves}}, "or a pair of these functions, not the class Halves"),
        ({"decoders": {"mine": Halves(), "b": "vea"}}, "Did you mean 'vae'"),
        ({"decoders": {"mine@rnage=01": Halves()}}, "Did you mean 'range'"),
        ({"decoders": {}}, "no decoder given"),
        ({}, "no decoder given"),
        ({"decoders": {"mine": Halves()}, "steps": 4}, "decoder mine: an object takes no steps=4"),
        ({"decoder": {"mine": Halves()}}, "unknown field of RunConfig 'decoder'. Did you mean 'decoders'"),
    ],
)
def test_bad_live_input_is_one_line(asked: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "MetricSuite", LightSuite)
    with pytest.raises(MsbenchError, match=words):
        msbench.evaluate(**asked, max_samples=2)
    assert list(tmp_path.iterdir()) == []


def test_the_command_takes_decoders_again_and_again(light: LightRun, images: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "my_model.py", MODEL)
    words = [
        "run",
        "--decoder",
        f"{path},jpeg",
        "--decoder",
        "b=bicubic",
        "--dataset",
        f"folder:{images}",
        "--no-cost",
        "--json",
    ]
    done = CliRunner().invoke(app, [*words, "--resolution", "32", "--output-dir", str(tmp_path / "run")])
    assert done.exit_code == 0, done.stderr
    assert [row["label"] for row in json.loads(done.stdout)["results"]] == ["my_model", "jpeg", "b"]
    done = CliRunner().invoke(app, [*words, "--decoder", "jpeg", "--output-dir", str(tmp_path / "other")])
    assert (done.exit_code, "names jpeg twice" in done.stderr) == (2, True)
    assert not (tmp_path / "other").exists()
