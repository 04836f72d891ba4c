"""What users and plug-ins import: names exist, resolve lazily, and the contract accepts a foreign decoder."""

from __future__ import annotations

import subprocess
import sys

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


def test_a_foreign_class_satisfies_the_contract() -> None:
    class Mine:
        spec = msbench.DecoderSpec("mine", 8, 4, 1, 1, 0, None, None, "nothing")

        def encode(self, images: torch.Tensor) -> torch.Tensor:
            return images

        def decode(self, latents: torch.Tensor, noise: msbench.NoiseSource) -> torch.Tensor:
            return latents

    assert isinstance(Mine(), msbench.Decoder)
