"""Each fault is found by its own check, which names cause and remedy; sound decoders pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import msbench
from harness.check.conformance import CHECKS, WARNING, Finding, conformance
from harness.decoder import Decoder, DecoderSpec
from harness.errors import MsbenchError
from harness.speed.bench import photo_pixels
from tests.harness.run.odd_decoders import Inplace, Odd

SIDE = 64
Change = Callable[[Tensor, Odd], Any]


@pytest.fixture(scope="module")
def photos() -> Tensor:
    return photo_pixels(SIDE)


def failures(decoder: Decoder, photos: Tensor, dtype: torch.dtype = torch.float32) -> dict[str, str]:
    return {one.name: one.detail for one in conformance(decoder, photos, dtype) if one.passed is False}


class Net(nn.Module):
    """A decoder that is a module, with whatever layer is asked for on the way."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.spec = DecoderSpec("net", 1, 3, 1, 1, 0, None, None, "nothing")
        self.layer = layer

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor, noise: Any) -> Tensor:
        output: Tensor = self.layer(latents)
        return output


def drift(x: Tensor, me: Odd) -> Tensor:
    return x * (1.0 - 0.05 * me.calls)


def hungry(most: int) -> Change:
    def change(x: Tensor, me: Odd) -> Tensor:
        if len(x) > most:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return x

    return change


def one_sample(x: Tensor, me: Odd) -> Tensor:
    y = x.clone()
    y[::4] = torch.nan
    return y


def pickled(x: Tensor, me: Odd) -> Any:
    class Output:
        sample = x

    return Output()


def double_default(x: Tensor, me: Odd) -> Tensor:
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(True)
    return x


def raises(message: str) -> Change:
    def change(x: Tensor, me: Odd) -> Tensor:
        raise RuntimeError(message)

    return change


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (lambda x, me: x * torch.nan, "finite values", "values, in 4 of 4 images, that are NaN"),
        (one_sample, "finite values", "12288 of 49152 values, in 1 of 4 images, that are NaN"),
        (lambda x, me: x / 0.0, "finite values", "infinite"),
        (lambda x, me: (x + 1) / 2, "range", "look like [0, 1], wanted [-1, 1]: return 2 * output - 1"),
        (lambda x, me: (x + 1) * 127.5, "range", "look like [0, 255], wanted [-1, 1]: return output / 127.5 - 1"),
        (lambda x, me: x * 1000.0, "range", "of them outside [-1, 1] and clamped"),
        (lambda x, me: ((x + 1) * 127.5).to(torch.uint8), "dtype", "torch.uint8, wanted floating-point values"),
        (lambda x, me: x.to(torch.complex64), "dtype", "torch.complex64, wanted floating-point values in [-1, 1]"),
        (double_default, "dtype", "decode sets torch's default dtype or gradient mode"),
        (lambda x, me: x.repeat_interleave(2, 2).repeat_interleave(2, 3), "shapes", "2 times the size"),
        (lambda x, me: F.pad(x, (5, 5, 5, 5)), "shapes", "10 rows and 10 columns too many: crop"),
        (lambda x, me: x[..., :-2, :-1], "shapes", "2 rows and 1 columns too few: pad the convolutions"),
        (lambda x, me: torch.cat([x, x[:, :1]], 1), "shapes", "4 channels in place of RGB, as of RGBA: return output[:, :3]"),
        (lambda x, me: x[:, :1], "shapes", "1 channels in place of RGB: return output.expand"),
        (lambda x, me: x.permute(0, 2, 3, 1), "shapes", "channels come last: return output.permute(0, 3, 1, 2)"),
        (lambda x, me: x[:1], "shapes", "a batch of 4 came back as 1"),
        (lambda x, me: x[0], "shapes", "the batch dimension is gone"),
        (lambda x, me: (x,), "decode", "gave a tuple, wanted a torch.Tensor: return its tensor alone"),
        (pickled, "decode", "gave a Output, wanted a torch.Tensor: it has .sample: return that tensor"),
        (lambda x, me: None, "decode", "gave a NoneType, wanted a torch.Tensor: its `return` is missing"),
        (
            raises("shapes cannot be multiplied"),
            "decode",
            "cannot be multiplied: the network wants another layout",
        ),
        (raises("Expected all tensors to be on the same device"), "decode", "on `options.device`"),
        (raises("expected scalar type Float but found Half"), "decode", "cast inputs to the network's dtype"),
        (lambda x, me: x + 0.1 * torch.randn_like(x), "random generators", "decode draws from a global random generator"),
        (drift, "determinism", "the same image twice differs by up to"),
        (lambda x, me: x * (0.5 + len(x) / 10), "batch independence", "depends on the others of its batch"),
        (lambda x, me: x.flip(0), "batch independence", "its images come back in another order"),
        (
            lambda x, me: x[..., :SIDE, :SIDE],
            "other sizes",
            "came back as [1, 3, 64, 64]: 0 rows and 32 columns too few",
        ),
        (hungry(2), "memory", "decode ran out of memory with 4 images of [64, 64] pixels: run with a smaller --batch-size"),
    ],
)
def test_a_fault_fails_its_own_check_alone(change: Change, name: str, words: str, photos: Tensor) -> None:
    found = failures(Odd(change), photos)
    assert list(found) == [name], found
    assert words in found[name]


