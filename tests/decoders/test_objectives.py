"""The training objectives: finite losses, gradients where they belong, and what each promises."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decoders.autoencoder import Autoencoder
from decoders.denoiser import Denoiser
from decoders.flow import CascadeFlow, FlowName, double, halve, make_flow
from decoders.training.autoencoder import AutoencoderLossConfig, AutoencoderObjective
from decoders.training.data import TrainingImages
from decoders.training.distillation import DistillationLossConfig, DistillationName, DistillationObjective
from decoders.training.flow_matching import FlowLossConfig, FlowObjective
from decoders.training.regression import RegressionLossConfig, RegressionObjective
from decoders.training.scales import image_pyramid
from harness.errors import MsbenchError

MakeDenoiser = Callable[[int], Denoiser]
PHASES = (0.0, 0.6, 0.9)
"""progress: squared error alone, with LPIPS, on whole images"""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def untouched(module: nn.Module) -> set[str]:
    """Trained parameters that got no gradient."""
    return {name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}


def test_autoencoder_objective(tiny_autoencoder: Autoencoder, pictures: TrainingImages, perceptual: Any) -> None:
    module = tiny_autoencoder.requires_grad_(True).train()
    config = AutoencoderLossConfig(batch=3, crop=32)
    loss, parts = AutoencoderObjective(module, pictures, config, perceptual).loss(generator(), 0.6)
    assert loss.isfinite()
    assert float(loss.detach()) == pytest.approx(parts["mse"] + 0.1 * parts["lpips"] + 1e-6 * parts["kl"], rel=1e-5)
    loss.backward()
    assert untouched(module) == set()
    again, _ = AutoencoderObjective(module, pictures, config, perceptual).loss(generator(), 0.6)
    assert torch.equal(again, loss)


@pytest.mark.parametrize(("flow", "scales"), [("cascade", 1), ("cascade", 3), ("pyramid", 3)])
def test_flow_objective_trains_everything(
    flow: FlowName, scales: int, tiny_denoiser: MakeDenoiser, latent_pictures: TrainingImages, perceptual: Any
) -> None:
    module = tiny_denoiser(scales).train()
    config = FlowLossConfig(batch=4, single_scale_batch=4, crop=32)
    objective = FlowObjective(module, make_flow(flow, scales), latent_pictures, config, perceptual)
    loss, parts = objective.loss(generator(), 0.6)
    assert loss.isfinite()
    loss.backward()
    assert untouched(module) == set()
    assert set(parts) == {f"{name}_{scale}" for name in ("velocity", "lpips") for scale in range(scales)}
    # The first loss is its own running mean: each scale starts at weight 1.
    assert objective.running == pytest.approx([parts[f"velocity_{scale}"] for scale in range(scales)])
    state = objective.extra_state()
    other = FlowObjective(module, make_flow(flow, scales), latent_pictures, config, perceptual)
    other.load_extra_state(state)
    assert other.running == objective.running


class Omniscient(nn.Module):
    """Predicts the clean image from the noisy one, by having kept the pair it was made of."""

    def __init__(self, network: Denoiser, error: float = 0.0) -> None:
        super().__init__()
        self.config = network.config
        self.bias = nn.Parameter(torch.tensor(error))
        self.clean: Tensor | None = None

    def project_scale(self, latents: Tensor, scale: int) -> Tensor:
        return latents

    def forward(self, x: Tensor, condition: Tensor, scale: int, time: Tensor, corruption: Tensor) -> Tensor:
        assert self.clean is not None
        return self.clean + self.bias


@pytest.mark.parametrize(
    ("flow", "scales"), [("cascade", 1), ("cascade", 3), ("pyramid", 1), ("pyramid", 2), ("pyramid", 3), ("noise-free", 1)]
)
@pytest.mark.parametrize("error", [0.0, 0.3])
def test_a_perfect_estimate_has_no_velocity_loss(
    flow: FlowName,
    scales: int,
    error: float,
    tiny_denoiser: MakeDenoiser,
    latent_pictures: TrainingImages,
    perceptual: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = Omniscient(tiny_denoiser(scales), error)
    path = make_flow(flow, scales)
    original = type(path).training_pair

    def spy(self: Any, scale: int, clean: Tensor, normal: Any, uniform: Tensor, sampled: Tensor | None) -> Any:
        module.clean = clean
        return original(self, scale, clean, normal, uniform, sampled)

    monkeypatch.setattr(type(path), "training_pair", spy)
    config = FlowLossConfig(batch=2, single_scale_batch=8, crop=32, rollouts=0.0)
    objective = FlowObjective(module, path, latent_pictures, config, perceptual)  # type: ignore[arg-type]
    for seed in range(5):  # among the times are 0 and ones near 1
        _, parts = objective.loss(generator(seed), 0.0)
        for scale in range(scales):
            if error == 0.0:
                assert parts[f"velocity_{scale}"] < 1e-8
            else:
                assert parts[f"velocity_{scale}"] > 1e-3


def test_times_follow_the_recipe(tiny_denoiser: MakeDenoiser, latent_pictures: TrainingImages, perceptual: Any) -> None:
    objective = FlowObjective(tiny_denoiser(3), make_flow("cascade", 3), latent_pictures, FlowLossConfig(), perceptual)
    count = 20_000
    for scale in range(3):
        time = objective.sample_time(scale, count, generator(scale))
        zero = float((time == 0).double().mean())
        assert zero == pytest.approx(0.1, abs=4 * (0.09 / count) ** 0.5)
        moving = time[time > 0]
        assert moving.max() < 1
        inner = float(((moving > 0.25) & (moving < 0.75)).double().mean())
        # Logit-normal(0, 1): P(|z| < ln 3) = 0.728; uniform: 0.5.
        assert inner == pytest.approx(0.728 if scale == 0 else 0.5, abs=4 * (0.25 / count / 0.9) ** 0.5)


@pytest.mark.parametrize("scales", [1, 2])
def test_regression_objective(
    scales: int, tiny_denoiser: MakeDenoiser, latent_pictures: TrainingImages, perceptual: Any
) -> None:
    module = tiny_denoiser(scales).train()
    config = RegressionLossConfig(batch=2, crop=32)
    objective = RegressionObjective(module, make_flow("noise-free", scales), latent_pictures, config, perceptual)
    loss, parts = objective.loss(generator(), 0.6)
    assert loss.isfinite()
    assert float(loss.detach()) == pytest.approx(sum(parts[f"l1_{k}"] for k in range(scales)) + 0.15 * parts["lpips"])
    loss.backward()
    # From zeros the stem sees nothing: its weights (not its bias) have no gradient at scale 0.
    assert untouched(module) == ({"stem.weight"} if scales == 1 else set())


def distillation(
    flow: FlowName, scales: int, student: Denoiser, teacher: Denoiser, data: TrainingImages, perceptual: Any
) -> DistillationObjective:
    config = DistillationLossConfig(batch=2, crop=32, teacher_steps=3, lpips_from=0.5, objective="paired+direct")
    return DistillationObjective(student, teacher, make_flow(flow, scales), data, config, perceptual)


@pytest.mark.parametrize(("flow", "scales"), [("cascade", 1), ("cascade", 3), ("pyramid", 2)])
@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_distillation_objective(
    flow: FlowName,
    scales: int,
    progress: float,
    tiny_denoiser: MakeDenoiser,
    latent_pictures: TrainingImages,
    perceptual: Any,
) -> None:
    student, teacher = tiny_denoiser(scales).train(), tiny_denoiser(scales).train()
    before = copy.deepcopy(teacher.state_dict())
    objective = distillation(flow, scales, student, teacher, latent_pictures, perceptual)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    loss, parts = objective.loss(generator(), progress)
    assert loss.isfinite()
    loss.backward()
    assert untouched(student) == set()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert set(parts) == {"lpips"} | {f"{name}_{scale}" for name in ("paired", "l1") for scale in range(scales)}
    assert math.isfinite(parts["lpips"]) == (progress > 0.5)


def test_teacher_and_student_start_from_one_tensor(
    tiny_denoiser: MakeDenoiser, latent_pictures: TrainingImages, perceptual: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher = tiny_denoiser(3), tiny_denoiser(3)
    objective = distillation("cascade", 3, student, teacher, latent_pictures, perceptual)
    seen: dict[str, list[tuple[int, float, Tensor]]] = {"student": [], "teacher": []}
    forward = Denoiser.forward

    def spy(self: Denoiser, x: Tensor, condition: Tensor, scale: int, time: Tensor, corruption: Tensor) -> Tensor:
        seen["student" if self is student else "teacher"].append((scale, float(time[0]), x.detach().clone()))
        return forward(self, x, condition, scale, time, corruption)

    monkeypatch.setattr(Denoiser, "forward", spy)
    objective.loss(generator(), 0.0)
    assert [(scale, time) for scale, time, _ in seen["student"]] == [(0, 0.0), (1, 0.0), (2, 0.0)]
    # The teacher takes several steps, from the very tensor the student started from.
    assert [scale for scale, _, _ in seen["teacher"]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [time for _, time, _ in seen["teacher"]][:3] == pytest.approx([0, 1 / 3, 2 / 3])
    for scale in range(3):
        assert torch.equal(seen["student"][scale][2], seen["teacher"][3 * scale][2])
        assert not torch.equal(seen["teacher"][3 * scale][2], seen["teacher"][3 * scale + 1][2])


@pytest.mark.parametrize("name", ["paired", "paired+direct"])
def test_a_student_that_equals_a_one_step_teacher_has_no_paired_loss(
    name: DistillationName, tiny_denoiser: MakeDenoiser, latent_pictures: TrainingImages, perceptual: Any
) -> None:
    """LPIPS is to the teacher's end where that alone is the aim, else to the image, which tiny networks are far from."""
    student = tiny_denoiser(3)
    config = DistillationLossConfig(batch=2, crop=32, teacher_steps=1, objective=name)
    objective = DistillationObjective(
        student, copy.deepcopy(student), make_flow("cascade", 3), latent_pictures, config, perceptual
    )
    _, parts = objective.loss(generator(), 0.0)
    assert max(parts[f"paired_{scale}"] for scale in range(3)) < 1e-10
    assert (parts["lpips"] < 1e-6) == ("l1_0" not in parts) == (name == "paired")
    assert parts.get("l1_0", 1.0) > 0.01


