"""The checks: a few photographs through a decoder, every call watched for what the contract forbids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.check import causes
from harness.cost.attempt import free_memory, is_out_of_memory
from harness.decoder import Decoder, DecoderOptions
from harness.errors import MsbenchError
from harness.noise import SampleNoise
from harness.registry import build_decoder, checked_spec
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
    """what was seen; where it failed, also why and how to mend it; "warning: …" where it passed with a doubt"""


def check(decoder: Decoder | str, device: str = "cpu", resolution: int = RESOLUTION) -> list[Finding]:
    """Try whether a decoder keeps the contract, in this process: one that hangs or ends the process takes the caller along.

    Args:
        decoder: an object with `spec`, `encode` and `decode`, or what `--decoder` takes.
        device: where it is tried; an object must be there already.
        resolution: side of the photographs in pixels.

    Raises:
        MsbenchError: there is no such decoder, device or resolution, or it cannot be built.
    """
    where = check_device(device)
    built = build_decoder(decoder, DecoderOptions(where)) if isinstance(decoder, str) else decoder
    if not isinstance(built, Decoder):
        raise MsbenchError(f"a {type(built).__name__} has no spec, encode or decode")
    checked_spec(type(built).__name__, built.spec)
    return list(conformance(built, photo_pixels(resolution).to(where)))


def conformance(
    decoder: Decoder,
    pixels: Tensor,
    dtype: torch.dtype = torch.float32,
    begin: Callable[[str], None] = lambda name: None,
) -> Iterator[Finding]:
    """Every check in turn, one finding each.

    Args:
        decoder: on the device of `pixels`.
        pixels: photographs, uint8 [B, 3, R, R], B at least 2.
        dtype: what the decoder's network was asked to compute in.
        begin: called with the name of each check before it.
    """
    trial, passed = _Trial(decoder, pixels, dtype), set()
    with callers_generators(pixels.device):
        for name, needs, tried in CHECKS:
            if lacking := [need for need in needs if need not in passed]:
                yield Finding(name, None, f"not tried: needs {lacking[0]}")
                continue
            begin(name)
            try:
                finding = Finding(name, True, tried(trial))
                passed.add(name)
            except MsbenchError as error:
                finding = Finding(name, False, _mended(trial, error))
            yield finding


class _Trial:
    """A decoder, what it gave for all photographs at once, and what its calls did that they must not."""

    def __init__(self, decoder: Decoder, pixels: Tensor, dtype: torch.dtype) -> None:
        self.decoder, self.dtype, self.device, self.batch = decoder, dtype, pixels.device, len(pixels)
        self.factor = decoder.spec.down_factor
        self.images = padded(pixels, self.factor)
        self.changed: set[str] = set()
        self.drew: set[str] = set()
        self.settings: set[str] = set()
        self.starved = ""
        self.latents = self.output = torch.empty(0)

    def encode(self, images: Tensor, first: int = 0) -> Tensor:
        """Latents of some photographs, the first of which has number `first`."""
        return self._call("encode", self.decoder.encode, images, first)

    def decode(self, latents: Tensor, first: int = 0) -> Tensor:
        """Images of their latents, as the decoder gave them."""
        noise = SampleNoise.for_samples(0, _keys(first, len(latents)), self.device)
        return self._call("decode", lambda given: self.decoder.decode(given, noise), latents, first)

    def rounded(self, first: int, last: int) -> Tensor:
        """uint8 images of photographs `first` to `last`, encoded and decoded as a batch of their own."""
        output = self.decode(self.encode(self.images[first:last], first), first)
        if output.shape != self.images[first:last].shape:
            raise MsbenchError(f"{last - first} images alone came back as {list(output.shape)}: depend on no batch size")
        return to_uint8(output)

    def fitting(self, what: str, call: Callable[[int], Tensor]) -> Tensor:
        """What a call gives for the largest batch that memory holds: all photographs, or half as many, and so on."""
        while True:
            try:
                return call(self.batch)
            except MsbenchError as error:
                if not is_out_of_memory(error):
                    raise
                self.starved = f"{what} ran out of memory with {self.batch} images of {list(self.images.shape[2:])} pixels"
                if self.batch == 1:
                    raise
            self.batch //= 2
            free_memory()

    def _call(self, what: str, call: Callable[[Tensor], object], first: Tensor, number: int) -> Tensor:
        given, dtype = first.clone(), torch.get_default_dtype()
        with seeded(0, _keys(number, len(first)), self.device) as drawn, isolated(self.decoder, what):
            came = call(given)
            if torch.get_default_dtype() != dtype:
                self.settings.add(f"{what} sets torch's default dtype to {torch.get_default_dtype()}")
            if torch.is_grad_enabled():
                self.settings.add(f"{what} turns gradients on")
        if drawn():
            self.drew.add(what)
        if given.shape != first.shape or not torch.equal(given.nan_to_num(), first.nan_to_num()):
            self.changed.add(what)
        if not isinstance(came, Tensor):
            raise MsbenchError(f"{what} gave a {type(came).__name__}, wanted a torch.Tensor: {causes.of_type(came)}")
        return came


def _keys(first: int, count: int) -> list[str]:
    return [f"photo-{first + place}" for place in range(count)]


def _mended(trial: _Trial, error: MsbenchError) -> str:
    """What failed, and what to do about an error of torch's."""
    text = str(error).removeprefix(f"decoder {trial.decoder.spec.name}: ")
    if is_out_of_memory(error):
        return f"{text}: out of memory; compute the batch in parts, or take a smaller network or dtype"
    remedy = causes.of_error(text) if error.__cause__ is not None else ""
    return f"{text}: {remedy}" if remedy else text


