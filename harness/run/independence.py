"""What is promised of decoders and probed here: a sample's result depends on no other sample and on no global generator."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

PROBED = 3
"""images of the first batch that are decoded again, as a batch of one and a batch of the others"""
ROUNDED = 1e-3
"""share of values in which two batch sizes may differ by one level"""


@contextmanager
def callers_generators(device: torch.device) -> Iterator[None]:
    """The global generators of torch, numpy and Python are afterwards as before."""
    before = _states(device)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
        if device.type == "cuda":
            torch.cuda.set_rng_state(before[3], device)


@contextmanager
def seeded(seed: int, keys: Sequence[str], device: torch.device) -> Iterator[Callable[[], bool]]:
    """Seed the global generators from run seed and sample keys; yields whether any was drawn from since."""
    digest = hashlib.sha256("\0".join([str(seed), *keys]).encode()).digest()
    number = int.from_bytes(digest[:7], "little")
    torch.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)
    before = _states(device)
    yield lambda: not all(_same(one, other) for one, other in zip(before, _states(device), strict=True))


def largest_difference(one: Tensor, other: Tensor) -> tuple[int, bool]:
    """Largest difference of two uint8 tensors in levels, and whether it is more than rounding makes."""
    levels = (one.int() - other.int()).abs()
    largest = int(levels.max())
    return largest, largest > 1 or float((levels > 0).float().mean()) > ROUNDED


def _states(device: torch.device) -> tuple[Any, ...]:
    cuda = (torch.cuda.get_rng_state(device),) if device.type == "cuda" else ()
    return (torch.get_rng_state(), np.random.get_state(), random.getstate(), *cuda)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple):
        return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)
