"""Plug-in decoders with known behaviour, installed as another distribution would be, so that spawned processes find them."""

from __future__ import annotations

from pathlib import Path

import pytest

_CODE = """
import os
import time

import torch

from harness.decoder import DecoderSpec


class Slow:
    def __init__(self, encode=0.0, decode=0.0, error=None):
        self.spec = DecoderSpec("slow", 8, 4, 0, 1, 0, None, None, "nothing")
        self.times, self.error = (encode, decode), error

    def encode(self, images):
        print("a decoder may print")
        time.sleep(self.times[0])
        return images[:, :, ::8, ::8]

    def decode(self, latents, noise):
        if self.error is not None:
            raise self.error
        time.sleep(self.times[1])
        return latents.repeat_interleave(8, -1).repeat_interleave(8, -2)


class Dying(Slow):
    def decode(self, latents, noise):
        os._exit(3)


def sleeper(options):
    return Slow(0.5, 0.05)


def whole(options):
    return Slow(0.0, 0.03 if options.dtype == torch.float32 else 0.06)


def half(options):
    return Slow(0.0, 0.05 if options.dtype == torch.float32 else 0.01)


def hungry(options):
    return Slow(error=torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 EiB"))


def broken(options):
    return Slow(error=ValueError("no such\\nluck"))


def dying(options):
    return Dying()


def unbuildable(options):
    raise RuntimeError("weights ate themselves")
"""
_NAMES = ("sleeper", "whole", "half", "hungry", "broken", "dying", "unbuildable")


@pytest.fixture
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders that sleep, and some that fail: `hungry`, `broken`, `dying`, `unbuildable`.

    `sleeper` takes 50 ms in decode and 500 in encode; `whole` 30 ms in fp32 and 60 in bf16, `half` 50 and 10.
    """
    site = tmp_path / "site"
    (site / "slow_decoders-1.0.dist-info").mkdir(parents=True)
    (site / "slow_decoders.py").write_text(_CODE)
    (site / "slow_decoders-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-decoders\nVersion: 1.0\n")
    points = "\n".join(f"{name} = slow_decoders:{name}" for name in _NAMES)
    (site / "slow_decoders-1.0.dist-info" / "entry_points.txt").write_text(f"[msbench.decoders]\n{points}\n")
    monkeypatch.syspath_prepend(str(site))
