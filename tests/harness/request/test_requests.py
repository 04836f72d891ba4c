"""What is asked of a decoder: labels, names, options, lists, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.errors import MsbenchError, UnknownNameError
from harness.files import safe_name
from harness.registry import KINDS, DecoderEntry
from harness.request.requests import DecoderRequest, parse_request, parse_requests, request_of, split_list
from harness.run.config import RunConfig


@pytest.fixture(autouse=True)
def kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "hub", DecoderEntry("hub", "", "nowhere:build", own=("revision", "posterior")))


@pytest.mark.parametrize(
    ("text", "label", "name", "asked"),
    [
        ("vae", "vae", "vae", {}),
        (" vae ", "vae", "vae", {}),
        ("ms-diffusion@steps=10@scales=3", "ms-diffusion@steps=10@scales=3", "ms-diffusion", {"steps": 10, "scales": 3}),
        ("taef2@checkpoint=../some/folder", "taef2@checkpoint=folder", "taef2", {"checkpoint": Path("../some/folder")}),
        ("vae@dtype=bf16", "vae@dtype=bf16", "vae", {"dtype": "bf16"}),
        ("vae@weights=random@preset=small", "vae@weights=random@preset=small", "vae", {"weights": "random", "preset": "small"}),
        ("vae@weights=trained", "vae@weights=trained", "vae", {"weights": "trained"}),
        ("ours=vae@dtype=bf16", "ours", "vae", {"dtype": "bf16"}),
        ("two words = vae", "two words", "vae", {}),
        ("../../x=jpeg", "../../x", "jpeg", {}),
        ("a/my_model.py", "my_model", "a/my_model.py", {}),
        ("a/my_model.py:make@range=01", "my_model:make@range=01", "a/my_model.py:make", {"range": "01"}),
        ("it=a@b/my model.py", "it", "a@b/my model.py", {}),
        ("hub:me/model@v1.0@revision=a@b", "model@v1.0@revision=a@b", "hub:me/model@v1.0", {"revision": "a@b"}),
        ("hub:./local/@posterior=sample", "local@posterior=sample", "hub:./local/", {"posterior": "sample"}),
        ("x:y=hub:z", "x:y", "hub:z", {}),
    ],
)
def test_a_request_is_label_name_and_options(text: str, label: str, name: str, asked: dict[str, object]) -> None:
    request = parse_request(text)
    assert (request.label, request.name, request.asked()) == (label, name, asked)
    again = request_of(label, name, {option: str(value) for option, value in asked.items()})
    assert again == request == parse_request(request.text())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vea", "unknown decoder 'vea'. Did you mean 'vae'"),
        ("vae@step=3", "unknown option of decoder vae 'step'. Did you mean 'steps'"),
        ("vae@range=01", "unknown option of decoder vae 'range'"),
        ("a.py@rnage=01", "Did you mean 'range'"),
        ("hub:x@revison=1", "Did you mean 'revision'"),
        ("vae@steps=0", "steps is a whole number from 1 to 100,000, not '0'"),
        pytest.param(f"vae@steps={'9' * 5000}", "steps is a whole number from 1 to 100,000, not '9999", id="long"),
        pytest.param(f"vae@scales={'9' * 5000}", "scales is a whole number from 1 to 16, not '9999", id="long scales"),
        ("vae@scales=many", "scales is a whole number from 1 to 16, not 'many'"),
        ("vae@weights=none", "weights is trained or random"),
        ("vae@dtype=fp8", "unknown dtype 'fp8'"),
        ("vae@steps=1@steps=2", "given twice"),
        ("=vae", "label before '=' is empty"),
        ("", "unknown decoder ''"),
    ],
)
def test_what_does_not_fit_is_one_line(text: str, words: str) -> None:
    with pytest.raises(MsbenchError, match=words.replace("(", r"\(")) as caught:
        parse_request(text)
    assert "\n" not in str(caught.value)


def test_labels_are_unique() -> None:
    both = parse_requests(["vae", "again=vae", "vae@steps=1"])
    assert [one.label for one in both] == ["vae", "again", "vae@steps=1"]
    with pytest.raises(MsbenchError, match=r"names model twice: write LABEL=a/model\.py"):
        parse_requests(["a/model.py", "b/model.py"])
    with pytest.raises(MsbenchError, match="names a twice: write LABEL=bicubic to give"):
        parse_requests(["a=bicubic", "a=jpeg"])
    with pytest.raises(MsbenchError, match="names a twice: write LABEL=vae@steps=2 to give"):
        parse_requests(["a=vae@steps=2", "a=jpeg"])
    with pytest.raises(MsbenchError, match="no decoder given"):
        parse_requests([])


def test_commas_separate_but_not_inside_paths(tmp_path: Path) -> None:
    odd = tmp_path / "a, b=c@d:e"
    odd.mkdir()
    (odd / "my,model.py").touch()
    (odd / "w,1.safetensors").touch()
    file, weights = f"{odd}/my,model.py", f"taef2@checkpoint={odd}/w,1.safetensors"
    texts = ["jpeg", file, "vae@dtype=bf16", weights, f"{file}:make@range=01", f"it={file}", f"hub:{odd}"]
    assert split_list(", ".join(texts)) == tuple(texts)
    assert split_list("jpeg,,vae, ") == ("jpeg", "vae")
    names = [one.name for one in parse_requests([f"{number}={text}" for number, text in enumerate(texts)])]
    assert names == ["jpeg", file, "vae", "taef2", f"{file}:make", f"it={file}", f"hub:{odd}"]
    assert parse_request(file).label == "my,model"


def test_a_path_with_an_equals_sign_needs_no_label(tmp_path: Path) -> None:
    (tmp_path / "lr=0.1").mkdir()
    (tmp_path / "lr=0.1" / "model.py").touch()
    request = parse_request(f"{tmp_path}/lr=0.1/model.py")
    assert (request.label, request.name) == ("model", f"{tmp_path}/lr=0.1/model.py")


def test_a_path_that_exists_holds_no_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("jpeg@bits_per_pixel=1", "taef2@checkpoint=weights", "a@b=1,c@d=2"):
        (tmp_path / "recs" / name).mkdir(parents=True)
    (tmp_path / "recs" / "net@range=01.py").touch()
    monkeypatch.chdir(tmp_path)
    for text, label, name, asked in (
        ("images:recs/jpeg@bits_per_pixel=1", "jpeg@bits_per_pixel=1", "images:recs/jpeg@bits_per_pixel=1", {}),
        (
            "it=images:recs/taef2@checkpoint=weights@match=order",
            "it",
            "images:recs/taef2@checkpoint=weights",
            {"match": "order"},
        ),
        ("images:recs/a@b=1,c@d=2", "a@b=1,c@d=2", "images:recs/a@b=1,c@d=2", {}),
        ("recs/net@range=01.py:make@range=01", "net@range=01:make@range=01", "recs/net@range=01.py:make", {"range": "01"}),
        (
            "vae@steps=2@checkpoint=recs/taef2@checkpoint=weights",
            "",
            "vae",
            {"checkpoint": Path("recs/taef2@checkpoint=weights")},
        ),
    ):
        for request in (parse_request(text), parse_request(parse_request(text).text())):
            assert (request.name, dict(request.own) or {}) == (
                name,
                {k: v for k, v in asked.items() if k in ("match", "range")},
            )
            assert request.checkpoint == asked.get("checkpoint")
            assert not label or request.label == label
        assert split_list(f"jpeg,{text},vae") == ("jpeg", text, "vae")
    # A name is none, wherever one stands.
    monkeypatch.chdir(tmp_path / "recs")
    assert parse_request("jpeg@bits_per_pixel=1").own == {"bits_per_pixel": "1"}
    with pytest.raises(MsbenchError, match="unknown option of decoder images:gone"):
        parse_request("images:gone@bits_per_pixel=1")


def test_a_row_goes_before_the_defaults_of_a_run() -> None:
    config = RunConfig("diffusion@steps=4,diffusion", steps=9, dtype="bf16")  # type: ignore[arg-type]
    assert [one.steps for one in config.requests()] == [4, 9]
    options = DecoderRequest("x", "vae", dtype="fp16").options(torch.device("cpu"), torch.bfloat16)
    assert options.dtype is torch.float16
    assert config.requests()[0].options(torch.device("cpu"), config.dtype).dtype is torch.bfloat16


@pytest.mark.parametrize("label", ["../../x", "a/b", ".", "..", "", "reference", "a b", "-rf", "x\n", "é:1", "x" * 300])
def test_a_label_becomes_one_harmless_name(label: str, tmp_path: Path) -> None:
    name = safe_name(label)
    assert (tmp_path / name).resolve().parent == tmp_path.resolve()
    assert name != "reference"
    assert len(name.encode()) < 255
    others = {f"{label}x", f"{label}/", label.replace("/", "_"), label.lstrip(".")} - {label}
    assert name not in map(safe_name, others)
    (tmp_path / name).mkdir()


def test_usual_labels_are_their_own_names() -> None:
    for label in ("vae", "ms-diffusion@steps=10", "taef2@checkpoint=weights", "my_model"):
        assert safe_name(label) == label


def test_options_of_denoisers_and_of_jpeg() -> None:
    request = parse_request("direct@checkpoint=a.safetensors@encoder=weights/taef2")
    assert (request.checkpoint, request.own) == (Path("a.safetensors"), {"encoder": "weights/taef2"})
    assert parse_request("jpeg@bits_per_pixel=0.35").own == {"bits_per_pixel": "0.35"}
    for text in ("vae@encoder=a", "bicubic@bits_per_pixel=1"):
        with pytest.raises(UnknownNameError, match="unknown option of decoder"):
            parse_request(text)
