"""Principal components of cells and the least-squares map: against NumPy's SVD and least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.cells import cells, fit_linear_map, fit_pca
from harness.errors import MsbenchError


@pytest.fixture
def images() -> Tensor:
    """uint8 [12, 3, 37, 50]: smooth, correlated across channels, no multiple of the cells' side."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((12, 4, 9, 12), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(37, 50), mode="bicubic").clamp(0, 1)
    mixing = torch.tensor([[0.6, 0.3, 0.1, 0.0], [0.5, 0.2, 0.0, 0.3], [0.4, 0.0, 0.3, 0.3]])
    return torch.einsum("oc,bchw->bohw", mixing, smooth).mul(255).round().to(torch.uint8)


def rows(grid: Tensor) -> np.ndarray:
    return grid.movedim(1, -1).flatten(0, 2).double().numpy()


@pytest.mark.parametrize(("down_factor", "channels"), [(4, 1), (4, 5), (8, 16), (4, 48)])
def test_transpose_of_projection_is_the_best_reconstruction_of_its_rank(
    images: Tensor, down_factor: int, channels: int
) -> None:
    pca = fit_pca(images, down_factor, channels)
    data = rows(cells(images, down_factor))
    mean = data.mean(axis=0)
    _, _, right = np.linalg.svd(data - mean, full_matrices=False)
    best = (data - mean) @ right[:channels].T @ right[:channels] + mean
    (weight, bias), (back, offset) = pca.projection(), pca.transpose()
    numbers = data @ weight.double().numpy().T + bias.double().numpy()
    found = numbers @ back.double().numpy().T + offset.double().numpy()
    assert np.abs(found - best).max() < 2e-4
    assert ((found - data) ** 2).sum() == pytest.approx(((best - data) ** 2).sum(), rel=1e-4, abs=1e-4)


def test_numbers_are_white_and_components_orthonormal(images: Tensor) -> None:
    pca = fit_pca(images, 8, 6)
    weight, bias = pca.projection()
    numbers = rows(cells(images, 8)) @ weight.double().numpy().T + bias.double().numpy()
    assert np.abs(np.cov(numbers.T, bias=True) - np.eye(6)).max() < 1e-4
    assert np.abs(numbers.mean(axis=0)).max() < 1e-4
    assert torch.allclose(pca.components @ pca.components.T, torch.eye(6), atol=1e-5)
    assert (pca.std.diff() <= 0).all()
    assert (pca.components.gather(1, pca.components.abs().argmax(dim=1, keepdim=True)) > 0).all()


def test_flat_images_give_finite_weights_that_fit_fp16() -> None:
    pca = fit_pca(torch.full((3, 3, 16, 16), 77, dtype=torch.uint8), 8, 4)
    (weight, bias), (back, offset) = pca.projection(), pca.transpose()
    assert all(part.half().isfinite().all() for part in (weight, bias, back, offset))
    assert torch.allclose(offset, torch.tensor(77 / 127.5 - 1))


def test_the_map_from_the_projection_is_its_transpose(images: Tensor) -> None:
    pca = fit_pca(images, 8, 5)
    weight, bias = pca.projection()
    numbers = torch.einsum("cd,bdhw->bchw", weight, cells(images, 8)) + bias[:, None, None]
    back, offset = fit_linear_map(numbers, images, 8)
    assert torch.allclose(back, pca.transpose()[0], atol=1e-4)
    assert torch.allclose(offset, pca.mean, atol=1e-4)


def test_the_map_from_any_latents_is_that_of_least_squares(images: Tensor) -> None:
    """A nonlinear code of the cells, one of whose channels never moves."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn((7, 192), generator=generator) / 8
    latents = torch.tanh(torch.einsum("cd,bdhw->bchw", mixing, cells(images, 8))) + 3
    latents[:, 4] = 0.5
    weight, bias = fit_linear_map(latents, images, 8)
    inputs, targets = rows(latents), rows(cells(images, 8))
    design = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    solution, *_ = np.linalg.lstsq(design, targets, rcond=None)
    found = inputs @ weight.double().numpy().T + bias.double().numpy()
    assert np.abs(found - design @ solution).max() < 1e-3
    assert weight[:, 4].abs().max() < 1e-6


def test_what_cannot_be_fitted_is_refused(images: Tensor) -> None:
    with pytest.raises(MsbenchError, match="have 48 values: 49 components"):
        fit_pca(images, 4, 49)
    with pytest.raises(MsbenchError, match="smaller than a cell of 8 px"):
        fit_pca(images[..., :6, :6], 8, 4)
    with pytest.raises(MsbenchError, match="cells of 64 px a side are too large"):
        fit_pca(images, 64, 4)
    with pytest.raises(MsbenchError, match=r"grid of \(4, 5\) do not fit"):
        fit_linear_map(torch.zeros(12, 2, 4, 5), images, 8)
