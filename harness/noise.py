"""Gaussian noise keyed by sample: a sample draws the same numbers whatever the batch, the rank or the order.

A counter-based generator, Philox4x32-10 (Salmon et al., SC'11), written in int64 tensor operations, so that it runs on any
device and inside a compiled or captured graph. The key is the sample's (64 bits of SHA-256 of run seed and sample key); the
counter is (element, draw, 0, 0).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


_CHUNK = 3 * 2**15
"""counters worked on at once on a CPU, so that the words stay in its caches and every core has a share"""

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox4x32(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Ten rounds of Philox4x32. All words are int64 tensors holding unsigned 32-bit values; shapes broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for done in range(10):
        p0, p1 = c0 * _M0, c2 * _M1  # 64-bit products; int64 wraps, the bits are those of the unsigned product
        # c1 and c3 keep a product's upper half until the end: only c0 and c2 are multiplied, and must be 32 bits.
        if done < 3:  # until c0 and c2 have met every word, shapes grow by broadcasting
            c0, c2 = ((p1 >> 32) ^ c1 ^ k0) & _MASK, ((p0 >> 32) ^ c3 ^ k1) & _MASK
        else:
            c0 = (p1 >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_MASK)
            c2 = (p0 >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_MASK)
        c1, c3 = p1, p0
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1 & _MASK, c2, c3 & _MASK


def sample_keys(seed: int, keys: Sequence[str]) -> Tensor:
    """Philox keys for samples: int64 [B, 2], two unsigned 32-bit words each, from SHA-256 of seed and sample key."""
    words = []
    for key in keys:
        digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
        words.append([int.from_bytes(digest[0:4], "little"), int.from_bytes(digest[4:8], "little")])
    return torch.tensor(words, dtype=torch.int64).reshape(len(words), 2)


class SampleNoise:
    """The noise source handed to `Decoder.decode`: standard normal draws, one stream per sample.

    Args:
        keys: int64 [B, 2] from `sample_keys`, on the device where noise is wanted.
    """

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys
        self.used = False
        """some noise was drawn: a decoder that draws none gives the same images under every seed"""

    @classmethod
    def for_samples(cls, seed: int, keys: Sequence[str], device: torch.device | str = "cpu") -> SampleNoise:
        """The source for samples named `keys` under one run seed."""
        return cls(sample_keys(seed, keys).to(device))

    def normal(self, shape: Sequence[int], draw: int) -> Tensor:
        """N(0, 1), float32 [B, *shape]; `draw` numbers independent draws of one sample (0, 1, 2, …)."""
        self.used = True
        count = math.prod(shape)
        quads = (count + 3) // 4
        device = self.keys.device
        whole = device.type != "cpu" or torch.compiler.is_compiling()  # a compiler fuses: nothing is gained by parts
        step = quads if whole else max(1, _CHUNK // max(1, len(self.keys)))
        blocks = [
            self._quads(torch.arange(first, min(first + step, quads), device=device, dtype=torch.int64), draw)
            for first in range(0, quads, step)
        ]
        flat = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)
        return flat.flatten(1)[:, :count].reshape(-1, *shape)

    def _quads(self, element: Tensor, draw: int) -> Tensor:
        """Four normals for each counter: int64 [N] -> float32 [B, N, 4], by Box and Muller's transform; none is beyond 5.9."""
        zero = torch.zeros((), device=element.device, dtype=torch.int64)
        words = philox4x32((element, zero + draw, zero, zero), (self.keys[:, 0:1], self.keys[:, 1:2]))
        normals = []
        for radius_word, angle_word in ((words[0], words[1]), (words[2], words[3])):
            # 24 bits fit a float32; the half keeps the uniform off 0 (the largest rounds to 1: radius 0, still finite).
            radius = ((radius_word >> 8).float().add_(0.5).mul_(2.0**-24)).log_().mul_(-2.0).sqrt_()
            angle = (angle_word >> 8).float().mul_(2.0 * math.pi * 2.0**-24)
            normals += [radius * torch.cos(angle), angle.sin_().mul_(radius)]
        return torch.stack(normals, dim=-1)