def test_the_finest_scale_s_lpips_reaches_the_coarsest_scale(
    tiny_denoiser: MakeDenoiser, latent_pictures: TrainingImages, perceptual: Any
) -> None:
    """All scales are trained jointly: LPIPS stands at the finest alone, and changes the coarsest one's embedding."""
    grads = []
    for lpips_from in (0.0, 1.0):
        student = tiny_denoiser(2)
        config = DistillationLossConfig(batch=2, crop=32, lpips_from=lpips_from, objective="paired+direct")
        objective = DistillationObjective(
            student, tiny_denoiser(2), make_flow("cascade", 2), latent_pictures, config, perceptual
        )
        objective.loss(generator(), 0.0)[0].backward()
        assert student.scale.weight.grad is not None
        grads.append(student.scale.weight.grad.clone())
    assert not torch.allclose(grads[0][0], grads[1][0], atol=1e-6)


def test_a_cascade_trains_on_what_it_samples_itself(
    tiny_denoiser: MakeDenoiser, latent_pictures: TrainingImages, perceptual: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the coarse inputs are the network's own ends, uncorrupted; the coarsest scale has none."""
    module, given = tiny_denoiser(3), {}
    original = CascadeFlow.training_pair

    def spy(self: Any, scale: int, clean: Tensor, normal: Any, uniform: Tensor, sampled: Tensor | None) -> Any:
        pair = original(self, scale, clean, normal, uniform, sampled)
        given[scale] = (clean, sampled, pair)
        return pair

    monkeypatch.setattr(CascadeFlow, "training_pair", spy)
    config = FlowLossConfig(batch=16, crop=32)
    objective = FlowObjective(module, CascadeFlow(3, bridge_noise=0.0), latent_pictures, config, perceptual)
    objective.loss(generator(), 0.0)
    assert given[0][1] is None
    for scale in (1, 2):
        clean, sampled, pair = given[scale]
        own = len(clean) // 2
        assert len(sampled) == own
        assert not sampled.requires_grad
        assert torch.equal(pair.start[:own], double(sampled))
        assert pair.corruption[:own].eq(0).all()
        assert pair.corruption[own:].gt(0).all()
    monkeypatch.undo()
    calls: list[bool] = []
    module.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    FlowObjective(module, make_flow("cascade", 3), latent_pictures, config, perceptual).loss(generator(), 0.0)
    assert (calls.count(False), calls.count(True)) == (2 + 4, 3)


def test_crops_and_lpips_change_over_a_run(
    tiny_denoiser: MakeDenoiser, latent_pictures: TrainingImages, perceptual: Any
) -> None:
    config = RegressionLossConfig(batch=8, crop=32, whole_from=0.8, lpips_from=0.5)
    objective = RegressionObjective(tiny_denoiser(1), make_flow("noise-free", 1), latent_pictures, config, perceptual)
    seen = [
        (objective.samples(p), objective.phase(p), math.isfinite(objective.loss(generator(), p)[1]["lpips"])) for p in PHASES
    ]
    assert seen == [(8, (False, False), False), (8, (False, True), True), (2, (True, True), True)]
    assert config.at(0.9, 64) == (2, 64)
    assert config.at(0.0, 24) == (8, 24)


def test_the_pyramid_of_clean_images() -> None:
    images = torch.rand((2, 3, 16, 8))
    levels = image_pyramid(images, 3)
    assert [tuple(level.shape[-2:]) for level in levels] == [(4, 2), (8, 4), (16, 8)]
    assert torch.equal(levels[2], images)
    assert torch.allclose(levels[0], halve(halve(images)))
    assert torch.allclose(halve(double(levels[1])), levels[1])


def test_crops_keep_pixels_and_latents_together(pictures: TrainingImages) -> None:
    """Latents that name their own position show whether the crop of one is the crop of the other."""
    position = torch.arange(16 * 64).view(16, 1, 8, 8).float()
    images = double(double(double(position))).expand(16, 3, 64, 64)
    data = TrainingImages("positions", (images % 256).to(torch.uint8), "0", position)
    for size in (24, 64):
        crops, latents = data.crops(5, size, 8, generator())
        assert latents is not None
        assert crops.shape == (5, 3, size, size)
        expected = double(double(double(latents))) % 256 / 127.5 - 1
        assert torch.allclose(crops[:, :1], expected, atol=1e-6)
    assert pictures.crops(2, 100, 8, generator())[0].shape == (2, 3, 64, 64)
    assert pictures.crops(2, 60, 8, generator(), multiple=16)[0].shape == (2, 3, 48, 48)


def test_images_too_small_to_train_on_are_named(pictures: TrainingImages) -> None:
    with pytest.raises(MsbenchError, match="images of 64 px are too small"):
        pictures.crops(1, 256, 8, generator(), multiple=128)


@pytest.mark.parametrize("side", [72, 70])
def test_images_of_any_side_can_be_trained_on(
    side: int, pictures: TrainingImages, tiny_autoencoder: Autoencoder, tiny_denoiser: MakeDenoiser, perceptual: Any
) -> None:
    """Neither a multiple of what the coarsest scale needs (32 px), nor of the latents' 8 px."""
    images = torch.nn.functional.pad(pictures.images.float(), (0, side - 64, 0, side - 64), mode="replicate").to(torch.uint8)
    data = TrainingImages("odd", images, "0").with_latents(tiny_autoencoder.encode, 8)
    assert data.latents is not None
    assert data.latents.shape == (16, 4, side // 8, side // 8)
    assert not data.latents.is_inference()
    student = tiny_denoiser(3)
    config = FlowLossConfig(batch=1)
    FlowObjective(student, make_flow("pyramid", 3), data, config, perceptual).loss(generator(), 0.0)[0].backward()
    distilled = DistillationObjective(
        student, tiny_denoiser(3), make_flow("cascade", 3), data, DistillationLossConfig(batch=1), perceptual
    )
    distilled.loss(generator(), 0.0)[0].backward()
