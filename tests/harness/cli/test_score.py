"""`msbench score` at the command line: rows and their labels, what is written, and every refusal in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from harness.cli import app
from harness.record.record import read_record
from harness.run import runner
from tests.harness.run.light import LightSuite


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`originals/` of six pictures in two classes, and `mine/` and `theirs/`, which are darker."""
    monkeypatch.setattr(runner, "MetricSuite", LightSuite)
    monkeypatch.chdir(tmp_path)
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 36, 3), np.uint8)
        for folder, image in (("originals", pixels), ("mine", pixels // 2), ("theirs", pixels // 4 * 3)):
            path = tmp_path / folder / f"n0{index % 2}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return tmp_path


def score(*words: object) -> Result:
    return CliRunner().invoke(app, ["score", *map(str, words)], env={"COLUMNS": "160"})


def test_several_folders_are_rows_of_one_record(sets: Path) -> None:
    done = score("originals", "mine", "ours=theirs", "--output-dir", "out", "--json", "--batch-size", 4, "--offline")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert [row["label"] for row in document["results"]] == ["mine", "ours"]
    assert [row["decoder"] for row in document["results"]] == ["images:mine", "images:theirs"]
    assert "originals, n = 6" in done.stderr
    record = read_record(sets / "out")
    assert record.data.command.split()[0] == "msbench"
    assert record.data.config["dataset"] == "folder:originals"
    assert record.data.protocol.preprocessing == "as-given-v1"
    assert {row["ms_per_image"] == {} and row["gflops"] is None for row in document["results"]} == {True}


def test_a_record_of_scores_goes_through_the_other_commands(sets: Path) -> None:
    assert score("originals", "mine", "theirs", "--output-dir", "out", "--save-images", "kept").exit_code == 0
    assert (sets / "kept" / "mine" / "n00__0.png").is_file()
    for words in (["compare", "out"], ["compare", "out:mine", "--against", "ref.json", "--update"]):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    gate = CliRunner().invoke(app, ["compare", "out:mine", "--against", "ref.json", "--fail-on-regression"])
    assert gate.exit_code == 0, gate.output


def test_originals_are_cropped_on_request(sets: Path) -> None:
    assert score("originals", "mine", "--preprocess", "--resolution", 32).exit_code == 2
    for path in sorted((sets / "mine").rglob("*.png")):
        with Image.open(sets / "originals" / path.relative_to(sets / "mine")) as image:
            image.resize((32, round(40 * 32 / 36)), Image.Resampling.BICUBIC).crop((0, 2, 32, 34)).save(path)
    done = score("originals", "mine", "--preprocess", "--resolution", 32, "--output-dir", "cropped")
    assert done.exit_code == 0, done.stderr
    protocol = read_record(sets / "cropped").data.protocol
    assert (protocol.preprocessing, protocol.resolution) == ("adm-center-crop-v1", 32)
    assert read_record(sets / "cropped").results[0]["psnr"] is None  # every image is exact


def test_one_flat_folder_and_an_npz_need_no_option(sets: Path) -> None:
    (sets / "flat").mkdir()
    files = sorted((sets / "mine").rglob("*.png"))
    for path in files:
        (sets / "flat" / path.name).write_bytes(path.read_bytes())
    np.savez(sets / "samples.npz", np.stack([np.asarray(Image.open(path)) for path in files]))
    done = score("originals", "mine", "flat", "samples.npz", "--output-dir", "out", "--json")
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)["results"]
    assert [row["label"] for row in rows] == ["mine", "flat", "samples.npz"]
    assert len({row["psnr"] for row in rows}) == 1
    np.savez(
        sets / "first.npz", np.stack([np.asarray(Image.open(path)) for path in sorted((sets / "originals").rglob("*.png"))])
    )
    done = score("first.npz", "mine", "--output-dir", "by-order", "--json")
    assert json.loads(done.stdout)["results"][0]["psnr"] == pytest.approx(rows[0]["psnr"], abs=1e-12)


@pytest.mark.parametrize("name", ["a b", "-dash", "große 犬", "x:y", "a,b", "a@b", "lr=0.1", "jpeg@bits_per_pixel=1"])
def test_folders_of_strange_names(sets: Path, name: str) -> None:
    (sets / "mine").rename(sets / name)
    done = score("--output-dir", "out", "--json", "--", "originals", name)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["label"] == name


def test_a_label_never_leaves_the_folder_of_images(sets: Path) -> None:
    done = score("originals", "../../x=mine", "--output-dir", "out", "--save-images", "kept/deep/images")
    assert done.exit_code == 0, done.stderr
    assert not (sets / "kept" / "x").exists()
    assert len(list((sets / "kept" / "deep" / "images").rglob("*.png"))) == 12


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("originals", "nothing"), "images:nothing: nothing does not exist"),
        (("nothing", "mine"), "folder:nothing: nothing does not exist"),
        (("originals", "empty"), "no image files (0 files of other kinds)"),
        (("empty", "mine"), "empty holds no image files"),
        (("originals", "mine", "mine"), "mine: every row needs a label of its own, not 'mine' again"),
        (("originals", "=mine"), "=mine: every row needs a label of its own"),
        (("originals", "mine", "--match", "oder"), "unknown match 'oder'. Did you mean 'order'?"),
        (("originals", "mine", "--resolution", "64"), "--resolution goes with --preprocess"),
        (("originals", "mine", "--output-dir", "originals/out"), "lies in the dataset's folder"),
        (("originals", "mine", "--extra-metrics", "nothing"), "unknown extra metric"),
        (("originals", "mine", "--device", "cuda:99"), "--device cuda:99"),
        (("originals", "locked"), "images:locked"),
    ],
)
def test_a_refusal_is_one_line(sets: Path, words: tuple[str, ...], told: str) -> None:
    (sets / "empty").mkdir()
    (sets / "locked").symlink_to("locked")  # a loop: it cannot be listed, whoever asks
    done = score(*words, "--json") if "--output-dir" in words else score(*words, "--output-dir", "out", "--json")
    assert done.exit_code == 2, done.output
    assert told in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not os.path.exists("out/record.json")


def test_finished_images_have_no_speed(sets: Path) -> None:
    done = CliRunner().invoke(app, ["speed", "--decoder", "images:mine", "--resolution", "32"])
    assert done.exit_code == 2
    assert "--decoder mine: images:mine holds finished images, which take no time to make: leave it out" in done.stderr
