"""The kinds of distillation: which terms each has, and whom it asks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from decoders.denoiser import Denoiser
from decoders.flow import make_flow
from decoders.training.data import TrainingImages
from decoders.training.distillation import DistillationLossConfig, DistillationName, DistillationObjective

CONFIG = DistillationLossConfig(batch=2, crop=32, teacher_steps=4)
MakeDenoiser = Callable[[int], Denoiser]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("name", "terms", "teacher_calls"),
    [("paired", {"paired", "lpips"}, 8), ("direct", {"l1", "lpips"}, 0), ("paired+direct", {"paired", "l1", "lpips"}, 8)],
)
def test_terms_and_teacher_calls(
    name: DistillationName,
    terms: set[str],
    teacher_calls: int,
    tiny_denoiser: MakeDenoiser,
    latent_pictures: TrainingImages,
    perceptual: Any,
) -> None:
    teacher = tiny_denoiser(2)
    calls: list[bool] = []
    teacher.register_forward_hook(lambda *_: calls.append(teacher.training))
    student = copy.deepcopy(tiny_denoiser(2)).requires_grad_(True)
    objective = DistillationObjective(
        student, teacher, make_flow("cascade", 2), latent_pictures, replace(CONFIG, objective=name), perceptual
    )
    loss, parts = objective.loss(generator(), 0.6)
    assert set(parts) == {f"{term}_{scale}" for term in terms - {"lpips"} for scale in (0, 1)} | (terms & {"lpips"})
    assert calls == [False] * teacher_calls  # in eval mode, every time
    weights = {"paired": CONFIG.paired, "l1": CONFIG.l1, "lpips": CONFIG.lpips}
    expected = sum(weights[key.partition("_")[0]] * value for key, value in parts.items())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert student.head.weight.grad is not None
    assert all(parameter.grad is None for parameter in teacher.parameters())
