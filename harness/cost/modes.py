"""Ways to run a decoder: as it is (`eager`), its networks compiled (`compile`), all of `decode` in a CUDA graph (`cudagraph`).

A mode changes how fast a decoder is, not what it computes: images agree up to floating-point reassociation, and noise stays
keyed by sample. Every mode gives a `Decoder` again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from harness.cost.attempt import UnsupportedModeError, is_out_of_memory
from harness.decoder import Compilable, Compiler, Decoder, Finished, NoiseSource
from harness.errors import UnknownNameError
from harness.noise import SampleNoise

Mode = Literal["eager", "compile", "cudagraph"]
MODES: tuple[Mode, ...] = get_args(Mode)

_WARM_UPS = 3
_SHAPES = 64  # torch gives up compiling after 8 shapes of one function and runs it uncompiled without a word


def parse_mode(name: str) -> Mode:
    """The mode called `name`; raises `UnknownNameError`."""
    if name not in MODES:
        raise UnknownNameError("mode", name, MODES)
    return name


def in_mode(decoder: Decoder, mode: Mode, device: torch.device) -> Decoder:
    """`decoder` as it runs in `mode` on `device`; the decoder itself for `eager`, or where its images
    are finished. Its first call at a shape sets that shape up.

    Raises:
        UnsupportedModeError: CUDA graphs anywhere but on a CUDA device.
    """
    if isinstance(decoder, Finished):
        return decoder
    match mode:
        case "eager":
            return decoder
        case "compile":
            torch.compiler.reset()  # what other shapes left would turn static shapes into dynamic ones
            return CompiledDecoder(decoder)
        case "cudagraph":
            if device.type != "cuda":
                raise UnsupportedModeError(f"mode cudagraph needs a CUDA device, not {device.type}; use eager or compile")
            return GraphedDecoder(decoder, partial(capture_cuda, device=device))


def eager_of(decoder: Decoder) -> Decoder:
    """The decoder that a mode was put on, for counting; the decoder itself where none was."""
    return decoder.eager if isinstance(decoder, (CompiledDecoder, GraphedDecoder)) else decoder


def mode_of(decoder: Decoder) -> Mode:
    """The mode a decoder was put in."""
    return decoder.mode if isinstance(decoder, (CompiledDecoder, GraphedDecoder)) else "eager"


class CompiledDecoder:
    """`torch.compile`d: the parts that a `Compilable` decoder names, else its whole `decode`; the noise generator too.

    Shapes are compiled one by one (static), at the first call of each. On a CPU weights count as constants, laid out for its
    kernels once and not at every call.

    Args:
        decoder: stays as it is; weights are shared.
        compiler: `torch.compile` by default; tests bring their own.
    """

    mode: Mode = "compile"

    def __init__(self, decoder: Decoder, compiler: Compiler | None = None) -> None:
        self.spec = decoder.spec
        self.encode = decoder.encode
        self.eager = decoder
        if compiler is None:
            _allow_many_shapes()
            compiler = cast(Compiler, partial(torch.compile, dynamic=False))
        self._decode = decoder.compiled(compiler).decode if isinstance(decoder, Compilable) else compiler(decoder.decode)
        self._normal = compiler(_normal)

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        """See `Decoder.decode`."""
        source = _CompiledNoise(noise, self._normal) if isinstance(noise, SampleNoise) else noise
        with torch.inference_mode(), compile_settings(latents.device):
            return cast(Tensor, self._decode(latents, source))


class _CompiledNoise:
    """A `SampleNoise` whose hundred small integer operations a draw are fused."""

    def __init__(self, noise: SampleNoise, normal: Callable[[Tensor, tuple[int, ...], int], Tensor]) -> None:
        self._noise, self._normal = noise, normal

    def normal(self, shape: Sequence[int], draw: int) -> Tensor:
        """See `NoiseSource.normal`."""
        self._noise.used = True
        return self._normal(self._noise.keys, tuple(shape), draw)


def _normal(keys: Tensor, shape: tuple[int, ...], draw: int) -> Tensor:
    return SampleNoise(keys).normal(shape, draw)


def compile_settings(device: torch.device) -> AbstractContextManager[object]:
    """Within it, what is compiled for a CPU takes weights for constants, and only what convolutions read is channels-last: what
    leads to them is images, and three channels fill no vector. Dynamo asks as it traces: an option comes too late."""
    if device.type != "cpu":
        return nullcontext()
    from torch._inductor import config

    return cast(AbstractContextManager[object], config.patch(freezing=True, layout_optimization=False))


def _allow_many_shapes() -> None:
    """Raise torch's limit on compiled versions of one function."""
    from torch._dynamo import config

    config.recompile_limit = max(_SHAPES, config.recompile_limit)


@dataclass(frozen=True, slots=True)
class Captured:
    """One recorded call."""

    replay: Callable[[], None]
    """run it again on whatever its input buffers hold now"""
    output: Tensor
    """what each replay overwrites"""


Capture = Callable[[Callable[[], Tensor]], Captured]
"""Warms a call up, records it and hands back how to replay it"""


class GraphedDecoder:
    """All of `decode` in one graph per latents shape: every step, and the noise drawn inside from a buffer of sample keys.

    A replay's images are copied out of the graph's own buffer, so they stay as they are at the next call.

    Args:
        decoder: must do nothing but queue work on the device (no copy to the host, no branch on a tensor's value).
        capture: how a call is recorded; tests bring their own.
    """

    mode: Mode = "cudagraph"

    def __init__(self, decoder: Decoder, capture: Capture) -> None:
        self.spec = decoder.spec
        self.encode = decoder.encode
        self.eager, self._capture = decoder, capture
        self._graphs: dict[tuple[tuple[int, ...], torch.dtype], tuple[Tensor, SampleNoise, Captured]] = {}

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        """See `Decoder.decode`.

        Raises:
            UnsupportedModeError: the decoder cannot be recorded, or the noise is not a `SampleNoise`.
        """
        if not isinstance(noise, SampleNoise):
            raise UnsupportedModeError(f"mode cudagraph draws from a SampleNoise, not a {type(noise).__name__}; use eager")
        shape = (tuple(latents.shape), latents.dtype)
        # Buffers made here are inference tensors, which later calls may overwrite only under the same guard.
        with torch.inference_mode():
            if shape not in self._graphs:
                held, source = latents.clone(), SampleNoise(noise.keys.clone())
                self._graphs[shape] = held, source, self._capture(lambda: self.eager.decode(held, source))
            held, source, captured = self._graphs[shape]
            held.copy_(latents)
            source.keys.copy_(noise.keys)
            captured.replay()
            noise.used = noise.used or source.used
            return captured.output.clone()


def capture_cuda(call: Callable[[], Tensor], device: torch.device) -> Captured:
    """Record `call` in a CUDA graph, warmed up on a side stream first, so that libraries set themselves up outside the graph.

    Raises:
        UnsupportedModeError: the call does what a graph cannot hold, such as waiting for the device.
    """
    with torch.cuda.device(device):
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                output = call()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            first = str(error).strip().partition("\n")[0]
            raise UnsupportedModeError(f"decode cannot be recorded in a CUDA graph ({first}); use eager or compile") from error
    return Captured(graph.replay, output)
