"""The wheel: built from this checkout, holds what it must and nothing else, and works in an empty folder."""

from __future__ import annotations

import email
import importlib.util
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("harness", "decoders", "baselines")


def run(*command: str, cwd: Path, pythonpath: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if pythonpath is not None:
        environment["PYTHONPATH"] = str(pythonpath)
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def pip(*arguments: str, cwd: Path) -> None:
    result = run(sys.executable, "-m", "pip", *arguments, cwd=cwd)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the build backend that is installed, or with one that pip fetches."""
    folder = tmp_path_factory.mktemp("wheel")
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    pip("wheel", "--no-deps", *isolation, "--wheel-dir", str(folder), str(ROOT), cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel's content; dependencies come from the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-index", "--target", str(folder), str(wheel), cwd=folder)
    return folder


def content(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def files_below(folder: Path, suffix: str = "") -> set[str]:
    found = (path for path in folder.rglob(f"*{suffix}") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in found}


def test_holds_every_module_and_nothing_else_at_the_top(wheel: Path) -> None:
    names = content(wheel)
    modules = {f"{package}/{name}" for package in PACKAGES for name in files_below(ROOT / package, ".py")}
    markers = {f"{package}/py.typed" for package in PACKAGES}
    assert modules | markers | {"msbench.py"} <= names
    top = {name.split("/")[0] for name in names}
    (info,) = (name for name in top if name.endswith(".dist-info"))
    assert top == {*PACKAGES, "msbench.py", info}
    assert f"{info}/licenses/LICENSE" in names
    assert not [name for name in names if "__pycache__" in name or "/runs/" in name]


def test_holds_the_regression_references(wheel: Path) -> None:
    references = files_below(ROOT / "results" / "regression")
    assert references
    assert {f"harness/regression/{name}" for name in references} <= content(wheel)


def test_holds_what_pages_are_made_of(wheel: Path) -> None:
    assets = files_below(ROOT / "harness" / "report" / "assets")
    assert {"report.html.jinja", "report.js", "table.js", "page.css"} <= assets
    assert {f"harness/report/assets/{name}" for name in assets} <= content(wheel)


@pytest.mark.parametrize("package", ["decoders", "baselines"])
def test_holds_the_checkpoints(wheel: Path, package: str) -> None:
    shipped = files_below(ROOT / package / "checkpoints")
    assert any(name.endswith(".safetensors") for name in shipped)
    assert {f"{package}/checkpoints/{name}" for name in shipped} <= content(wheel)


def test_metadata_says_what_pyproject_says(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Version"] == project["version"]
    assert metadata["Requires-Python"] == project["requires-python"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra") or []) == set(project["optional-dependencies"])


def test_lists_decoders_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    result = run(sys.executable, "-m", "msbench", "ls", "decoders", cwd=tmp_path, pythonpath=installed)
    shown = f"{result.stdout}\n{result.stderr}"
    assert result.returncode == 0, shown
    assert [
        name for name in ("vae", "diffusion", "ms-diffusion", "onestep", "ms-onestep", "bicubic", "jpeg") if name not in shown
    ] == []
    assert not list(tmp_path.iterdir())


def test_the_public_face_comes_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    names = ("msbench", *PACKAGES)
    show = "; ".join(f"print({name}.__file__)" for name in names)
    code = f"import {', '.join(names)}; from msbench import Decoder, compare, evaluate; {show}"
    result = run(sys.executable, "-c", code, cwd=tmp_path, pythonpath=installed)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    assert [Path(line).is_relative_to(installed) for line in result.stdout.splitlines()] == [True] * len(names)
