"""Decoders that make the mistakes people report, one factory each; `msbench` knows them as "odd-" and the name."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.decoder import DecoderOptions, DecoderSpec
from tests.harness.run import token_decoders


class Odd:
    """Exact, but for what `change` does to its output."""

    def __init__(self, change: Callable[[Tensor, Odd], Any] = lambda x, me: x, **spec: Any) -> None:
        fields: dict[str, Any] = {
            "name": "odd",
            "down_factor": 1,
            "latent_channels": 3,
            "steps": 1,
            "scales": 1,
            "parameters": 1,
            "weights_sha256": None,
            "encoder_sha256": None,
            "trained_on": "nothing",
        }
        self.spec = DecoderSpec(**{**fields, **spec})
        self.change, self.calls = change, 0

    def encode(self, images: Tensor) -> Any:
        return images * 0.5

    def decode(self, latents: Tensor, noise: Any) -> Any:
        self.calls += 1
        return self.change(latents * 2.0, self)


def _some(value: float) -> Callable[[Tensor, Odd], Tensor]:
    def change(x: Tensor, me: Odd) -> Tensor:
        x = x.clone()
        x[-1, :, :4, :4] = value
        return x

    return change


def _third(x: Tensor, me: Odd) -> Tensor:
    if me.calls >= 5:
        raise ValueError("decode broke\nsecond line")
    return x


def _raise(error: BaseException) -> Callable[[Tensor, Odd], Tensor]:
    def change(x: Tensor, me: Odd) -> Tensor:
        raise error

    return change


def _prints(x: Tensor, me: Odd) -> Tensor:
    print("words of the plug-in")
    os.write(1, b"raw words\n")
    return x


def _globals(x: Tensor, me: Odd) -> Tensor:
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float64)
    return x


def _bright(x: Tensor, me: Odd) -> Tensor:
    """Not finite for one image in ten, whatever its batch."""
    bad = (x[:, :, 8, 8] + 1).sum(dim=1)
    x = x.clone()
    x[(bad * 127.5).round() == BRIGHT] = torch.nan
    return x


BRIGHT = int(np.kron(np.random.default_rng(5).integers(0, 256, (8, 8, 3)), np.ones((4, 4, 1)))[8, 8].sum())
"""what `_bright` cannot decode: the sixth image of `make_images`"""
_CHANGES: dict[str, Callable[[Tensor, Odd], Any]] = {
    "plain": lambda x, me: x,
    "nan": _some(float("nan")),
    "inf": _some(float("inf")),
    "twice": lambda x, me: x.repeat_interleave(2, 2).repeat_interleave(2, 3),
    "smaller": lambda x, me: x[..., :-2, :-2],
    "rgba": lambda x, me: torch.cat([x, x[:, :1]], 1),
    "hwc": lambda x, me: x.permute(0, 2, 3, 1),
    "onebatch": lambda x, me: x[:1],
    "uint8": lambda x, me: ((x + 1) * 127.5).round().to(torch.uint8),
    "tuple": lambda x, me: (x,),
    "array": lambda x, me: x.numpy(),
    "range01": lambda x, me: (x + 1) / 2,
    "range255": lambda x, me: (x + 1) * 127.5,
    "clamped": lambda x, me: x * 100.0,
    "raises": _raise(RuntimeError("shapes cannot be multiplied")),
    "exit0": _raise(SystemExit(0)),
    "memory": _raise(MemoryError("cannot")),
    "stop": _raise(KeyboardInterrupt()),
    "third": _third,
    "bright": _bright,
    "prints": _prints,
    "globals": _globals,
    "torch_noise": lambda x, me: x + 0.2 * torch.randn_like(x),
    "numpy_noise": lambda x, me: x + 0.2 * float(np.random.standard_normal()),
    "python_noise": lambda x, me: x + 0.2 * random.gauss(0.0, 1.0),
    "late_noise": lambda x, me: x + (0.2 * torch.randn_like(x) if me.calls > 4 else 0.0),
    "batchy": lambda x, me: x + 0.3 * (len(x) - 1) / 8.0,
}


def __getattr__(name: str) -> Callable[[DecoderOptions], Any]:
    if name in token_decoders.FACTORIES:
        return token_decoders.FACTORIES[name]
    if name not in _CHANGES:
        raise AttributeError(name)
    return lambda options: Odd(_CHANGES[name], name=f"odd-{name}")


class Inplace(Odd):
    def encode(self, images: Tensor) -> Tensor:
        latents = images * 0.5
        images.zero_()
        return latents

    def decode(self, latents: Tensor, noise: Any) -> Tensor:
        return latents.mul_(2.0)


class Noisy(Odd):
    def decode(self, latents: Tensor, noise: Any) -> Tensor:
        return latents * 2.0 + 0.2 * noise.normal(latents.shape[1:], 0)


class Mapped(Odd):
    def encode(self, images: Tensor) -> Any:
        return {"z": images}


def inplace(options: DecoderOptions) -> Any:
    return Inplace(name="odd-inplace")


def noisy(options: DecoderOptions) -> Any:
    return Noisy(name="odd-noisy")


def mapped(options: DecoderOptions) -> Any:
    return Mapped(name="odd-mapped")


def _with_spec(**changes: Any) -> Any:
    odd = Odd()
    names = ("name", *DecoderSpec.__slots__)
    fields = {name: getattr(odd.spec, name) for name in names if changes.get(name, 0) is not None}
    odd.spec = SimpleNamespace(**{**fields, **{k: v for k, v in changes.items() if v is not None}})  # type: ignore[assignment]
    return odd


def nsspec(options: DecoderOptions) -> Any:
    return _with_spec()


def fewspec(options: DecoderOptions) -> Any:
    return _with_spec(steps=None, scales=None)


def strspec(options: DecoderOptions) -> Any:
    return _with_spec(down_factor="8")


def zerospec(options: DecoderOptions) -> Any:
    return _with_spec(down_factor=0)


def hugespec(options: DecoderOptions) -> Any:
    return _with_spec(down_factor=10**9)


def factory(options: DecoderOptions) -> Any:
    raise KeyError("no such model")


def leaves(options: DecoderOptions) -> Any:
    sys.exit(0)


_FACTORIES = (
    "inplace",
    "noisy",
    "mapped",
    "nsspec",
    "fewspec",
    "strspec",
    "zerospec",
    "hugespec",
    "factory",
    "leaves",
    "absent",
)
NAMES = tuple(f"odd-{name}" for name in (*_CHANGES, *_FACTORIES, *token_decoders.FACTORIES))
