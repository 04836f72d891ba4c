"""A decoder out of any object with `encode` and `decode`, or of these two functions; a probe shows what its spec lacks."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from itertools import islice
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.decoder import Compilable, Compiler, Decoder, DecoderOptions, DecoderSpec, NoiseSource
from harness.environment import source_sha256
from harness.errors import MsbenchError
from harness.noise import SampleNoise

PROBES = (64, 128, 224, 256, 384, 512)
"""sides in pixels of the black images that an encoder is tried on after the run's own, until it takes one"""
_LOOK_UPS = ("aten::embedding", "aten::index.Tensor", "aten::index_select")
_DEPTH = 5  # objects within objects that are searched for modules
_Kind = TypeVar("_Kind")
_SEEN = {"down_factor", "latent_channels", "parameters"}  # of a spec: what a probe is for


class ForeignDecoder:
    """Somebody's object behind the contract.

    Networks are put in evaluation mode and on the device. `encode` runs in the dtype they have, `decode` in `options.dtype`, by
    a copy, buffers included, where that is another one.

    Args:
        thing: has `encode(images)` and `decode(latents)` or `decode(latents, noise)`, and may have a `spec`, whole or in part;
            or a pair of these functions.
        options: device, dtype, name and, in `own`: range (11, or 01 for images in [0, 1] both ways), trained_on, down_factor.
        source: SHA-256 of the file it comes from; None = of the file that defines its class.

    Raises:
        MsbenchError: it has no `encode` and `decode`, an option does not fit, nothing of it computes in `options.dtype`, or
            something cannot be seen and must be given.
    """

    def __init__(self, thing: Any, options: DecoderOptions, source: str | None = None) -> None:
        if isinstance(thing, (tuple, list)) and len(thing) == 2 and all(map(callable, thing)):
            thing = SimpleNamespace(encode=thing[0], decode=thing[1])
        if isinstance(thing, type) or not has_codec(thing):
            what = f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"
            wanted = "give an object with encode and decode, or a pair of these functions"
            raise MsbenchError(f"decoder {options.name}: {wanted}, not {what}")
        self.source_sha256 = source or source_sha256(thing)
        self._options, self._unit = options, _is_unit(options)
        networks = networks_of(thing)
        for network in networks:
            network.eval().to(options.device)
        held = _dtypes(networks)
        self._encode: Callable[..., Any] = thing.encode
        self._images_in = held.pop() if len(held) == 1 else torch.float32
        self._thing = self._in_dtype(thing, networks)
        self._latents_in = options.dtype if networks else None
        self._decode: Callable[..., Any] = self._thing.decode
        self._draws = _takes_noise(self._decode)
        self.spec = self._whole_spec(networks_of(self._thing))
        if isinstance(self._thing, Compilable):
            self.compiled = self._compiled

    def encode(self, images: Tensor) -> Any:
        """See `Decoder.encode`."""
        return self._encode(((images + 1.0) / 2.0 if self._unit else images).to(self._images_in))

    def decode(self, latents: Tensor, noise: NoiseSource) -> Any:
        """See `Decoder.decode`."""
        if self._latents_in is not None and isinstance(latents, Tensor) and latents.is_floating_point():
            latents = latents.to(self._latents_in)
        images = self._decode(latents, noise) if self._draws else self._decode(latents)
        return images * 2.0 - 1.0 if self._unit and isinstance(images, Tensor) else images

    def _compiled(self, compiler: Compiler) -> Decoder:
        """See `Compilable.compiled`."""
        decoder = copy.copy(self)
        decoder._decode = self._thing.compiled(compiler).decode
        return decoder

    def _in_dtype(self, thing: Any, networks: list[nn.Module]) -> Any:
        """The object whose networks have the dtype that was asked for: a copy, so that encoder and caller keep theirs."""
        wanted = self._options.dtype
        held = _dtypes(networks)
        if not held and wanted not in {torch.float32, *(one.dtype for one in _reached(thing, Tensor))}:
            what = f"it holds no nn.Module with weights to put in {wanted}"
            raise MsbenchError(f"decoder {self._options.name}: {what}: keep @dtype=fp32 for it, or make it an nn.Module")
        if not held - {wanted}:
            return thing
        other = copy.deepcopy(thing)
        mine = networks_of(other)
        if any(one is another for one in mine for another in networks):
            raise MsbenchError(f"decoder {self._options.name}: a function's networks stay in their dtype: give an object")
        for network in mine:
            network.to(wanted)
        return other

    def _whole_spec(self, networks: list[nn.Module]) -> DecoderSpec:
        """Its own spec, completed by what can be seen."""
        own, given = self._options.own, getattr(self._thing, "spec", None)
        told = {one.name: getattr(given, one.name) for one in fields(DecoderSpec) if hasattr(given, one.name)}
        told |= {k: int(v) if k == "down_factor" and re.fullmatch(r"\d{1,9}", v) else v for k, v in own.items() if k != "range"}
        seen = {} if told.keys() - own.keys() >= _SEEN else self._seen(networks, told)
        name = self._options.name
        rest = {"name": name, "steps": 1, "scales": 1, "trained_on": f"unknown ({name.rpartition('/')[2]})"}
        missing = {one.name: None for one in fields(DecoderSpec) if one.default is MISSING}
        return DecoderSpec(**{**missing, **rest, **seen, **told})

    def _seen(self, networks: list[nn.Module], told: dict[str, Any]) -> dict[str, Any]:
        """down_factor, latent_channels, parameters and, of indices, codebook_sizes, from one black image."""
        name = self._options.name
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            side, latents = self._probe()
            discrete = not latents.is_floating_point()
            used = _Used(networks, latents if discrete else None)
            noise = SampleNoise.for_samples(0, ["probe"], self._options.device)
            try:
                with used:
                    self.decode(latents.clone(), noise)
            except Exception:  # noqa: BLE001 - the first image of the run tells what is wrong with decode
                used.addresses.clear()
        grid, factor = _grid(latents), _factor(latents, side)
        made, hint = f"{list(latents.shape)} of {side} px", "give @down_factor=N (pixels per latent position), or a spec"
        if "down_factor" not in told and factor is None:
            raise MsbenchError(f"decoder {name}: encode makes {made}, which does not show its factor: {hint}")
        if factor and isinstance(given := told.get("down_factor"), int) and given % factor:  # a multiple pads more
            raise MsbenchError(f"decoder {name}: down_factor {given} does not fit: encode makes {made}, a factor of {factor}")
        channels = None if grid is None or discrete else latents.shape[1]
        found = {"down_factor": factor, "latent_channels": channels, "parameters": used.parameters()}
        return {**found, "codebook_sizes": used.codebook_sizes()}

    def _probe(self) -> tuple[int, Tensor]:
        """The run's side, or the smallest of `PROBES` that `encode` takes, and its latents."""
        name, errors = self._options.name, list[str]()
        sides = [*filter(None, dict.fromkeys((self._options.resolution, *PROBES)))]
        for side in sides:
            try:
                latents = self.encode(torch.full((1, 3, side, side), -1.0, device=self._options.device))
            except MsbenchError:
                raise
            except Exception as error:  # noqa: BLE001 - another side may do
                errors.append(f"{type(error).__name__}: {error}")
                continue
            if not isinstance(latents, Tensor) or latents.dim() < 2:
                what = f"shape {list(latents.shape)}" if isinstance(latents, Tensor) else f"a {type(latents).__name__}"
                raise MsbenchError(f"decoder {name}: encode gave {what}, wanted a torch.Tensor [B, …] of latents or indices")
            if side in PROBES or _factor(latents, side):  # images of the run that are no multiple of the factor will be padded
                return side, latents
        hint = f"({errors[0]}): give --resolution the side it takes, or a spec with {', '.join(sorted(_SEEN))}"
        raise MsbenchError(f"decoder {name}: encode takes no image of {', '.join(map(str, sides))} px {hint}")


