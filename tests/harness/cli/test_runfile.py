"""Run files: the same run from a file as from options, options win, a record runs again, bad files are one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.record.record import read_record

FLAGS = (
    "--decoder bicubic,jpeg --max-samples 3 --resolution 64 --seed 2 --margin psnr=0.5 --cost-batch-sizes none --batch-size 2"
)
TOML = """
decoder = ["bicubic", "jpeg"]
max_samples = 3
resolution = 64
seed = 2
margin = "psnr=0.5"
cost-batch-sizes = "none"
batch_size = 2
"""
FIGURES = ("rfid", "psnr", "ssim", "lpips", "gflops")


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(app, ["run", *arguments])
    assert done.exit_code == 0, done.output
    return done


def config(folder: Path) -> dict[str, Any]:
    found = dict(read_record(folder).data.config)
    del found["output_dir"]
    return found


def figures(folder: Path) -> list[list[Any]]:
    return [[row["label"], *(row[name] for name in FIGURES)] for row in read_record(folder).results]


@pytest.fixture(scope="module")
def by_flags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "by-flags"
    run(*FLAGS.split(), "--output-dir", str(folder))
    return folder


def test_a_file_asks_for_the_same_as_options(by_flags: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(TOML)
    run("--config", str(tmp_path / "run.toml"), "--output-dir", str(tmp_path / "by-file"))
    assert config(tmp_path / "by-file") == config(by_flags)
    assert figures(tmp_path / "by-file") == figures(by_flags)


def test_a_record_runs_again_elsewhere_with_the_same_figures(by_flags: Path, tmp_path: Path) -> None:
    run("--config", str(by_flags / "record.json"), "--output-dir", str(tmp_path / "again"))
    assert config(tmp_path / "again") == config(by_flags)
    assert figures(tmp_path / "again") == figures(by_flags)


def test_options_win(by_flags: Path, tmp_path: Path) -> None:
    run(
        "--config",
        str(by_flags),
        "--decoder",
        "identity",
        "--max-samples",
        "2",
        "--no-cost",
        "--output-dir",
        str(tmp_path / "o"),
    )
    found = config(tmp_path / "o")
    assert (found["decoders"], found["max_samples"], found["cost"]) == (["identity"], 2, None)
    assert (found["seed"], found["margins"]) == (2, "psnr=0.5")


def asked(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """What a command would run."""
    caught: list[Any] = []

    def stop(request: Any, *rest: Any, **extra: Any) -> None:
        caught.append(request)
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.run.runner.evaluate", stop)
    CliRunner().invoke(app, ["run", *arguments])
    (found,) = caught
    return found


def test_every_kind_of_value_and_former_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'decoder = "vae"\ncost_batch_sizes = [1, 4]\ncell-seconds = 3\ndecoder_seconds = 2.5\nallow_upsampling = true\n'
        'checkpoint = "a/b.safetensors"\ndtype = "bf16"\nextra_metrics = ["dists"]\nnoise-seeds = 3\nsplit = "train"\n'
    )
    found = asked(monkeypatch, "--config", str(file))
    assert (found.cost.batch_sizes, found.cost.max_seconds, found.cost.decoder_seconds) == ((1, 4), 3.0, 2.5)
    assert (found.allow_upsampling, found.checkpoint, found.extra_metrics) == (True, Path("a/b.safetensors"), ("dists",))
    assert (str(found.dtype), found.noise_seeds, found.split) == ("torch.bfloat16", 3, "train")
    assert asked(monkeypatch, "--config", str(file), "--cost-seconds", "7").cost.max_seconds == 7.0
    file.write_text('decoder = "vae"\ncost = false\n')
    assert asked(monkeypatch, "--config", str(file)).cost is None
    assert asked(monkeypatch, "--config", str(file), "--cost").cost is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("decoder = 'vae'\nbatchsize = 3", "unknown key of {file} 'batchsize'. Did you mean 'batch_size'?"),
        ("decoder = 'vae'\nbatch_size = '3'", "{file}: batch_size = '3': Input should be a valid integer"),
        ("decoder = 'vae'\nbatch_size = 3.5", "{file}: batch_size = '3.5': Input should be a valid integer"),
        ("decoder = 'vae'\nseed = true", "{file}: seed = 'True': Input should be a valid integer"),
        ("decoder = 'vae'\noffline = 'yes'", "{file}: offline = 'yes': Input should be a valid boolean"),
        ("decoder = 'vae'\nsplit = 3", "{file}: split = '3': Input should be a valid string"),
        ("decoder = 'vae'\nmargin = {psnr = 1}", "{file}: margin = "),
        ("decoder = 'vae'\nseed = [1, 2]", "{file}: seed = "),
        ("decoder = 'vae'\n[cost]\nseconds = 3", "{file}: cost = "),
        ("config = 'other.toml'", "unknown key of {file} 'config'"),
        ("decoder = vae", "{file} is no TOML file"),
    ],
)
def test_a_bad_file_is_one_line_and_exit_2(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    done = CliRunner().invoke(app, ["run", "--config", str(file), "--output-dir", str(tmp_path / "never")])
    assert done.exit_code == 2
    assert words.format(file=file) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "never").exists()


def test_files_that_are_none_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe9'")
    (tmp_path / "half.json").write_text(json.dumps({"schema_version": 1}))
    for name, words in (("absent.toml", "No such file"), ("latin.toml", "no TOML file"), ("half.json", "record")):
        done = CliRunner().invoke(app, ["run", "--config", str(tmp_path / name)])
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert words in done.stderr


def test_a_value_out_of_range_is_refused_as_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("decoder = 'vae'\nbatch_size = 0")
    done = CliRunner().invoke(app, ["run", "--config", str(tmp_path / "run.toml")])
    assert done.exit_code == 2
    assert "--batch-size" in done.stderr
