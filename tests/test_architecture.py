"""The house: style, types, one-way imports, a light command line, and an editable install that is the checkout."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("harness", "decoders", "baselines")
LONGEST_FILE = 500  # lines, and one subject
HELP_SECONDS = 0.5
HEAVY = frozenset({"torch", "torchvision", "pandas"})


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def output(result: subprocess.CompletedProcess[str]) -> str:
    return f"{result.stdout}\n{result.stderr}"


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("command", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("lint-imports",)])
def test_style_and_import_contracts_hold(command: tuple[str, ...]) -> None:
    result = run(tool(command[0]), *command[1:])
    assert result.returncode == 0, output(result)


def test_types_hold() -> None:
    result = run(tool("mypy"))
    assert result.returncode == 0, output(result)


@pytest.mark.parametrize(
    ("module", "forbidden", "contract"),
    [
        ("harness/noise.py", "decoders.flow", "the harness reaches decoders by name only"),
        ("harness/data/images.py", "baselines.jpeg", "the harness reaches decoders by name only"),
        ("baselines/jpeg.py", "decoders.blocks", "decoders and baselines do not know each other"),
        ("harness/cost/latency.py", "harness.metrics.psnr", "harness subpackages know nothing of each other"),
        ("harness/stats/kid.py", "harness.metrics.metric", "arrows in the harness point one way"),
        ("harness/record/record.py", "harness.report.table", "arrows in the harness point one way"),
        ("harness/cost/attempt.py", "harness.check.causes", "arrows in the harness point one way"),
        ("harness/record/images.py", "harness.explain.explanation", "arrows in the harness point one way"),
        ("harness/files.py", "harness.data.images", "arrows in the harness point one way"),
        ("decoders/denoiser.py", "decoders.training.trainer", "model files never import the trainer"),
    ],
)
def test_contracts_notice_a_forbidden_import(tmp_path: Path, module: str, forbidden: str, contract: str) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=lambda _, names: [n for n in names if n == "__pycache__"])
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a") as stream:
        stream.write(f"\nimport {forbidden}\n")
    result = run(tool("lint-imports"), "--no-cache", cwd=tmp_path)
    assert result.returncode == 1, output(result)
    assert f"{contract} BROKEN" in result.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_files_fit_in_a_head_and_packages_are_typed(package: str) -> None:
    lengths = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in (ROOT / package).rglob("*.py")}
    assert lengths
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}
    assert (ROOT / package / "py.typed").is_file()


def test_contributing_accounts_for_every_dependency() -> None:
    project = pyproject()
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0] for group in groups for requirement in group}
    rows = re.findall(r"^\| `([^`]+)` \| [^|]+ \| [^|]+ \| [^|]+ \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == declared


def test_help_imports_nothing_heavy() -> None:
    result = run(sys.executable, "-X", "importtime", "-m", "msbench", "--help")
    assert result.returncode == 0, output(result)
    imported = {line.rsplit("|", 1)[1].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}
    assert any(name.split(".")[0] == "harness" for name in imported), "the import log was not understood"
    assert not {name for name in imported if name.split(".")[0] in HEAVY}


def test_help_is_quick() -> None:
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        result = run(sys.executable, "-m", "msbench", "--help")
        seconds.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
        assert result.returncode == 0, output(result)
    assert min(seconds) < HELP_SECONDS, seconds


def test_an_editable_install_is_the_checkout(tmp_path: Path) -> None:
    try:
        installed = metadata.distribution("msbench")
    except metadata.PackageNotFoundError:
        pytest.skip("msbench is not installed in this environment")
    if "editable" not in (installed.read_text("direct_url.json") or ""):
        pytest.skip("msbench is not an editable install in this environment")
    names = ("msbench", *PACKAGES)
    code = f"import importlib.util as u; print(*(u.find_spec(name).origin for name in {names!r}), sep='\\n')"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, output(result)
    found = dict(zip(names, map(Path, result.stdout.split("\n")), strict=False))
    assert found == {"msbench": ROOT / "msbench.py"} | {name: ROOT / name / "__init__.py" for name in PACKAGES}
