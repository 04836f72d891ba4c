"""What a training run is told: its budget, optimiser and seed, and the schedules that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from decoders.settings import Beta, Count, Positive, Rate, Share, Weight, checked
from harness.errors import MsbenchError


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Budget and optimiser of one training run."""

    max_steps: Count | None = None
    """optimiser steps in all; None = not bounded by them"""
    max_minutes: Positive | None = None
    """wall-clock budget over all resumes; None = not bounded by it"""
    max_pflops: Positive | None = None
    """10^15 FLOPs of training over all resumes and processes, teacher calls and LPIPS counted; None = not bounded by them"""
    stop_after: Count | None = None
    """leave early after this many steps, as a killed run would; the schedule still aims at `max_steps`"""
    accumulate: Count = 1
    """backward passes a step and process, each with a batch of its own: N processes with 1 train as one with N does"""
    learning_rate: Rate = 4e-4
    """peak, reached after `warmup` steps and held until `decay_from`"""
    decay_from: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.75
    """share of the budget after which the rate falls to zero as a cosine"""
    warmup: Annotated[int, Field(ge=0, le=2**31 - 1)] = 100
    """steps of linear warm-up"""
    weight_decay: Weight = 0.01
    """AdamW"""
    beta2: Beta = 0.99
    """AdamW"""
    clip_norm: Positive = 1.0
    """gradient norm above which gradients are scaled down"""
    max_grad_norm_ratio: Annotated[float, Field(gt=0.0)] = 100.0
    """a step whose gradient norm is this many times the running median is skipped, once `warmup` is over; inf = never"""
    ema_power: Annotated[float, Field(ge=0.0, le=1e4)] = 12.0
    """averaging horizon grows with the run: decay (1 - 1/t)^(power+1), about t / power steps (Karras et al., 2312.02696)"""
    precision: Annotated[str, Field(pattern="^(auto|fp32|bf16)$")] = "auto"
    """fp32, bf16 (autocast), or auto: bf16 where the hardware multiplies it"""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """every random draw of step t comes from (seed, t)"""
    save_every_seconds: Weight = 120.0
    """wall-clock between checkpoints of the run's state"""
    log_every: Count = 10
    """steps between rows of log.csv"""
    compile: bool = False
    """compile the trained network and LPIPS: minutes at the start, fewer and fused kernels after; results differ by rounding"""
    snapshot: Share | None = None
    """share of the budget after which the averaged weights are kept as DECODER-snapshot.safetensors too; None = never"""
    tensorboard: bool = False
    """write the log's scalars for TensorBoard as well (extra `train`)"""


def check_config(config: TrainConfig) -> None:
    """Raise `MsbenchError` where a number is out of its range, or a run would never end."""
    if config.max_steps is None and config.max_minutes is None and config.max_pflops is None:
        raise MsbenchError("training needs a budget: give --max-steps, --max-minutes or --max-pflops")
    checked("train", config)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Seed of step `step`'s draws in process `rank`, within 32 bits: torch's CPU generator ignores all higher ones."""
    # 2³²/φ, rounded to odd: the runs of different seeds begin far apart on the circle of 2³² steps; ranks count as far seeds.
    return ((seed + 1009 * rank) * 0x9E3779B1 + step) % 2**32


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype of autocast, or None for plain fp32. `auto` takes bf16 on GPUs and on CPUs with AMX or AVX512-BF16."""
    if precision == "auto":
        # Of 3×3 convolutions, forward and backward: about twice fp32's speed with AVX512-BF16 (Zen 4), more with AMX.
        multiplies = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if device.type == "cuda" or (device.type == "cpu" and multiplies) else None
    return torch.bfloat16 if precision == "bf16" else None


def ema_decay(step: int, power: float) -> float:
    """Share of the average that the weights of step `step` (from 1) leave in place; 0 at step 1, so the start is forgotten."""
    return float((1.0 - 1.0 / step) ** (power + 1.0))


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Linear warm-up by steps, a constant, then a cosine to zero over the last part of the budget."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    decayed = max(0.0, min(1.0, progress) - config.decay_from) / (1.0 - config.decay_from)
    return config.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * decayed))
