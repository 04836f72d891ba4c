"""`taef2`: the rebuilt network against the files it was rebuilt for, and what happens without them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from baselines.tae import taef2
from harness.decoder import Decoder, DecoderOptions
from harness.errors import MsbenchError
from harness.files import sha256_file
from harness.noise import SampleNoise

WEIGHTS = Path(__file__).resolve().parents[3] / "shared" / "weights"
needs_weights = pytest.mark.skipif(not (WEIGHTS / "taef2_decoder.pth").is_file(), reason="the taef2 files are not here")


def noise(count: int) -> SampleNoise:
    return SampleNoise.for_samples(0, [str(index) for index in range(count)])


@needs_weights
def test_reconstructs_a_photograph() -> None:
    decoder = taef2(DecoderOptions(checkpoint=WEIGHTS))
    image = torch.from_numpy(np.ascontiguousarray(data.chelsea()[20:148, 100:228])).permute(2, 0, 1)[None]
    images = image.float() / 127.5 - 1.0
    latents = decoder.encode(images)
    assert latents.shape == (1, 32, 16, 16)
    decoded = decoder.decode(latents, noise(1)).clamp(-1, 1)
    error = ((decoded - images) * 127.5).square().mean()
    assert 10 * torch.log10(255**2 / error) > 28  # 29.6 dB; 26.6 at most with another group count of the normalisation


@needs_weights
def test_spec_names_both_files() -> None:
    spec = taef2(DecoderOptions(checkpoint=WEIGHTS)).spec
    assert spec.weights_sha256 == sha256_file(WEIGHTS / "taef2_decoder.pth")
    assert spec.encoder_sha256 == sha256_file(WEIGHTS / "taef2_encoder.pth")
    assert (spec.down_factor, spec.latent_channels, spec.parameters) == (8, 32, 1_338_499)
    assert spec.trained_on.startswith("unknown")


@needs_weights
def test_files_in_each_others_place_are_refused(tmp_path: Path) -> None:
    shutil.copyfile(WEIGHTS / "taef2_encoder.pth", tmp_path / "taef2_decoder.pth")
    shutil.copyfile(WEIGHTS / "taef2_decoder.pth", tmp_path / "taef2_encoder.pth")
    with pytest.raises(MsbenchError, match="does not hold the weights expected") as caught:
        taef2(DecoderOptions(checkpoint=tmp_path))
    assert "\n" not in str(caught.value)


def test_says_what_to_pass_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(MsbenchError, match="--checkpoint FOLDER"):
        taef2(DecoderOptions())
    with pytest.raises(MsbenchError, match=r"no file .*taef2_encoder\.pth"):
        taef2(DecoderOptions(checkpoint=tmp_path))


@pytest.mark.parametrize("content", [b"", b"not a torch file", b"\x80\x02"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "taef2_encoder.pth").write_bytes(content)
    with pytest.raises(MsbenchError, match=r"taef2_encoder\.pth does not hold"):
        taef2(DecoderOptions(checkpoint=tmp_path))


def test_random_weights_need_no_file() -> None:
    decoder = taef2(DecoderOptions(weights="random", dtype=torch.bfloat16))
    assert isinstance(decoder, Decoder)
    decoded = decoder.decode(decoder.encode(torch.zeros(1, 3, 24, 16)), noise(1))
    assert (decoded.shape, decoded.dtype) == ((1, 3, 24, 16), torch.float32)
    kernels = [one for one in decoder.decoder.parameters() if one.ndim == 4 and min(one.shape[1:]) > 1]  # type: ignore[attr-defined]
    assert all(one.is_contiguous(memory_format=torch.channels_last) and not one.is_contiguous() for one in kernels)
    assert kernels
    assert (decoder.spec.trained_on, decoder.spec.weights_sha256) == ("random weights", None)


def test_steps_and_odd_sizes_are_refused() -> None:
    with pytest.raises(MsbenchError, match="no steps"):
        taef2(DecoderOptions(weights="random", steps=1))
    with pytest.raises(MsbenchError, match="multiples of 8"):
        taef2(DecoderOptions(weights="random")).encode(torch.zeros(1, 3, 20, 16))