def _encode(trial: _Trial) -> str:
    trial.latents = trial.fitting("encode", lambda count: trial.encode(trial.images[:count]))
    if list(trial.latents.shape[:1]) != [trial.batch]:
        raise MsbenchError(
            f"encode gave {list(trial.latents.shape)} for {trial.batch} images: latents come one an image, batch first"
        )
    return f"{list(trial.images[: trial.batch].shape)} to {list(trial.latents.shape)}, {trial.latents.dtype}"


def _spec(trial: _Trial) -> str:
    spec, shape = trial.decoder.spec, list(trial.latents.shape[1:])
    if spec.latent_channels is None or len(shape) != 3 or not trial.latents.is_floating_point():
        return f"no latent grid: f{trial.factor}, codes of {shape}"
    side = trial.images.shape[2] // trial.factor
    if shape != [spec.latent_channels, side, side]:
        raise MsbenchError(
            f"encode gave latents of {shape}, its spec says {[spec.latent_channels, side, side]} (latent_channels = "
            f"{spec.latent_channels}, down_factor = {trial.factor}): state in the spec what encode gives"
        )
    return f"f{trial.factor}c{spec.latent_channels}, as encode gives them"


def _decode(trial: _Trial) -> str:
    trial.output = trial.fitting("decode", lambda count: trial.decode(trial.latents[:count]))
    return f"{list(trial.output.shape)}, {trial.output.dtype}"


def _memory(trial: _Trial) -> str:
    if trial.starved:
        raise MsbenchError(f"{trial.starved}: run with a smaller --batch-size, or decode the batch in parts")
    return f"{trial.batch} images of {list(trial.images.shape[2:])} pixels fit"


def _shapes(trial: _Trial) -> str:
    came, wanted = list(trial.output.shape), list(trial.images[: trial.batch].shape)
    if came != wanted:
        raise MsbenchError(f"decode gave {came}, wanted {wanted}: {causes.of_shape(came, wanted)}")
    return "images have the size they had"


def _dtype(trial: _Trial) -> str:
    if not trial.output.is_floating_point():
        remedy = ": return output.float() / 127.5 - 1" if not trial.output.is_complex() else ""
        raise MsbenchError(f"decode gave {trial.output.dtype}, wanted floating-point values in [-1, 1]{remedy}")
    if trial.settings:
        raise MsbenchError(f"{', '.join(sorted(trial.settings))}: leave torch's global settings as they are")
    return str(trial.output.dtype)


def _device(trial: _Trial) -> str:
    found = {"encode": trial.latents.device, "decode": trial.output.device}
    if wrong := [f"{what} gave a tensor on {device}" for what, device in found.items() if device.type != trial.device.type]:
        raise MsbenchError(f"{', '.join(wrong)}, wanted {trial.device}: leave results where the input is")
    return str(trial.device)


def _finite(trial: _Trial) -> str:
    bad = (~trial.output.isfinite()).flatten(1).sum(dim=1)
    if bad.any():
        share = f"{int(bad.sum())} of {trial.output.numel()} values in {int((bad > 0).sum())} of {trial.batch} images"
        kind = "NaN" if trial.output.isnan().any() else "infinite"
        low = trial.dtype != torch.float32
        remedy = "fp16 overflows above 65504: use bf16 or fp32" if low else "look for a division by zero, a root or log below 0"
        raise MsbenchError(f"decode gave {share} that are {kind}: {remedy}; print where the first appears")
    return "no NaN, no infinity"


