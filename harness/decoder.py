"""The contract: what a decoder is to msbench. A decoder is found by name and measured through this interface alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from harness.errors import UnknownNameError

DTYPES: Mapping[str, torch.dtype] = MappingProxyType({"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16})
"""arithmetic of decoders, as the command line names it"""


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """What a record says about a decoder."""

    name: str
    """registry name"""
    down_factor: Annotated[int, Field(strict=True, ge=1, le=1024)]
    """pixels per latent position along one axis (8 for f8)"""
    latent_channels: Annotated[int, Field(strict=True, ge=1, le=2**20)] | None
    """channels of the latents; None where they are indices, or no latents at all (jpeg, identity)"""
    steps: Annotated[int, Field(strict=True, ge=0, le=10**6)]
    """network calls per image over all scales (NFE); 0 where there is no network"""
    scales: Annotated[int, Field(strict=True, ge=1, le=64)]
    """number of resolutions visited, coarse to fine; 1 = full resolution only"""
    parameters: Annotated[int, Field(strict=True, ge=0, le=10**15)]
    """parameters used by `decode` (the encoder is not counted); of a network without any, its floating-point buffers"""
    weights_sha256: str | None
    """SHA-256 of the decoder's weights file; None where there are no weights"""
    encoder_sha256: str | None
    """SHA-256 of the weights the latents come from; decoders that share it decode the same latents"""
    trained_on: str
    """training data in a few words; "nothing" for decoders without training, "random weights" for cost-only models"""
    training_seed: Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)] | None = None
    """seed the weights were trained under; None where unknown"""
    recipe_sha256: str | None = None
    """hash of all that training was told but the seed: decoders that share it differ in their training seed alone"""
    teacher_sha256: str | None = None
    """SHA-256 of the weights it was distilled from; None without a teacher, or where unknown"""
    flow: str | None = None
    """path from noise to image that it follows, as pyramid or cascade; None for others, or where unknown"""
    objective: str | None = None
    """what a student was trained to match: paired (its teacher's end), direct (the image alone), or paired+direct"""
    training_pflops: Annotated[float, Field(strict=True, ge=0.0)] | None = None
    """compute of its training, 10^15 FLOPs; None where unknown"""
    start_pflops: Annotated[float, Field(strict=True, ge=0.0)] | None = None
    """that of the training it started from, a teacher's or a first phase; 0 without one; None where unknown"""
    codebook_sizes: Annotated[tuple[Annotated[int, Field(strict=True, ge=2)], ...], Field(min_length=1)] | None = None
    """where latents are indices: how many entries each codebook has (FSQ: the product of its levels); None for other latents"""


class NoiseSource(Protocol):
    """Per-sample standard normal draws; see `harness.noise.SampleNoise`."""

    def normal(self, shape: Sequence[int], draw: int) -> Tensor:
        """N(0, 1), float32 [B, *shape]; the same (sample, draw) always gives the same numbers."""
        ...


@runtime_checkable
class Decoder(Protocol):
    """Encodes images to latents and decodes latents to images. Both directions work on batches and hold no state.

    Its networks are in evaluation mode (`.eval()`), as those of every decoder of msbench are.
    """

    spec: DecoderSpec

    def encode(self, images: Tensor) -> Tensor:
        """float32 [B, 3, H, W] in [-1, 1] -> latents [B, C, H/f, W/f] (H and W multiples of `spec.down_factor`).

        Latents may be a sequence, [B, n, C]. Indices into a codebook are integers, a grid [B, H/f, W/f] or a sequence [B, n];
        those of several codebooks have one more axis behind the first, in the order of `spec.codebook_sizes`.
        """
        ...

    def decode(self, latents: Tensor, noise: NoiseSource) -> Tensor:
        """latents -> float [B, 3, H, W], nominally in [-1, 1]; values outside are clamped by the harness."""
        ...


@runtime_checkable
class Coded(Protocol):
    """Optional, beside `Decoder`: the latents hold a code whose length is known, as a file's is."""

    def bits(self, latents: Tensor) -> Sequence[int]:
        """Bits of each image's code, [B]."""
        ...


@runtime_checkable
class Budgeted(Coded, Protocol):
    """Optional, beside `Coded`: a code that is to fit in so many bits."""

    def budget_bits(self, height: int, width: int) -> int:
        """Bits that the code of an image of this size is to take at most."""
        ...


Compiler = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Takes a function of tensors and gives back a faster one that computes the same"""


@runtime_checkable
class Compilable(Protocol):
    """Optional, beside `Decoder`: names the parts worth compiling, where the whole `decode` would unroll too many steps."""

    def compiled(self, compiler: Compiler) -> Decoder:
        """The same decoder, sharing its weights, whose networks went through `compiler`; this one stays as it is."""
        ...


@dataclass(frozen=True, slots=True)
class FinishedImage:
    """One reconstruction that was made elsewhere."""

    pixels: NDArray[np.uint8]
    """uint8 [H, W, 3], RGB"""
    sha256: str
    """SHA-256 of the file's bytes"""
    note: str
    """what a reader must know of the file, in a few words that many files share; may be empty"""


@runtime_checkable
class Finished(Protocol):
    """Optional, beside `Decoder`: finished images by sample, in place of `encode` and `decode`, which are not called."""

    def match(self, samples: Mapping[str, str]) -> list[str]:
        """Find the image of each sample (key -> path of the file it was made from); returns warnings, one line each.

        Raises `MsbenchError` where not one sample has an image. Called once, before any `image`.
        """
        ...

    def image(self, key: str) -> FinishedImage:
        """The image of one sample, from any thread; raises `MsbenchError` where there is none, or none that can be used."""
        ...


@dataclass(frozen=True, slots=True)
class DecoderOptions:
    """How to build a decoder; each factory takes one of these and nothing else."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """where latents, noise and images live"""
    dtype: torch.dtype = torch.float32
    """arithmetic of the network"""
    checkpoint: Path | None = None
    """weights to use instead of the shipped ones"""
    steps: int | None = None
    """network calls per image over all scales; None = the decoder's own"""
    scales: int | None = None
    """number of scales K; None = the decoder's own"""
    weights: Literal["trained", "random"] = "trained"
    """"random" builds the same network without a checkpoint, for cost measurements only"""
    preset: str | None = None
    """size of a network with random weights; None = the one that ships. A checkpoint says its own size"""
    name: str = ""
    """registry name that was asked for, set by `harness.registry.build_decoder`: one factory may serve several"""
    location: str = ""
    """of a decoder asked for as KIND:LOCATION or by the path of a file: what follows the kind; empty for registry names"""
    own: Mapping[str, str] = field(default_factory=dict)
    """options that only this kind of decoder has, as written: those of `DecoderEntry.own`"""
    offline: bool = False
    """never touch the network"""
    resolution: int = 0
    """side in pixels of the images that will come; 0 where that is not known, or each has its own"""


class DecoderFactory(Protocol):
    """Builds a decoder; raises `MsbenchError` where an option does not fit."""

    def __call__(self, options: DecoderOptions) -> Decoder: ...


def parse_dtype(name: str) -> torch.dtype:
    """The dtype called `name`; raises `UnknownNameError` where there is none."""
    if name not in DTYPES:
        raise UnknownNameError("dtype", name, DTYPES)
    return DTYPES[name]
