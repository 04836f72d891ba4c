from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

Features = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Population:
    """Endless pairs of features as pooled activations of a network are: correlated, non-negative, with heavy tails (Student's t
    with 8 degrees of freedom, common to all dimensions of an image, then rectified). In 64 dimensions their mean square (0.15)
    and the participation ratio of their spectrum (26) are near those of Inception features of a hundred photographs."""

    mixing: Features
    """[D, D] from independent dimensions to correlated ones"""
    freedom: int = 8
    """of Student's t"""

    def draw(self, n: int, generator: np.random.Generator, decoders: int = 1, same: bool = False) -> list[Features]:
        """References and the reconstructions of each decoder, [n, D] each: shrunk, shifted and noisy, a little more with each
        decoder unless `same`."""
        dimensions = len(self.mixing)
        scale = np.sqrt(self.freedom / generator.chisquare(self.freedom, size=(n, 1)))
        latent = generator.normal(size=(n, dimensions)) * scale @ self.mixing
        found = [np.maximum(latent + 0.1, 0.0)]
        for index in range(decoders):
            amount = 1.0 if same else 1.0 + 0.15 * index
            noise = 0.3 * amount * generator.normal(size=(n, dimensions)) @ self.mixing
            found.append(np.maximum(latent * (1.0 - 0.1 * amount) + noise + 0.1 + 0.03 * amount, 0.0))
        return found


def population(dimensions: int) -> Population:
    generator = np.random.default_rng(dimensions)
    decay = np.arange(1, dimensions + 1)[:, None] ** -0.4
    mixing = generator.normal(size=(dimensions, dimensions)) * decay
    return Population(0.3 * mixing / np.sqrt(np.square(mixing).sum(axis=0).mean()))


@pytest.fixture(scope="session")
def populations() -> dict[int, Population]:
    """By dimension."""
    return {dimensions: population(dimensions) for dimensions in (8, 16, 64, 256)}
