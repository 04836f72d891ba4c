"""`msbench claim` as a command: on runs that are there, and making them, with a stand-in for the metrics' networks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from decoders.checkpoint import shipped_path
from harness.cli import app
from harness.compare import claim
from harness.cost.cost import Cost
from harness.files import sha256_file
from harness.record.record import read_record
from harness.run import runner
from tests.harness.conftest import PROTOCOL, MakeRun
from tests.harness.run.conftest import make_images
from tests.harness.run.light import LightSuite

TEACHER = "a" * 64
TRAINING = {"training_seed": 0, "recipe_sha256": "7" * 64}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["claim", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def runs(tmp_path: Path, make_run: MakeRun) -> list[Path]:
    students = {"ms-onestep": 0.005, "onestep": 0.004, "direct": 0.5}
    spec = {"ms-onestep": {"teacher_sha256": TEACHER, "objective": "direct", "flow": "cascade", "scales": 3}}
    weights: dict[str, Any] = {
        "diffusion": {"weights_sha256": "f" * 64, **TRAINING},
        "ms-diffusion": {"weights_sha256": TEACHER, "scales": 3},
    }
    make_run(tmp_path / "few", students, protocol=replace(PROTOCOL, noise_seeds=3), spec=spec)
    make_run(tmp_path / "many", dict.fromkeys(weights, 0.0), spec={name: {"steps": 50, **one} for name, one in weights.items()})
    return [tmp_path / "few", tmp_path / "many"]


def test_runs_that_are_there_are_answered(runs: list[Path], tmp_path: Path) -> None:
    done = run(*runs, "--output-dir", tmp_path / "out")
    assert done.exit_code == 0, done.output
    for words in (
        "1. The paper's claim, of ms-onestep (teacher-initialised regression, cascade variant): ",
        "2. At equal quality: not shown: the runs lack diffusion@steps=1, ",
        "3. Is the teacher worth it: ",
        "Stages apart",
    ):
        assert words in done.stdout
    written = (tmp_path / "out" / "claim.md").read_text()
    assert "**3. Is the teacher worth it" in written
    assert "| condition | outcome | evidence |" in written
    assert len([line for line in written.splitlines() if line.startswith("- Protocol ")]) == 2
    found = json.loads(run(*runs, "--json").stdout)
    assert found["answers"][0]["verdict"] in ("holds", "does not hold", "not shown")
    assert [pair["baseline"] for pair in found["answers"][0]["pairs"]] == ["ms-diffusion", "diffusion"]
    assert [row["label"] for row in found["results"]] == ["ms-onestep", "ms-diffusion", "diffusion", "onestep", "direct"]


def test_a_run_may_be_narrowed_and_roles_named(runs: list[Path]) -> None:
    done = run(*runs, "--student", "onestep", "--teacher", "diffusion", "--control", "none", "--json")
    assert done.exit_code == 0, done.output
    assert [row["label"] for row in json.loads(done.stdout)["results"]] == ["onestep", "diffusion", "direct"]
    few, many = runs
    lacking = run(f"{few}:ms-onestep", many)
    assert lacking.exit_code == 2
    assert "a claim needs ms-onestep, direct and one of" in lacking.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--teacher", "difusion,ms-diffusion"], "unknown decoder 'difusion'. Did you mean 'diffusion'?"),
        (["--control", "onestp"], "unknown decoder 'onestp'. Did you mean 'onestep'?"),
        (["--dataset", "photos", "--noise-seeds", "3"], "--dataset, --noise-seeds: of runs that are made, leave them out"),
    ],
)
def test_a_slip_beside_runs_is_refused(runs: list[Path], arguments: list[str], words: str) -> None:
    done = run(*runs, *arguments)
    assert done.exit_code == 2
    assert words in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--earlier", "nowhere"], "no run at nowhere"),
        (["--speed-dir", "nowhere"], "--speed-dir nowhere holds no run of `msbench speed`"),
        (["--teacher", ""], "--teacher names none"),
        (["--teacher", "diffusion@steps=50"], "--teacher diffusion@steps=50: leave label and steps out"),
        (["--teacher", "vae"], "vae decodes in one step"),
        (["--teacher", "mine=diffusion"], "--teacher mine=diffusion: leave label and steps out"),
        (["--student", "onestep@checkpoint=a/x.safetensors", "--control", "onestep@checkpoint=b/x.safetensors"], "twice"),
    ],
)
def test_what_is_asked_is_refused_before_any_run_is_made(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = run("--dataset", "photos", "--output-dir", tmp_path / "claim", *arguments)
    assert (done.exit_code, (tmp_path / "claim").exists()) == (2, False), done.output
    assert words in done.stderr


def test_earlier_weights_are_a_run_too(runs: list[Path], tmp_path: Path, make_run: MakeRun) -> None:
    make_run(
        tmp_path / "earlier", {"diffusion": 0.0}, spec={"diffusion": {"steps": 50, "weights_sha256": "e" * 64, **TRAINING}}
    )
    found = json.loads(run(*runs, "--earlier", tmp_path / "earlier", "--json").stdout)
    (late,) = [one for one in found["answers"][2]["findings"] if "last quarter" in one["condition"]]
    assert late["outcome"] == "passed"
    several = run(*runs, "--earlier", runs[1])
    assert (several.exit_code, "holds several decoders: give RUN:DECODER" in several.stderr) == (2, True)


def test_it_makes_its_runs_and_goes_on_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MetricSuite", LightSuite)
    monkeypatch.setattr(runner, "measure_cost", lambda decoder, *_, **__: Cost((), float(decoder.spec.steps), None, 1))
    for name, value in {"FEW": 1, "MANY": 3, "GRID": (1, 3)}.items():
        monkeypatch.setattr(claim, name, value)
    images, folder = make_images(tmp_path / "images", 8), tmp_path / "claim"
    asked = ["--dataset", f"folder:{images}", "--resolution", 32, "--cost-seconds", 0.01, "--output-dir", folder]
    # What builds at once stands for the one-step decoders.
    asked += ["--student", "pca-f8c4", "--control", "bicubic", "--direct", "jpeg", "--teacher", "diffusion"]
    measured = list[str]()
    measure = runner.QualityPass.run

    def counted(self: runner.QualityPass, *arguments: Any) -> str:
        measured.extend(self._decoders)
        if len(measured) == 5:
            raise KeyboardInterrupt
        return measure(self, *arguments)

    monkeypatch.setattr(runner.QualityPass, "run", counted)
    killed = run(*asked)
    assert killed.exit_code == 130, killed.output
    done = run(*asked)
    assert done.exit_code == 0, done.output
    wanted = ["pca-f8c4", "bicubic", "jpeg", "diffusion@steps=1", "diffusion@steps=3"]
    assert measured == [*wanted, wanted[-1]]
    cells = {path.parent.name.rpartition("-")[0]: read_record(path.parent).data for path in folder.glob("*/record.json")}
    assert {name: one.protocol.noise_seeds for name, one in cells.items()} == {
        name: 1 if "=3" in name else 3 for name in wanted
    }
    weights = sha256_file(shipped_path("diffusion"))[:8]
    assert {path.name for path in folder.glob("diffusion*")} == {f"diffusion@steps={steps}-{weights}" for steps in (1, 3)}
    assert (folder / "claim.md").is_file()
    assert "5 of 5: diffusion@steps=3" in done.stderr
    assert run(*asked).exit_code == 0
    assert len(measured) == 6
    other = run(*asked, "--batch-size", 2)
    assert other.exit_code == 2
    assert "batch_size is 2, the run in" in other.stderr
