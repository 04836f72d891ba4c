"""The Inception features of a run, `features.safetensors` in its folder: what makes rFID and KID of two runs comparable pair by
pair, and lets `verify` compute them again.

Tensors, float32 [n, 2048] in the order of the run's images: "reference", and "NAME/SEED" for each decoder and noise seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import MsbenchError
from harness.files import atomic_path

FEATURES = "features.safetensors"
REFERENCE = "reference"
Features = NDArray[np.float32]


def feature_key(decoder: str, noise_seed: int) -> str:
    """Name of one decoder's features under one noise seed."""
    return f"{decoder}/{noise_seed}"


def write_features(folder: Path, reference: Features, decoders: Mapping[str, Mapping[int, Features]]) -> None:
    """Write the features [n, 2048] of the references and of each decoder and noise seed."""
    from safetensors.numpy import save_file

    tensors = {REFERENCE: np.ascontiguousarray(reference)}
    for name, seeds in decoders.items():
        for seed, features in seeds.items():
            tensors[feature_key(name, seed)] = np.ascontiguousarray(features)
    with atomic_path(folder / FEATURES) as temporary:
        save_file(tensors, temporary)


def read_features(folder: Path, decoder: str) -> tuple[Features, list[Features]] | None:
    """References' features and the decoder's, one array a noise seed in the order of the seeds; None where none were kept.

    Raises:
        MsbenchError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FEATURES
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            seeds = sorted(int(key.rpartition("/")[2]) for key in file.keys() if key.rpartition("/")[0] == decoder)  # noqa: SIM118
            if not seeds:
                return None
            return file.get_tensor(REFERENCE), [file.get_tensor(feature_key(decoder, seed)) for seed in seeds]
    except (SafetensorError, OSError) as error:
        raise MsbenchError(f"{path} is not a readable safetensors file ({error}): run it again") from error