def _range(trial: _Trial) -> str:
    low, high = float(trial.output.min()), float(trial.output.max())
    found = another_range(low, high, round((float(trial.images.min()) + 1) * 127.5))
    remedy = {"[0, 1]": "return 2 * output - 1", "[0, 255]": "return output / 127.5 - 1"}.get(found)
    if remedy:
        raise MsbenchError(f"values from {low:.3g} to {high:.3g} look like {found}, wanted [-1, 1]: {remedy}")
    clamped = float((trial.output.abs() > 1.0).float().mean())
    if clamped > _MOSTLY:
        raise MsbenchError(
            f"{clamped:.0%} of the values lie outside [-1, 1] (from {low:.3g} to {high:.3g}), to be clamped: undo the scaling"
        )
    return f"{low:.3g} to {high:.3g}, {clamped:.1%} outside [-1, 1]"


def _determinism(trial: _Trial) -> str:
    first, second = trial.rounded(0, 1), trial.rounded(0, 1)
    levels, differs = largest_difference(first, second)
    if differs:
        raise MsbenchError(
            f"the same image decoded twice differs by up to {levels} of 255 levels, with torch's, NumPy's and Python's "
            "generators seeded alike: keep no state between calls, own no generator; random numbers come from noise.normal"
        )
    return "the same image twice is the same"


def _generators(trial: _Trial) -> str:
    if trial.drew:
        raise MsbenchError(
            f"{' and '.join(sorted(trial.drew))} draws from a global random generator (torch.randn, NumPy, random, or dropout "
            "that is on), so an image depends on those before it: take noise.normal(shape, draw), whose numbers belong to the "
            f"sample, and in encode the mode of the posterior{causes.in_training(trial.decoder)}"
        )
    return "none but the noise it is given"


def _batches(trial: _Trial) -> str:
    if trial.batch < 2:
        return f"{WARNING}memory holds one image: not tried"
    whole = to_uint8(trial.output)
    alone = torch.cat([trial.rounded(0, 1), trial.rounded(1, trial.batch)])
    levels, differs = largest_difference(whole, alone)
    if trial.dtype != torch.float32:
        differs = float((whole.int() - alone.int()).abs().float().mean()) > _REDUCED
    if differs:
        cause = causes.of_order(whole, alone) or "use no statistics over the batch" + causes.in_training(trial.decoder)
        raise MsbenchError(f"an image depends on the others of its batch, by up to {levels} of 255 levels: {cause}")
    return f"batches of {trial.batch}, {trial.batch - 1} and 1 agree within {levels} of 255 levels"


def _inputs(trial: _Trial) -> str:
    if trial.changed:
        names = " and ".join(sorted(trial.changed))
        raise MsbenchError(
            f"the input of {names} is changed in place (x.mul_(), x[...] =, x *= …), but others read it later: clone it first, "
            "or write x = x * scale"
        )
    return "inputs stay as they were"


def _sizes(trial: _Trial) -> str:
    height, width = (-(-side // trial.factor) * trial.factor for side in _SMALL)
    small = torch.nn.functional.interpolate(trial.images[:1], (height, width), mode="area")
    said = [_size(trial, small, fits=True)]
    if trial.factor > 1:
        said.append(_size(trial, small[..., :-1], fits=False))
    return WARNING * any("silently" in one for one in said) + "; ".join(said)


def _size(trial: _Trial, images: Tensor, fits: bool) -> str:
    """What became of a size that is a multiple of the factor, or is none; a refusal is fine."""
    size = f"{images.shape[2]}x{images.shape[3]}"
    try:
        came = list(trial.decode(trial.encode(images)).shape)
    except MsbenchError as error:
        return f"{size} refused ({_mended(trial, error)})"
    if came == list(images.shape):
        return f"{size} fits"
    if fits:
        cause = causes.of_shape(came, list(images.shape))
        raise MsbenchError(f"{size} came back as {came}: {cause}; or raise an error where a size does not fit")
    return f"{size}, no multiple of {trial.factor}, silently came back as {came[-2]}x{came[-1]}: raise an error there"


def _content(trial: _Trial) -> str:
    doubt = causes.of_content(trial.images[: trial.batch], trial.output)
    return WARNING + doubt if doubt else "images look like the input"


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
"""each check: its name, the checks it needs, and what to try"""
