"""The kinds of distillation: which terms each has, whom it asks, and step doubling by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decoders.denoiser import Denoiser
from decoders.flow import make_flow
from decoders.sampling import integrate
from decoders.training.adversary import Adversary, AdversaryConfig, make_adversary
from decoders.training.config import TrainConfig
from decoders.training.data import TrainingImages
from decoders.training.distillation import DistillationLossConfig, DistillationName, DistillationObjective
from decoders.training.regression import RegressionLossConfig, RegressionObjective
from decoders.training.self_distillation import SelfDistillationObjective
from decoders.training.trainer import train

CONFIG = DistillationLossConfig(batch=2, crop=32, teacher_steps=4)
MakeDenoiser = Callable[[int], Denoiser]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def patch_adversary(start: float = 0.0) -> Adversary:
    adversary = make_adversary(AdversaryConfig(weight=0.5, start=start, crop=16), torch.device("cpu"), 0)
    assert adversary is not None
    return adversary


@pytest.mark.parametrize(
    ("name", "terms", "teacher_calls"),
    [("paired", {"paired"}, 8), ("direct", {"l1", "lpips"}, 0), ("paired+direct", {"paired", "l1", "lpips"}, 8)],
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
    loss, parts = objective.loss(generator(), 0.0)
    assert set(parts) == {f"{term}_{scale}" for term in terms for scale in (0, 1)}
    assert calls == [False] * teacher_calls  # in eval mode, every time
    weights = {"paired": CONFIG.paired, "l1": CONFIG.l1, "lpips": CONFIG.lpips}
    expected = sum(weights[key.rpartition("_")[0]] * value for key, value in parts.items())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert student.head.weight.grad is not None
    assert all(parameter.grad is None for parameter in teacher.parameters())


def doubling(
    tiny_denoiser: MakeDenoiser, data: TrainingImages, scales: int = 1, adversary: Adversary | None = None
) -> SelfDistillationObjective:
    student, teacher = tiny_denoiser(scales).requires_grad_(True), tiny_denoiser(scales)
    return SelfDistillationObjective(student, teacher, make_flow("cascade", scales), data, CONFIG, adversary)


def test_step_doubling_asks_for_two_half_steps(
    tiny_denoiser: MakeDenoiser, latent_pictures: TrainingImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage by stage the teacher takes two steps of half the student's width, from where the student starts."""
    from decoders.training import self_distillation

    seen: list[tuple[bool, tuple[float, ...], float]] = []

    def spy(denoiser: Denoiser, flow: Any, x: Tensor, c: Tensor, k: int, time: Tensor, r: Tensor, width: float) -> Tensor:
        seen.append((denoiser is objective.module, tuple(time.tolist()), width))
        return integrate(denoiser, flow, x, c, k, time, r, width)

    monkeypatch.setattr(self_distillation, "integrate", spy)
    objective = doubling(tiny_denoiser, latent_pictures)
    for progress, width in ((0.0, 0.5), (0.49, 0.5), (0.5, 1.0), (0.99, 1.0), (1.0, 1.0)):
        seen.clear()
        objective.loss(generator(), progress)
        (first, second, student) = seen
        assert [first[0], second[0], student[0]] == [False, False, True]
        assert (first[2], second[2], student[2]) == (width / 2, width / 2, width)
        assert first[1] == student[1]
        assert second[1] == tuple(time + width / 2 for time in first[1])
        assert all(time % width == 0 and time + width <= 1 for time in student[1])


def test_a_new_stage_freezes_the_network_as_it_stands(tiny_denoiser: MakeDenoiser, latent_pictures: TrainingImages) -> None:
    objective = doubling(tiny_denoiser, latent_pictures)
    with torch.no_grad():
        objective.module.head.weight.add_(0.1)
    objective.loss(generator(), 0.2)
    assert not torch.equal(objective.teacher.head.weight, objective.module.head.weight)
    objective.loss(generator(), 0.6)
    assert torch.equal(objective.teacher.head.weight, objective.module.head.weight)


def digest(module: nn.Module) -> list[float]:
    return [float(value.double().sum()) for value in module.state_dict().values()]


@pytest.mark.parametrize("stop", [3, 5])
def test_step_doubling_resumes_exactly(
    stop: int, tiny_denoiser: MakeDenoiser, latent_pictures: TrainingImages, tmp_path: Path
) -> None:
    """Across the change of stage, with an adversary: the frozen copy and the discriminator are part of the state."""
    config = TrainConfig(max_steps=8, warmup=1, precision="fp32")
    whole = doubling(tiny_denoiser, latent_pictures, adversary=patch_adversary())
    train(whole, config, tmp_path / "whole", torch.device("cpu"))
    first = doubling(tiny_denoiser, latent_pictures, adversary=patch_adversary())
    train(first, replace(config, stop_after=stop), tmp_path / "parts", torch.device("cpu"))
    second = doubling(tiny_denoiser, latent_pictures, adversary=patch_adversary())
    train(second, config, tmp_path / "parts", torch.device("cpu"), resume=True)
    assert digest(second.module) == digest(whole.module)
    assert digest(second.module) != digest(tiny_denoiser(1))


def test_the_adversary_s_phase_is_the_last_stage_s(tiny_denoiser: MakeDenoiser, latent_pictures: TrainingImages) -> None:
    """FLOPs are counted anew where it begins: after its own start, and not before one step goes all the way."""
    phases = {
        start: [doubling(tiny_denoiser, latent_pictures, 1, patch_adversary(start)).phase(p) for p in (0.0, 0.49, 0.5, 0.9)]
        for start in (0.0, 0.8)
    }
    assert phases == {0.0: ["plain"] * 2 + ["adversarial"] * 2, 0.8: ["plain"] * 3 + ["adversarial"]}


def test_an_adversary_judges_the_finest_scale_alone(
    tiny_denoiser: MakeDenoiser, latent_pictures: TrainingImages, perceptual: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = Adversary.term

    def spy(self: Adversary, fake: Tensor, *rest: Any) -> Any:
        sizes.append(fake.shape[-1])
        return original(self, fake, *rest)

    monkeypatch.setattr(Adversary, "term", spy)
    student = tiny_denoiser(2).requires_grad_(True)
    distilled = DistillationObjective(
        student, tiny_denoiser(2), make_flow("cascade", 2), latent_pictures, CONFIG, perceptual, patch_adversary()
    )
    regression = RegressionObjective(
        student,
        make_flow("noise-free", 2),
        latent_pictures,
        RegressionLossConfig(batch=2, crop=32),
        perceptual,
        patch_adversary(),
    )
    for objective in (distilled, regression):
        plain = float(objective.loss(generator(), -1.0)[0].detach())
        judged, parts = objective.loss(generator(), 0.0)
        assert parts["adversarial"] != 0
        assert float(judged.detach()) != plain
    assert sizes == [32] * 4
