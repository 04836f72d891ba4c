"""Linear codes of f×f cells of images: their principal components, and the least-squares map that any latents allow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import MsbenchError

FITTED_IMAGES = 4096
"""at most as many images, spread over the set, are read for a fit"""
LARGEST_CELL = 32
"""side in pixels: a fit decomposes a matrix of 3f² × 3f² numbers"""
_BATCH = 32
_LEAST_STD = 1e-3  # a component without spread is left unscaled by more than this, so that weights fit fp16


@dataclass(frozen=True, slots=True)
class CellPca:
    """Principal components of f×f RGB cells in [-1, 1]; rows are in the order of `pixel_unshuffle`. float32."""

    mean: Tensor
    """[3f²]"""
    components: Tensor
    """[C, 3f²], orthonormal rows, by falling variance"""
    std: Tensor
    """[C], standard deviation along each component"""

    def projection(self) -> tuple[Tensor, Tensor]:
        """Weight [C, 3f²] and bias [C] of the map from cells to whitened numbers."""
        weight = self.components / self.std.clamp(min=_LEAST_STD)[:, None]
        return weight, -weight @ self.mean

    def transpose(self) -> tuple[Tensor, Tensor]:
        """Weight [3f², C] and bias [3f²] of the map from whitened numbers back to cells."""
        return (self.components * self.std.clamp(min=_LEAST_STD)[:, None]).T, self.mean


def fit_pca(images: Tensor, down_factor: int, channels: int) -> CellPca:
    """The components of the cells of uint8 images [N, 3, H, W], signs fixed so that the largest entry of each is positive.

    Raises:
        MsbenchError: more numbers than a cell has values, cells too large to fit, or images smaller than a cell.
    """
    if not 1 <= channels <= 3 * down_factor**2:
        raise MsbenchError(
            f"cells of {down_factor}×{down_factor} pixels have {3 * down_factor**2} values: {channels} components"
        )
    mean, covariance = _moments(_rows(cells(images[part], down_factor)) for part in _parts(images, down_factor))
    variances, vectors = torch.linalg.eigh(covariance)
    components = vectors.flip(1).T[:channels]
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    std = variances.flip(0)[:channels].clamp(min=0.0).sqrt()
    return CellPca(mean.float(), (components * largest.sign()).float().contiguous(), std.float())


def fit_linear_map(latents: Tensor, images: Tensor, down_factor: int) -> tuple[Tensor, Tensor]:
    """Weight [3f², C] and bias [3f²] of the least-squares map from latents [N, C, H/f, W/f] to the cells of their images.

    Args:
        latents: of any encoder, normalised or not; a channel without spread gets weight 0.
        images: uint8 [N, 3, H, W].

    Raises:
        MsbenchError: cells too large to fit, images smaller than a cell, or latents on another grid.
    """
    parts = _parts(images, down_factor)
    grid, size = tuple(latents.shape[-2:]), tuple(images.shape[-2:])
    if grid != tuple(side // down_factor for side in size):
        raise MsbenchError(f"latents on a grid of {grid} do not fit images of {size} px in cells of {down_factor} px")
    channels = latents.shape[1]
    mean, covariance = _moments(
        torch.cat([_rows(latents[part].cpu()), _rows(cells(images[part], down_factor))], dim=1) for part in parts
    )
    weight = covariance[channels:, :channels] @ torch.linalg.pinv(covariance[:channels, :channels], hermitian=True)
    return weight.float(), (mean[channels:] - weight @ mean[:channels]).float()


def cells(images: Tensor, down_factor: int) -> Tensor:
    """uint8 [B, 3, H, W] -> [B, 3f², H/f, W/f] in [-1, 1]; rows and columns beyond a multiple of f are left out."""
    height, width = (side // down_factor * down_factor for side in images.shape[-2:])
    return F.pixel_unshuffle(images[..., :height, :width].cpu().float() / 127.5 - 1.0, down_factor)


def _parts(images: Tensor, down_factor: int) -> list[Tensor]:
    """Indices of the images of a fit, batch by batch."""
    if down_factor > LARGEST_CELL:
        raise MsbenchError(f"cells of {down_factor} px a side are too large to fit, at most {LARGEST_CELL} px")
    if min(images.shape[-2:]) < down_factor:
        raise MsbenchError(f"images of {tuple(images.shape[-2:])} px are smaller than a cell of {down_factor} px")
    picks = torch.linspace(0, len(images) - 1, min(len(images), FITTED_IMAGES)).long()
    return [picks[start : start + _BATCH] for start in range(0, len(picks), _BATCH)]


def _rows(grid: Tensor) -> Tensor:
    """[B, D, h, w] -> float32 [B·h·w, D]."""
    return grid.movedim(1, -1).flatten(0, 2).float()


def _moments(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean [D] and covariance [D, D] of rows, float64; products within a batch are float32, of rows less the first's mean."""
    count, shift = 0, torch.zeros(())
    total, products = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for rows in batches:
        if count == 0:
            shift = rows.mean(dim=0)
        centred = rows - shift
        count += len(rows)
        total, products = total + centred.double().sum(dim=0), products + (centred.T @ centred).double()
    mean = total / count
    return shift + mean, products / count - torch.outer(mean, mean)