def _grid(latents: Tensor) -> tuple[int, int] | None:
    """Height and width of latents; None of a sequence."""
    return None if latents.dim() < 3 + latents.is_floating_point() else (latents.shape[-2], latents.shape[-1])


def _factor(latents: Tensor, side: int) -> int | None:
    """Pixels per latent position along one axis, 1 of a sequence; None where the grid does not show it."""
    height, width = _grid(latents) or (side, side)
    return side // height if height == width and height and side % height == 0 else None


def has_codec(thing: object) -> bool:
    """It has `encode` and `decode` to call."""
    return callable(getattr(thing, "encode", None)) and callable(getattr(thing, "decode", None))


def refuse_options(what: str, options: DecoderOptions) -> None:
    """Raise `MsbenchError` for options that nothing would read: those that a factory is for."""
    told = {name: getattr(options, name) for name in ("steps", "scales", "checkpoint", "preset")}
    given = [f"{name}={value}" for name, value in told.items() if value is not None]
    given += [f"weights={options.weights}"] if options.weights != "trained" else []
    if given:
        raise MsbenchError(f"decoder {options.name}: {what} takes no {given[0]}; a factory of one DecoderOptions can")


class _Used(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the memory of all that operations read inside, which tells a decoder's parameters from its encoder's, and how long
    the tables are that a code's indices are looked up in.

    Args:
        networks: whose parameters.
        indices: the code [1, …], where it is one of indices.
    """

    def __init__(self, networks: Iterable[nn.Module], indices: Tensor | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        everything = [one for network in networks for one in (*network.parameters(), *_floating(network.buffers()))]
        self._weights = {id(one): one for one in everything}.values()
        self.addresses = set[int]()
        several = [] if indices is None or indices.dim() < 3 else list(indices.unbind(1))
        self._codes = [] if indices is None else [one.flatten().long() for one in (indices, *several)]
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        found = [one for one in tree_leaves([args, kwargs]) if isinstance(one, Tensor)]
        self.addresses.update(_address(one) for one in found)
        if func.name() in _LOOK_UPS and not found[1].is_floating_point():
            asked = found[1].flatten().long()
            places = (place for place, code in enumerate(self._codes) if place not in self._sizes and torch.equal(code, asked))
            self._sizes |= {place: len(found[0]) for place in islice(places, 1)}
        return func(*args, **(kwargs or {}))

    def codebook_sizes(self) -> tuple[int, ...] | None:
        """Entries of the table that all indices were looked up in, or of those of each codebook; None where they were not."""
        if 0 in self._sizes:
            return (self._sizes[0],)
        sizes = tuple(size for _, size in sorted(self._sizes.items()))
        return sizes if sizes and len(sizes) == len(self._codes) - 1 else None

    def parameters(self) -> int:
        """How many were read or, as of a fitted PCA, numbers of buffers; all where no reading was seen, as of compiled code."""
        read = [one for one in self._weights if _address(one) in self.addresses] or self._weights
        return sum(one.numel() for one in [one for one in read if isinstance(one, nn.Parameter)] or read)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def networks_of(thing: object) -> list[nn.Module]:
    """Modules that an object is, holds, or, as a function, reaches."""
    return _reached(thing, nn.Module)


def _reached(thing: object, kind: type[_Kind], depth: int = _DEPTH, seen: set[int] | None = None) -> list[_Kind]:
    """Objects of a kind that an object is, holds, or, as a function, reaches; not what modules and tensors hold."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (type, ModuleType)):
        return []
    seen.add(id(thing))
    if isinstance(thing, (nn.Module, Tensor)):
        return [thing] if isinstance(thing, kind) else []
    held: Iterable[Any] = ()
    match thing:
        case MethodType():
            held = (thing.__self__,)
        case FunctionType():
            names = inspect.getclosurevars(thing)
            held = (*names.nonlocals.values(), *names.globals.values())
        case dict():
            held = thing.values()
        case list() | tuple():
            held = thing
        case _ if hasattr(thing, "__dict__"):
            held = vars(thing).values()
    return [one for part in list(held) if depth for one in _reached(part, kind, depth - 1, seen)]


def _floating(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [one for one in tensors if one.is_floating_point()]


def _dtypes(networks: Iterable[nn.Module]) -> set[torch.dtype]:
    """The dtypes of floating-point parameters; of a network without any, as a fitted PCA, of its buffers."""
    return {one.dtype for network in networks for one in _floating(list(network.parameters()) or network.buffers())}


def _takes_noise(decode: Callable[..., Any]) -> bool:
    """Whether `decode` wants the noise source beside the latents."""
    takes = positional(decode)
    return len(takes) > 1 and (takes[1].default is inspect.Parameter.empty or takes[1].name == "noise")


def positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Its positional parameters; none where they cannot be seen, as of functions in another language."""
    try:
        every = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return []
    return [one for one in every if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]


def _is_unit(options: DecoderOptions) -> bool:
    value = options.own.get("range", "11")
    if value not in ("11", "01"):
        raise MsbenchError(f"decoder {options.name}: range is 11 for images in [-1, 1] or 01 for [0, 1], not {value!r}")
    return value == "01"