def test_a_fault_leaves_out_what_needs_it(photos: Tensor) -> None:
    found = {one.name: one for one in conformance(Odd(lambda x, me: (x,)), photos)}
    assert list(found) == [name for name, _, _ in CHECKS]
    assert found["batch independence"] == Finding("batch independence", None, "not tried: needs determinism")
    assert found["encode"].passed
    assert found["spec"].passed


def test_memory_that_holds_nothing_is_told_at_both_places(photos: Tensor) -> None:
    found = failures(Odd(hungry(0)), photos)
    assert list(found) == ["decode", "memory"]
    assert "compute the batch in parts" in found["decode"]
    assert "with 1 images" in found["memory"]


def test_memory_for_one_image_leaves_the_batch_untried(photos: Tensor) -> None:
    findings = {one.name: one for one in conformance(Odd(hungry(1)), photos)}
    assert not findings["memory"].passed
    assert findings["batch independence"].detail.startswith(WARNING)


def test_inputs_changed_in_place(photos: Tensor) -> None:
    found = failures(Inplace(), photos)
    assert list(found) == ["inputs"]
    assert "the input of decode and encode is changed in place" in found["inputs"]


@pytest.mark.parametrize(
    ("latents", "name", "words"),
    [
        (lambda x: {"z": x}, "encode", "encode gave a dict, wanted a torch.Tensor"),
        (lambda x: (x, x), "encode", "encode gave a tuple, wanted a torch.Tensor: return its tensor alone"),
        (lambda x: x[:1], "encode", "encode gave [1, 3, 64, 64] for 4 images"),
        (
            lambda x: F.avg_pool2d(x, 2),
            "spec",
            "encode gave latents of [3, 32, 32], its latent_channels and down_factor say [3, 64, 64]",
        ),
        (lambda x: x + 0.1 * torch.randn_like(x), "random generators", "encode draws from a global random generator"),
    ],
)
def test_the_encoder_is_tried_too(latents: Callable[[Tensor], Any], name: str, words: str, photos: Tensor) -> None:
    decoder = Odd(lambda x, me: F.interpolate(x / 2, (SIDE, SIDE)))
    decoder.encode = latents  # type: ignore[method-assign]
    found = failures(decoder, photos)
    assert words in found[name]


