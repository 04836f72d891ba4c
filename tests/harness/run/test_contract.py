"""What a decoder returns and raises: checked where it enters, one line that names it; independence is probed."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from harness.errors import MsbenchError
from harness.record.record import read_record
from tests.harness.run.conftest import LightRun


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nan", r"odd-nan, image n03: decode gave 48 of 3072 values that are not finite"),
        ("inf", r"odd-inf, image n03: decode gave 48 of 3072"),
        ("twice", r"odd-twice, image n00: decode gave \[4, 3, 64, 64\], wanted \[4, 3, 32, 32\]"),
        ("smaller", r"gave \[4, 3, 30, 30\], wanted \[4, 3, 32, 32\]"),
        ("rgba", r"gave \[4, 4, 32, 32\]"),
        ("hwc", r"gave \[4, 32, 32, 3\]"),
        ("onebatch", r"gave \[1, 3, 32, 32\], wanted \[4, 3, 32, 32\]"),
        ("uint8", r"gave torch.uint8, wanted floating-point"),
        ("tuple", r"gave a tuple, wanted a torch.Tensor"),
        ("array", r"gave a ndarray, wanted a torch.Tensor"),
        ("mapped", r"odd-mapped, image n00: encode gave a dict, wanted a torch.Tensor"),
        ("raises", r"odd-raises: decode raised RuntimeError: shapes cannot be multiplied"),
        ("exit0", r"odd-exit0: decode raised SystemExit: 0"),
        ("memory", r"odd-memory: decode raised MemoryError: cannot"),
        ("third", r"odd-third: decode raised ValueError: decode broke second line"),
        ("fewspec", r"odd-fewspec: its spec lacks steps, scales"),
        ("strspec", r"odd-strspec: its spec has down_factor = '8': Input should be a valid integer"),
        ("zerospec", r"down_factor = 0: "),
        ("hugespec", r"down_factor = 1000000000: "),
        ("factory", r"odd-factory: its factory raised KeyError: 'no such model'"),
        ("leaves", r"odd-leaves: its factory raised SystemExit: 0"),
        ("absent", r"odd-absent of odd: loading .*odd_decoders:absent raised AttributeError"),
    ],
)
def test_a_broken_contract_is_one_line(light: LightRun, name: str, words: str) -> None:
    with pytest.raises(MsbenchError, match=words) as caught:
        light(f"odd-{name}")
    assert "\n" not in str(caught.value)


def test_an_interrupt_passes(light: LightRun) -> None:
    with pytest.raises(KeyboardInterrupt):
        light("odd-stop")


def test_decoders_get_tensors_that_are_theirs(light: LightRun) -> None:
    row = light("odd-inplace").results[0]
    assert row["latent_error"] == 0.0
    assert row["rfid"] == pytest.approx(0.0, abs=1e-9)


def test_global_state_is_as_before(light: LightRun) -> None:
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    light("odd-globals,odd-torch_noise,odd-numpy_noise,odd-python_noise")
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert torch.equal(generators[0], torch.get_rng_state())
    assert generators[1] == random.getstate()
    assert np.array_equal(generators[2], np.random.get_state()[1])


def test_another_range_and_clamping_are_said(light: LightRun) -> None:
    record = light("odd-range01,odd-range255,odd-clamped,odd-plain")
    first, second = record.data.warnings
    assert "odd-range01: output looks like [0, 1] instead of [-1, 1]" in first
    assert "by @range=01" in first
    assert "odd-range255: output looks like [0, 255] instead of [-1, 1]" in second
    assert "return output / 127.5 - 1" in second
    marks = {row["label"]: row["marks"] for row in record.rows_for_people()}
    assert marks["odd-range01"] == [first.removeprefix("decoder odd-range01: ")]
    assert marks["odd-range255"][0] == second.removeprefix("decoder odd-range255: ")
    assert marks["odd-plain"] == []
    assert record.data.decoders["odd-clamped"].clamped > 0.9
    assert record.data.decoders["odd-plain"].clamped == 0.0


def test_a_spec_of_another_class_is_taken_over(light: LightRun) -> None:
    assert light("odd-nsspec").data.decoders["odd-nsspec"].spec.trained_on == "nothing"


def test_keep_going_leaves_an_image_out_of_everybodys_figures(light: LightRun) -> None:
    with pytest.raises(MsbenchError, match="image n05: decode gave 3072 of 3072 values"):
        light("odd-plain,odd-bright", folder="strict")
    record = light("odd-plain,odd-bright", keep_going=True)
    assert [row["n"] for row in record.results] == [9, 9]
    assert [one.name for one in record.data.dataset.excluded] == ["n05"]
    assert "odd-bright" in record.data.dataset.excluded[0].reason
    assert "1 images left out" in record.data.warnings[0]
    assert "n05" not in set(record.samples()["key"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", "decoder odd-raises: decode raised RuntimeError: shapes cannot be multiplied"),
        ("nan", "decoder odd-nan, image n00: decode gave 48 of 3072 values that are not finite"),
    ],
)
def test_a_decoder_that_fails_on_every_image_is_named_once(light: LightRun, name: str, words: str) -> None:
    with pytest.raises(MsbenchError) as caught:
        light(f"odd-plain,odd-{name}", keep_going=True)
    assert str(caught.value).startswith(f"all 10 images were left out, the first for this: {words}")
    assert str(caught.value).count("decoder odd") == 1
    assert "--keep-going" not in str(caught.value)


def test_an_error_says_how_many_images_the_batch_had(light: LightRun) -> None:
    with pytest.raises(MsbenchError, match=r"shapes cannot be multiplied \(batch of 4 images: --batch-size 1 tries one a call"):
        light("odd-raises")
    with pytest.raises(MsbenchError) as caught:
        light("odd-twice", folder="other")
    assert "--batch-size" not in str(caught.value)  # the contract's own words


@pytest.mark.parametrize("name", ["torch_noise", "numpy_noise", "python_noise", "late_noise"])
def test_global_draws_are_noticed_and_depend_on_no_batch(light: LightRun, name: str) -> None:
    runs = [light(f"odd-{name}", f"run-{size}", batch_size=size, noise_seeds=2) for size in (1, 4)]
    for run in runs if name != "late_noise" else runs[1:]:
        noise = run.data.decoders[f"odd-{name}"].noise
        assert noise.global_draws
        assert noise.drawn
        assert noise.seeds == (0, 1)
        assert "random generator" in run.data.warnings[0]
        assert (run.results[0]["noise_spread"]["psnr"] > 0.0) or name == "late_noise"
    if name != "late_noise":  # how often it was called decides when that one begins
        first, second = (run.samples()[["psnr", "ssim", "latent_error"]].to_numpy() for run in runs)
        np.testing.assert_allclose(first, second, rtol=1e-9)


def test_dependence_on_the_batch_is_noticed(light: LightRun) -> None:
    record = light("odd-batchy,odd-plain")
    assert (record.data.decoders["odd-batchy"].noise.batch_dependence or 0) > 1
    assert record.data.decoders["odd-plain"].noise.batch_dependence == 0
    assert "odd-batchy: an image depends on its batch" in record.data.warnings[0]
    assert read_record(record.folder).data.warnings == record.data.warnings
