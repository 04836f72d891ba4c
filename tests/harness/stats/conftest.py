from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

Features = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Population:
    """Endless pairs of features as pooled activations are: correlated, non-negative, with heavy tails (Student's t, 8 degrees
    of freedom common to all dimensions of an image, then rectified) and a spectrum that decays like a power law."""

    mixing: Features
    distortion: Features
    bias: float = 0.3
    noise: float = 0.3
    freedom: int = 8

    def draw(self, n: int, generator: np.random.Generator, decoders: int = 1, same: bool = False) -> list[Features]:
        """References and the reconstructions of each decoder, [n, D] each; later decoders are a little worse unless `same`."""
        dimensions = len(self.mixing)
        scale = np.sqrt(self.freedom / generator.chisquare(self.freedom, size=(n, 1)))
        latent = generator.normal(size=(n, dimensions)) * scale @ self.mixing
        found = [np.maximum(latent + self.bias, 0.0)]
        for index in range(decoders):
            amount = self.noise * (1.0 if same else 1.0 + 0.15 * index)
            noise = amount * generator.normal(size=(n, dimensions)) @ self.mixing
            found.append(np.maximum(latent @ self.distortion + noise + self.bias, 0.0))
        return found


def population(dimensions: int) -> Population:
    generator = np.random.default_rng(dimensions)
    decay = np.arange(1, dimensions + 1)[:, None] ** -0.6
    mixing = 3.0 * generator.normal(size=(dimensions, dimensions)) * decay / np.sqrt(dimensions)
    distortion = 0.91 * np.eye(dimensions) + 0.06 * generator.normal(size=(dimensions, dimensions)) / np.sqrt(dimensions)
    return Population(mixing, distortion)


@pytest.fixture(scope="session")
def populations() -> dict[int, Population]:
    """By dimension."""
    return {dimensions: population(dimensions) for dimensions in (8, 16, 64, 256)}