def test_layers_in_training_mode_are_named(photos: Tensor) -> None:
    drops = failures(Net(nn.Dropout(0.1)), photos)
    assert "Dropout in training mode: call .eval()" in drops["random generators"]
    norm = nn.Sequential(nn.BatchNorm2d(3, momentum=0.0), nn.Hardtanh())
    assert "BatchNorm2d in training mode: call .eval()" in failures(Net(norm), photos)["batch independence"]
    assert failures(Net(norm).eval(), photos) == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, me: x.flip(1), "in channels BGR, not RGB: return output[:, [2, 1, 0]]"),
        (lambda x, me: x[:, [1, 2, 0]], "in channels GBR, not RGB: return output[:, [2, 0, 1]]"),
        (lambda x, me: -x, "inverted: return -output"),
        (lambda x, me: x.flip(2), "upside down"),
        (lambda x, me: x.flip(3), "mirrored"),
        (lambda x, me: torch.zeros_like(x) - 0.5, "do not look like the input"),
    ],
)
def test_content_that_is_rearranged_is_a_warning(change: Change, words: str, photos: Tensor) -> None:
    findings = {one.name: one for one in conformance(Odd(change), photos)}
    assert [one.name for one in findings.values() if not one.passed] == []
    assert findings["content"].detail.startswith(WARNING)
    assert words in findings["content"].detail


def test_the_remedy_for_channels_mends_them(photos: Tensor) -> None:
    detail = next(one.detail for one in conformance(Odd(lambda x, me: x[:, [1, 2, 0]]), photos) if one.name == "content")
    order = [int(one) for one in detail.partition("output[:, [")[2].partition("]")[0].split(",")]
    assert [[1, 2, 0][place] for place in order] == [0, 1, 2]


class Pooled(Odd):
    """A latent grid at an eighth, whose sizes must be multiples of 8 or are refused, or not."""

    def __init__(self, refuses: bool) -> None:
        super().__init__(down_factor=8)
        self._refuses = refuses

    def encode(self, images: Tensor) -> Tensor:
        if self._refuses and images.shape[3] % 8:
            raise ValueError("sides must be multiples of 8")
        return F.avg_pool2d(images, 8)

    def decode(self, latents: Tensor, noise: Any) -> Tensor:
        return F.interpolate(latents, scale_factor=8)


def test_sizes_that_do_not_fit_are_refused_or_a_warning(photos: Tensor) -> None:
    refused, silent = (
        next(one for one in conformance(Pooled(refuses), photos) if one.name == "other sizes") for refuses in (True, False)
    )
    assert refused == Finding("other sizes", True, "")
    assert silent.passed
    assert silent.detail.startswith(f"{WARNING}[1, 3, 64, 95] came back as [1, 3, 64, 88]: 0 rows and 7 columns too few")
    assert silent.detail.endswith("raise an error where a size does not fit")


def test_reduced_precision_may_differ_between_batches(photos: Tensor) -> None:
    def rounds(x: Tensor, me: Odd) -> Tensor:
        return x + 0.004 * (torch.arange(x.shape[-1]) % 4 == 0) * (len(x) == 1)

    assert "batch independence" not in failures(Odd(rounds), photos, torch.bfloat16)
    overflow = failures(Odd(lambda x, me: x / 0.0), photos, torch.float16)
    assert "use bf16 or fp32" in overflow["finite values"]


def test_generators_and_settings_are_as_before(photos: Tensor) -> None:
    before = torch.get_rng_state()
    list(conformance(Odd(double_default), photos))
    list(conformance(Odd(lambda x, me: x + torch.randn_like(x)), photos))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


def test_the_public_function_takes_names_and_objects() -> None:
    for decoder in ("identity", Pooled(True)):
        assert [one for one in msbench.check(decoder, resolution=SIDE) if not one.passed] == []
    functions = (lambda images: images * 1.0, lambda latents: latents)
    assert [one for one in msbench.check(functions, resolution=SIDE) if not one.passed] == []
    with pytest.raises(MsbenchError, match="encode and decode"):
        msbench.check(object(), resolution=SIDE)
    with pytest.raises(MsbenchError, match=r"unknown decoder 'identiti'. Did you mean 'identity'"):
        msbench.check("identiti", resolution=SIDE)
