"""What users and plug-ins import: names exist, resolve lazily, and the contract accepts a foreign decoder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import msbench


@pytest.mark.parametrize("name", msbench.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(msbench, name) is not None


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        msbench.nothing  # noqa: B018


def test_import_is_light() -> None:
    code = "import sys, msbench; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_module_can_be_started() -> None:
    done = subprocess.run([sys.executable, "-m", "msbench", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    for command in ("run", "compare", "train-decoder", "ls", "weights", "doctor"):
        assert command in done.stdout


@pytest.mark.parametrize("name", ["harness", "decoders", "baselines"])
def test_a_folder_that_hides_a_package_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    root = Path(msbench.__file__).resolve().parent
    script = ("-c", "import msbench; msbench.main()")
    for start, folder, path in ((("-m", "msbench"), tmp_path, root), (script, root.parent, f"{tmp_path}{os.pathsep}{root}")):
        done = subprocess.run(
            [sys.executable, *start, "ls", "decoders"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith(f"msbench: {name} is {tmp_path.resolve() / name / '__init__.py'}, not {root / name}: ")
        assert len(done.stderr.splitlines()) == 1


def test_a_foreign_class_satisfies_the_contract() -> None:
    class Mine:
        spec = msbench.DecoderSpec("mine", 8, 4, 1, 1, 0, None, None, "nothing")

        def encode(self, images: torch.Tensor) -> torch.Tensor:
            return images

        def decode(self, latents: torch.Tensor, noise: msbench.NoiseSource) -> torch.Tensor:
            return latents

    assert isinstance(Mine(), msbench.Decoder)
