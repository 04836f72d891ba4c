"""Checkpoints named on the hub: what is asked of it, the commit in the record, what it refuses; a function stands in for it."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from decoders.checkpoint import SHIPPED
from harness.errors import MsbenchError
from harness.record.rebuilt import rebuild
from harness.record.run import open_run
from harness.request.hub import fetch
from harness.request.requests import parse_request, parse_requests, split_list

COMMIT = "0a1b2c3d4e" * 4
PLACE = "hf://me/my-vae/sub/vae.safetensors"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """`asked` lists what hf_hub_download was called with; `error` is what it raises."""
    seen: dict[str, Any] = {"asked": [], "error": None}

    def download(repository: str, file: str, **options: Any) -> str:
        seen["asked"].append((repository, file, options["revision"], options["local_files_only"]))
        if seen["error"]:
            raise seen["error"]
        found = tmp_path / "hub" / "snapshots" / COMMIT / file
        found.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SHIPPED / Path(file).name, found)
        return str(found)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return seen


def test_a_run_records_the_commit_and_is_built_again_from_it(hub: dict[str, Any], light: Any, tmp_path: Path) -> None:
    record = light(f"vae,mine=vae@checkpoint={PLACE}@refs/pr/1@dtype=fp32", offline=True)
    shipped, mine = record.data.results
    assert hub["asked"][0] == ("me/my-vae", "sub/vae.safetensors", "refs/pr/1", True)
    assert hub["asked"][-1][2] == COMMIT  # built from what the record says
    assert mine.options == {"checkpoint": f"{PLACE}@{COMMIT}", "dtype": "fp32"}
    assert mine.metrics["psnr"] == shipped.metrics["psnr"]
    specs = {label: details.spec for label, details in record.data.decoders.items()}
    assert specs["mine"].weights_sha256 == specs["vae"].weights_sha256
    text = (record.folder / "record.json").read_text()
    assert json.loads(text)["results"][1]["options"]["checkpoint"] == f"{PLACE}@{COMMIT}"
    hub["asked"].clear()
    built = rebuild(open_run(record), mine)
    assert not isinstance(built, str), built
    assert hub["asked"] == [("me/my-vae", "sub/vae.safetensors", COMMIT, False)]


def test_the_option_of_a_run_takes_it_too(hub: dict[str, Any], light: Any) -> None:
    record = light("vae", checkpoint=f"{PLACE}@main")
    assert hub["asked"][0][:3] == ("me/my-vae", "sub/vae.safetensors", "main")
    assert record.data.results[0].options == {"checkpoint": f"{PLACE}@{COMMIT}"}
    assert record.data.results[0].label == "vae"


def test_an_encoder_of_the_hub_is_fetched_and_pinned(hub: dict[str, Any], light: Any) -> None:
    record = light("onestep@checkpoint=hf://me/x/onestep.safetensors@encoder=hf://me/x/vae.safetensors@v1")
    (row,) = record.data.results
    assert row.options == {
        "checkpoint": f"hf://me/x/onestep.safetensors@{COMMIT}",
        "encoder": f"hf://me/x/vae.safetensors@{COMMIT}",
    }
    assert ("me/x", "vae.safetensors", "v1", False) in hub["asked"]
    assert ("me/x", "onestep.safetensors", None, False) in hub["asked"]


@pytest.mark.parametrize(
    ("text", "checkpoint", "rest"),
    [
        (f"vae@checkpoint={PLACE}@main", f"{PLACE}@main", {}),
        (f"mine=vae@checkpoint={PLACE}@v1.0@dtype=bf16", f"{PLACE}@v1.0", {"dtype": "bf16"}),
        (f"direct@checkpoint={PLACE}@encoder=a/b", PLACE, {"encoder": "a/b"}),
        ("vae@checkpoint=hf://a/b/x@y.safetensors@refs/pr/2", "hf://a/b/x@y.safetensors@refs/pr/2", {}),
        ("vae@checkpoint=hf://a/b/x@steps.safetensors", "hf://a/b/x@steps.safetensors", {}),
        ("vae@steps=1@checkpoint=hf:/a/b/c.safetensors@d", "hf://a/b/c.safetensors@d", {"steps": 1}),
    ],
)
def test_options_end_where_the_next_begins(text: str, checkpoint: str, rest: dict[str, Any]) -> None:
    request = parse_request(text)
    assert request.asked() == {"checkpoint": checkpoint, **rest}
    assert parse_request(request.text()) == request
    assert parse_requests(split_list(f"jpeg,{text}"))[1] == request


@pytest.mark.parametrize(
    ("place", "asked"),
    [
        ("hf://a/b/c.safetensors", ("a/b", "c.safetensors", None)),
        ("hf://a/b/d/c.safetensors@e/f", ("a/b", "d/c.safetensors", "e/f")),
        ("hf://a/b/x@y.safetensors@z", ("a/b", "x@y.safetensors", "z")),  # the last @ that a revision follows
    ],
)
def test_a_place_is_repository_file_and_revision(
    place: str, asked: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(repository: str, file: str, revision: str | None, **_: object) -> str:
        assert (repository, file, revision) == asked
        return str(tmp_path / "snapshots" / COMMIT / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    path, pinned = fetch(place)
    assert path == str(tmp_path / "snapshots" / COMMIT / asked[1])
    assert pinned == f"hf://{asked[0]}/{asked[1]}@{COMMIT}"


@pytest.mark.parametrize(
    "place", ["hf://a/b", "hf://a/c.safetensors", "hf://a/b/c.pth@main", "hf://", "hf://a/b/c d.safetensors"]
)
def test_other_files_are_not_asked_for(place: str, hub: dict[str, Any]) -> None:
    with pytest.raises(MsbenchError, match=r"a checkpoint of the hub is hf://OWNER/REPO/FILE.safetensors@REVISION"):
        fetch(place)
    assert not hub["asked"]


def test_a_path_is_left_alone(hub: dict[str, Any]) -> None:
    assert fetch("/a/hf:/b.safetensors@c") == ("/a/hf:/b.safetensors@c",) * 2
    assert parse_request("vae@checkpoint=a.safetensors").pinned().checkpoint == Path("a.safetensors")
    assert not hub["asked"]


@pytest.mark.parametrize(
    ("kind", "offline", "words"),
    [
        (
            GatedRepoError,
            False,
            "gated, private or not there: accept its terms at https://huggingface.co/me/my-vae and set HF_TOKEN",
        ),
        (RepositoryNotFoundError, False, "gated, private or not there"),
        (LocalEntryNotFoundError, True, "is not in the hub's cache and --offline is set: give a path"),
        (LocalEntryNotFoundError, False, "the hub does not answer"),
        (EntryNotFoundError, False, "no such file; https://huggingface.co/me/my-vae/tree/main"),
        (RevisionNotFoundError, False, "no such revision"),
        (OSError, False, "fetching it raised OSError"),
    ],
)
def test_what_the_hub_refuses_is_one_line(kind: type[Exception], offline: bool, words: str, hub: dict[str, Any]) -> None:
    hub["error"] = kind.__new__(kind)
    Exception.__init__(hub["error"], "4xx Client Error\nRequest ID: Root=1")
    with pytest.raises(MsbenchError, match=words) as caught:
        parse_request(f"vae@checkpoint={PLACE}@main").pinned(offline)
    assert str(caught.value).startswith(f"{PLACE}@main")
    assert "\n" not in str(caught.value)


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return known(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MsbenchError, match=r"huggingface_hub is not installed: pip install 'msbench\[data\]'"):
        fetch(PLACE)


def test_a_training_takes_its_start_from_the_hub(hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    import decoders.training.train
    from harness.cli import app

    seen: list[Any] = []

    def run_training(request: Any, *_: Any) -> Path:
        seen.append(request)
        return tmp_path / "x.safetensors"

    monkeypatch.setattr(decoders.training.train, "run_training", run_training)
    options = ["--teacher", "hf://me/x/diffusion.safetensors@v2", "--vae", "v.safetensors", "--output-dir", str(tmp_path / "o")]
    done = CliRunner().invoke(app, ["train-decoder", "onestep", *options])
    assert done.exit_code == 0, done.output
    assert (seen[0].teacher, seen[0].vae) == (
        tmp_path / "hub" / "snapshots" / COMMIT / "diffusion.safetensors",
        Path("v.safetensors"),
    )
    assert seen[0].start is None
