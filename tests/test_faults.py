"""The fault table at the command line: what was wrong once, its exit code and its words. Other rows stand beside their code."""

from __future__ import annotations

import json
import os
import re
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from harness import registry
from harness.cli import app
from tests.harness.run.conftest import LightRun, images, light  # noqa: F401 - fixtures


def msbench(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160"})


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(
    ("decoder", "options", "words"),
    [
        ("odd-exit0", "", "odd-exit0: decode raised SystemExit: 0"),
        ("odd-leaves", "", "odd-leaves: its factory raised SystemExit: 0"),
        ("odd-nan", "", "odd-nan, image n07: decode gave 48 of 3072 values that are not finite"),
        ("odd-twice", "", "gave [8, 3, 64, 64], wanted [8, 3, 32, 32]"),
        ("odd-uint8", "", "gave torch.uint8, wanted floating-point"),
        ("odd-raises", "", "odd-raises: decode raised RuntimeError"),
        ("jpeg", "--cost --cost-batch-sizes 1,10000000000000000000000", "--cost-batch-sizes 1,1000"),
        ("jpeg", "--cost --cost-batch-sizes 1,1000000", "batch size 1000000"),
        ("jpeg", "--seed 99999999999999999999999", "--seed 99999999999999999999999"),
        ("jpeg", "--output-dir /dev/full", "cannot write to /dev/full"),
        ("jpeg", "--output-dir /proc/x", "cannot write to /proc/x"),
        ("jpeg", "--save-images /proc/x", "--save-images /proc/x cannot be written to"),
        ("jpeg", "--batch-size 100000000000000000000", "--batch-size 1000"),
        ("jpeg", "--resolution 17", "--resolution"),
        ("jpeg", "--resolution 20000 --allow-upsampling", "--resolution"),
        ("jpeg", "--device meta", "--device meta"),
        ("jpeg", "--device xpu", "--device xpu"),
        ("jpeg", "--noise-seeds 100000000", "--noise-seeds 100000000"),
    ],
)
def test_a_refusal_is_exit_2_and_names_the_culprit(
    images: Path,  # noqa: F811
    tmp_path: Path,
    decoder: str,
    options: str,
    words: str,
) -> None:
    place = ["--output-dir", tmp_path / "run", "--resolution", "32", "--no-cost"]
    done = msbench("run", "--decoder", decoder, "--dataset", f"folder:{images}", *place, *options.split())
    assert done.exit_code == 2, done.stderr
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.usefixtures("light")
def test_what_a_reader_must_know_is_in_every_output(
    images: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(os.fsdecode(os.fsencode(images) + b"/caf\xe9.jpg")).write_text("x")
    (images / "a[red].jpg").write_text("x")
    points = EntryPoints([EntryPoint("jpeg", "elsewhere:jpeg", registry.GROUP)])
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    out = tmp_path / "out[red]x"
    decoders = "odd-torch_noise,odd-batchy,odd-prints,odd-range01,jpeg"
    options = f"--decoder {decoders} --resolution 32 --no-cost --batch-size 4 --max-samples 11 --json".split()
    done = msbench("run", *options, "--dataset", f"folder:{images}", "--output-dir", out)
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout.removeprefix("words of the plug-in\n" * done.stdout.count("words of the plug-in\n")))
    assert str(out) in done.stderr
    assert re.search(r" files skipped, first: (a\[red\]|caf\\xe9)\.jpg \(not an image\)", done.stderr)
    told = (
        "decoder jpeg: unknown distribution's plug-in (elsewhere:jpeg) is not used: msbench has the name",
        "decoder odd-torch_noise: draws from a global random generator",
        "decoder odd-batchy: an image depends on its batch",
        "decoder odd-range01: output looks like [0, 1]",
    )
    for words in told:
        assert any(line.startswith(words) for line in document["warnings"]), words
        assert f"warning: {words}" in done.stderr
    marks = {row["label"]: " ".join(row["marks"]) for row in document["results"]}
    assert "draws its own random numbers" in marks["odd-torch_noise"]
    assert "depends on its batch" in marks["odd-batchy"]
    assert all("drawn without labels" in mark for mark in marks.values())
    compared = msbench("compare", out)
    assert compared.exit_code == 0
    assert all(f"{out.name}: {words}" in compared.stderr for words in told)
    assert "odd-batchy †" in compared.stdout
    assert json.loads(msbench("compare", out, "--json").stdout)["results"][1]["marks"][0].startswith("depends on its batch")


def test_a_run_that_did_not_finish_says_so(light: LightRun) -> None:  # noqa: F811
    record = light("jpeg,bicubic")
    path = record.folder / "record.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "status": "quality"}))
    done = msbench("compare", record.folder)
    assert done.exit_code == 0
    assert "the run did not finish (status quality): `msbench run … --resume` goes on with it" in done.stderr
    path.write_text(json.dumps({**content, "status": "running", "results": [], "decoders": {}}))
    for command in ("compare", "verify"):
        done = msbench(command, record.folder)
        assert done.exit_code == 2
        line = done.stderr.strip().splitlines()[-1]
        assert "holds no results, the run did not finish (status running): go on with it by --resume" in line
