"""The checks: a few photographs through a decoder, every call watched for what the contract forbids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from harness.check import causes
from harness.cost.attempt import free_memory, is_out_of_memory
from harness.decoder import Decoder, DecoderOptions
from harness.errors import MsbenchError
from harness.noise import SampleNoise
from harness.registry import build_by
from harness.request.foreign import ForeignDecoder
from harness.request.requests import parse_request
from harness.run.config import check_device
from harness.run.independence import callers_generators, largest_difference, seeded
from harness.run.reconstruct import another_range, isolated, padded, to_uint8
from harness.speed.bench import photo_pixels

WARNING = "warning: "
"""begins the detail of a check that passed with a doubt"""
RESOLUTION = 256
"""side of the photographs in pixels, where none is asked for"""
_SMALL = (64, 96)  # height and width of the other size that is tried, before rounding up to the factor
_MOSTLY = 0.5  # share of clamped values that is no matter of taste any more
_REDUCED = 1.0  # levels by which batches of two sizes may differ on average in bf16 and fp16


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one check."""

    name: str
    """what was tried"""
    passed: bool | None
    """None where an earlier failure left nothing to try"""
    detail: str
    """where it failed: what, why, and how to mend it; "warning: …" where it passed with a doubt, else empty"""


def check(decoder: object, device: str = "cpu", resolution: int = RESOLUTION) -> list[Finding]:
    """Try whether a decoder keeps the contract, in this process: one that hangs or ends the process takes the caller along.

    Args:
        decoder: what `--decoder` takes, or an object with `encode` and `decode`, or these two functions.
        device: where it is tried.
        resolution: side of the photographs in pixels.

    Raises:
        MsbenchError: there is no such decoder, device or resolution, or it cannot be built.
    """
    where, dtype, kind = check_device(device), torch.float32, type(decoder).__name__
    if isinstance(decoder, str):
        request = parse_request(decoder)
        built, dtype = request.build(where, dtype, resolution=resolution), request.options(where, dtype).dtype
    else:
        built = build_by(partial(ForeignDecoder, decoder), kind, DecoderOptions(where, name=kind, resolution=resolution))
    return list(conformance(built, photo_pixels(resolution).to(where), dtype))


def conformance(decoder: Decoder, pixels: Tensor, dtype: torch.dtype = torch.float32) -> Iterator[Finding]:
    """Every check of `CHECKS` in turn, one finding each.

    Args:
        decoder: on the device of `pixels`.
        pixels: photographs, uint8 [B, 3, R, R], B at least 2.
        dtype: what the decoder's network was asked to compute in.
    """
    trial, passed = _Trial(decoder, pixels, dtype), set()
    with callers_generators(pixels.device):
        for name, needs, tried in CHECKS:
            if lacking := [need for need in needs if need not in passed]:
                yield Finding(name, None, f"not tried: needs {lacking[0]}")
                continue
            try:
                said = tried(trial)
            except MsbenchError as error:
                said = trial.told(error)
            if not said or said.startswith(WARNING):
                passed.add(name)
            yield Finding(name, name in passed, said)


