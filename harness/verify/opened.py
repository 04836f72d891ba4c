"""A run as verification reads it: record, per-image values, features, images, and its decoders built again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.decoder import Decoder, DecoderOptions
from harness.errors import MsbenchError
from harness.record import run as whole
from harness.record.record import Record
from harness.record.run import FEATURES, REFERENCE, feature_key
from harness.registry import build_decoder

if TYPE_CHECKING:
    import pandas as pd

Features = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Opened:
    """Everything a run left behind."""

    record: Record
    """as read"""
    samples: pd.DataFrame
    """one row per decoder, noise seed and image"""
    features: Mapping[str, NDArray[np.float32]] | None
    """tensors of features.safetensors; None where the run kept none"""
    images: Path | None
    """folder of the saved images; None where there is none"""

    @property
    def data(self) -> dict[str, Any]:
        """The content of record.json in JSON types."""
        return self.record.as_json()

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Decoder -> its row of `results`."""
        return {row["decoder"]: row for row in self.record.results}

    def details(self, decoder: str) -> dict[str, Any]:
        """What the record says of one decoder beyond its row; empty where it says nothing."""
        return dict(self.data["decoders"].get(decoder) or {})

    def keys(self, decoder: str) -> list[str]:
        """Images of one decoder, in their order."""
        return list(dict.fromkeys(self.samples.loc[self.samples["decoder"] == decoder, "key"]))

    def seeds(self, decoder: str) -> list[int]:
        """Noise seeds that one decoder has values for."""
        return sorted(int(seed) for seed in self.samples.loc[self.samples["decoder"] == decoder, "noise_seed"].unique())

    def values(self, decoder: str, metric: str) -> pd.DataFrame:
        """A per-image metric, images x noise seeds."""
        mine = self.samples[self.samples["decoder"] == decoder]
        return mine.pivot(index="key", columns="noise_seed", values=metric).reindex(self.keys(decoder))

    def metrics(self, decoder: str) -> list[str]:
        """Names in the decoder's row that the samples hold values of."""
        return [name for name in self.rows[decoder] if name in self.samples and self.samples[name].dtype.kind == "f"]

    def photographs(self, decoder: str) -> list[str]:
        """The photograph each image was cut from, images of none standing for themselves."""
        mine = self.samples[self.samples["decoder"] == decoder].drop_duplicates("key")
        named = mine["source_photo"].notna() & (mine["source_photo"] != "")
        return list(mine["source_photo"].where(named, "image " + mine["key"]))

    def pairs(self, decoder: str) -> dict[int, tuple[Features, Features]]:
        """Noise seed -> features of references and reconstructions [n, 2048]; seeds whose features were not kept are absent."""
        held = self.features or {}
        found = {}
        for seed in self.seeds(decoder):
            decoded, reference = held.get(feature_key(decoder, seed)), held.get(REFERENCE)
            if decoded is not None and reference is not None and decoded.shape == reference.shape:
                found[seed] = (reference.astype(np.float64), decoded.astype(np.float64))
        return found

    def image_groups(self) -> Iterator[tuple[str, int, Path]]:
        """Decoder, noise seed and the folder its images were saved in."""
        if self.images is None:
            return
        for decoder in self.rows:
            for index, seed in enumerate(self.seeds(decoder)):
                yield decoder, seed, self.images / (decoder if index == 0 else f"{decoder}/noise-seed-{seed}")


def open_run(path: Path, images: Path | None = None) -> Opened:
    """Read a run; `images` None takes the folder the record names, if it is still there.

    Raises:
        MsbenchError: no run there, files missing or damaged, or `images` holds no saved images.
    """
    opened = whole.open_run(path)
    record = opened.record
    if images is not None and not (images / "reference").is_dir():
        raise MsbenchError(f"--images {images}: no folder `reference` in it; give the folder of `msbench run --save-images`")
    if images is None and (saved := record.data.config.get("save_images")) and (Path(str(saved)) / "reference").is_dir():
        images = Path(str(saved))
    return Opened(record, opened.samples, _features(record.folder / FEATURES), images)


def rebuild(record: Record, decoder: str) -> Decoder:
    """The decoder of a run, built again on the CPU in fp32.

    Raises:
        MsbenchError: its package or its checkpoint is not here.
    """
    config: Mapping[str, Any] = record.data.config
    checkpoint = config.get("checkpoint")
    options = DecoderOptions(
        checkpoint=Path(checkpoint) if checkpoint else None, steps=config.get("steps"), scales=config.get("scales")
    )
    return build_decoder(decoder, options)


def _features(path: Path) -> dict[str, NDArray[np.float32]] | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        return None
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise MsbenchError(f"{path} is not a readable safetensors file ({error}): run it again") from error