class _Trial:
    """A decoder, what it gave for all photographs at once, and what its calls did that they must not."""

    def __init__(self, decoder: Decoder, pixels: Tensor, dtype: torch.dtype) -> None:
        self.decoder, self.dtype, self.device, self.factor = decoder, dtype, pixels.device, decoder.spec.down_factor
        self.images = padded(pixels, self.factor)
        self.latents = self.output = torch.empty(0)
        self.changed, self.drew, self.settings, self.starved = set[str](), set[str](), set[str](), ""

    def call(self, what: str, given: Tensor, first: int = 0) -> Tensor:
        """`encode` or `decode` a copy of some images or latents, those of photograph `first` and the next."""
        keys, mine, dtype = [f"photo-{first + place}" for place in range(len(given))], given.clone(), torch.get_default_dtype()
        more = (SampleNoise.for_samples(0, keys, self.device),) if what == "decode" else ()
        with seeded(0, keys, self.device) as drawn, isolated(self.decoder, what):
            came: object = getattr(self.decoder, what)(mine, *more)
            if torch.get_default_dtype() != dtype or torch.is_grad_enabled():
                self.settings.add(what)
        if drawn():
            self.drew.add(what)
        if mine.shape != given.shape or not torch.equal(mine.nan_to_num(), given.nan_to_num()):
            self.changed.add(what)
        if not isinstance(came, Tensor):
            raise MsbenchError(f"{what} gave a {type(came).__name__}, wanted a torch.Tensor: {causes.of_type(came)}")
        return came

    def fitting(self, what: str) -> Tensor:
        """`call` for all photographs, or half as many where memory does not hold them, and so on."""
        count = len(self.images)
        try:
            return self.call(what, self.images if what == "encode" else self.latents[:count])
        except MsbenchError as error:
            if is_out_of_memory(error):
                self.starved = f"{what} ran out of memory with {count} images of {list(self.images.shape[2:])} pixels"
            if count == 1 or not is_out_of_memory(error):
                raise
        self.images = self.images[: count // 2]
        free_memory()
        return self.fitting(what)

    def rounded(self, first: int, last: int) -> Tensor:
        """uint8 images of photographs `first` to `last`, encoded and decoded as a batch of their own."""
        output = self.call("decode", self.call("encode", self.images[first:last], first), first)
        if output.shape != self.images[first:last].shape:
            raise MsbenchError(f"a batch of {last - first} came back as {list(output.shape)}: depend on no batch size")
        return to_uint8(output)

    def told(self, error: MsbenchError) -> str:
        """What failed, and what to do about an error of torch's."""
        text = str(error).removeprefix(f"decoder {self.decoder.spec.name}: ")
        remedy = causes.of_error(text) if error.__cause__ is not None else ""
        if is_out_of_memory(error):
            remedy = "out of memory; compute the batch in parts, or take a smaller network or dtype"
        return f"{text}: {remedy}" if remedy else text


def _encode(trial: _Trial) -> str:
    trial.latents = trial.fitting("encode")
    found, count = list(trial.latents.shape), len(trial.images)
    return "" if found[:1] == [count] else f"encode gave {found} for {count} images: latents come one an image, batch first"


def _spec(trial: _Trial) -> str:
    shape, channels = list(trial.latents.shape[1:]), trial.decoder.spec.latent_channels
    wanted = [channels, *(side // trial.factor for side in trial.images.shape[2:])]
    if channels is None or len(shape) != 3 or not trial.latents.is_floating_point() or shape == wanted:
        return ""
    return f"encode gave latents of {shape}, its latent_channels and down_factor say {wanted}: state what it gives"


def _decode(trial: _Trial) -> str:
    trial.output = trial.fitting("decode")
    return ""


def _memory(trial: _Trial) -> str:
    return trial.starved and f"{trial.starved}: run with a smaller --batch-size, or compute the batch in parts"


def _shapes(trial: _Trial) -> str:
    came, wanted = list(trial.output.shape), list(trial.images.shape)
    return "" if came == wanted else f"decode gave {came}, wanted {wanted}: {causes.of_shape(came, wanted)}"


def _dtype(trial: _Trial) -> str:
    if not trial.output.is_floating_point():
        remedy = "" if trial.output.is_complex() else ": return output.float() / 127.5 - 1"
        return f"decode gave {trial.output.dtype}, wanted floating-point values in [-1, 1]{remedy}"
    names = " and ".join(sorted(trial.settings))
    return names and f"{names} sets torch's default dtype or gradient mode: leave both as they are"


def _device(trial: _Trial) -> str:
    found = {trial.latents.device.type, trial.output.device.type} - {trial.device.type}
    return f"results are on {' and '.join(found)}, wanted {trial.device}: leave them where the input is" if found else ""


def _finite(trial: _Trial) -> str:
    bad = (~trial.output.isfinite()).flatten(1).sum(dim=1)
    where = f"{int(bad.sum())} of {trial.output.numel()} values, in {int((bad > 0).sum())} of {len(bad)} images,"
    kind = "NaN" if trial.output.isnan().any() else "infinite"
    remedy = "use bf16 or fp32" if trial.dtype == torch.float16 else "look for a division by zero, a root or log below 0"
    return f"decode gave {where} that are {kind}: {remedy}" if bad.any() else ""


def _range(trial: _Trial) -> str:
    low, high = float(trial.output.min()), float(trial.output.max())
    values, clamped = f"values from {low:.3g} to {high:.3g}", float((trial.output.abs() > 1.0).float().mean())
    found = another_range(low, high, round((float(trial.images.min()) + 1) * 127.5))
    if found:
        remedy = "2 * output - 1" if found == "[0, 1]" else "output / 127.5 - 1"
        return f"{values} look like {found}, wanted [-1, 1]: return {remedy}"
    return f"{values}, {clamped:.0%} of them outside [-1, 1] and clamped: undo the scaling" if clamped > _MOSTLY else ""


def _content(trial: _Trial) -> str:
    doubt = causes.of_content(trial.images, trial.output)
    return doubt and WARNING + doubt


def _determinism(trial: _Trial) -> str:
    levels, differs = largest_difference(trial.rounded(0, 1), trial.rounded(0, 1))
    remedy = "keep no state between calls, and no generator: random numbers come from noise.normal"
    return f"the same image twice differs by up to {levels} of 255 levels: {remedy}" if differs else ""


def _generators(trial: _Trial) -> str:
    names, training = " and ".join(sorted(trial.drew)), causes.in_training(trial.decoder)
    remedy = "take noise.normal(shape, draw), whose numbers belong to the sample, and in encode the posterior's mode"
    cause = "draws from a global random generator (torch.randn, NumPy, or dropout that is on)"
    return names and f"{names} {cause}: {remedy}{training}"


def _batches(trial: _Trial) -> str:
    count = len(trial.images)
    if count < 2:
        return f"{WARNING}memory holds one image: not tried"
    whole, alone = to_uint8(trial.output), torch.cat([trial.rounded(0, 1), trial.rounded(1, count)])
    levels, differs = largest_difference(whole, alone)
    if trial.dtype != torch.float32:
        differs = float((whole.int() - alone.int()).abs().float().mean()) > _REDUCED
    cause = causes.of_order(whole, alone) or "use no statistics over the batch" + causes.in_training(trial.decoder)
    return f"an image depends on the others of its batch, by up to {levels} of 255 levels: {cause}" if differs else ""


def _sizes(trial: _Trial) -> str:
    height, width = (-(-side // trial.factor) * trial.factor for side in _SMALL)
    small = torch.nn.functional.interpolate(trial.images[:1], (height, width), mode="area")
    return _size(trial, small) or (trial.factor > 1 and _size(trial, small[..., :-1])) or ""


def _size(trial: _Trial, images: Tensor) -> str:
    """What became of a size; a refusal is fine."""
    wanted = list(images.shape)
    try:
        came = list(trial.call("decode", trial.call("encode", images)).shape)
    except MsbenchError:
        return ""
    cause = f"{wanted} came back as {came}: {causes.of_shape(came, wanted)}; or raise an error where a size does not fit"
    doubt = WARNING if wanted[3] % trial.factor else ""
    return "" if came == wanted else doubt + cause


def _inputs(trial: _Trial) -> str:
    names = " and ".join(sorted(trial.changed))
    return names and f"the input of {names} is changed in place, but others read it later: clone it, or write x = x * scale"


CHECKS: tuple[tuple[str, tuple[str, ...], Callable[[_Trial], str]], ...] = (
    ("encode", (), _encode),
    ("spec", ("encode",), _spec),
    ("decode", ("encode",), _decode),
    ("memory", (), _memory),
    ("shapes", ("decode",), _shapes),
    ("dtype", ("decode",), _dtype),
    ("device", ("decode",), _device),
    ("finite values", ("dtype",), _finite),
    ("range", ("finite values",), _range),
    ("content", ("shapes", "finite values"), _content),
    ("determinism", ("shapes", "finite values"), _determinism),
    ("random generators", ("decode",), _generators),
    ("batch independence", ("determinism", "random generators"), _batches),
    ("other sizes", ("shapes",), _sizes),
    ("inputs", ("encode",), _inputs),
)
"""each check: its name, the checks it needs, and what tries it: the problem in words, or "" for none"""
