"""What a run has measured so far: kept in memory, written in parts as it goes, read back by a run that resumes."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.cost.modes import eager_of
from harness.decoder import Decoder
from harness.errors import MsbenchError
from harness.files import atomic_path
from harness.record.record import plain
from harness.record.run import REFERENCE, feature_key, write_features, write_samples
from harness.run.rate import new_count
from harness.run.reconstruct import another_range, concatenate

if TYPE_CHECKING:
    import pandas as pd

PART_IMAGES, PART_SECONDS = 256, 30.0
"""a part is written after so many images, or so much time"""


@dataclass(slots=True)
class Journal:
    """The rows and tensors of every batch, in order; `state` is what else a run must know to go on, in JSON types.

    Tensors by name: "reference" and "LABEL/SEED" features; "shown:…" images of the sheet, uint8 [k, H, W, 3]; "latents:LABEL".
    """

    folder: Path
    """the run's folder"""
    state: dict[str, Any] = field(default_factory=dict)
    """decoder -> what was seen of it, and the images left out"""
    frames: dict[tuple[str, int], list[pd.DataFrame]] = field(default_factory=dict)
    """(decoder, noise seed) -> samples, one frame a batch"""
    tensors: dict[str, list[Tensor]] = field(default_factory=dict)
    """name -> one tensor a batch"""
    _parts: int = 0
    _fresh: tuple[list[pd.DataFrame], dict[str, list[Tensor]]] = field(default_factory=lambda: ([], {}))
    _waiting: int = 0
    _written: float = field(default_factory=time.monotonic)

    def add(self, images: int, frames: Mapping[tuple[str, int], pd.DataFrame], tensors: Mapping[str, Tensor]) -> None:
        """Take a batch; writes a part where enough has come together."""
        self._waiting += images
        for row, frame in frames.items():
            self.frames.setdefault(row, []).append(frame)
            self._fresh[0].append(frame)
        for name, tensor in tensors.items():
            for kept in (self.tensors, self._fresh[1]):
                kept.setdefault(name, []).append(tensor.cpu())
        if self._waiting >= PART_IMAGES or time.monotonic() - self._written >= PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what came since the last part; its samples last, so that a part with samples is whole."""
        import pandas as pd
        from safetensors.torch import save_file

        if self._waiting:
            name = f"part-{self._parts:05d}"
            with atomic_path(self.folder / "features" / f"{name}.safetensors") as path:
                joined = {key: concatenate(parts).contiguous() for key, parts in self._fresh[1].items()}
                save_file(joined, path, {"state": json.dumps(self.state)})
            with atomic_path(self.folder / "samples" / f"{name}.parquet") as path:
                pd.concat(self._fresh[0], ignore_index=True).to_parquet(path, index=False)
            self._parts += 1
        self._fresh, self._waiting, self._written = ([], {}), 0, time.monotonic()

    @classmethod
    def read(cls, folder: Path) -> Journal:
        """The whole parts of a run that ended early; empty where there are none.

        Raises:
            MsbenchError: a part is damaged.
        """
        import pandas as pd
        from safetensors import safe_open

        journal = cls(folder)
        while (path := folder / "samples" / f"part-{journal._parts:05d}.parquet").is_file():
            other = folder / "features" / f"{path.stem}.safetensors"
            try:
                groups: Any = pd.read_parquet(path).groupby(["decoder", "noise_seed"], sort=False)
                for row, frame in groups:
                    journal.frames.setdefault(row, []).append(frame)
                with safe_open(other, framework="pt") as file:
                    journal.state = json.loads(file.metadata()["state"])
                    for name in file.keys():  # noqa: SIM118 - no mapping
                        journal.tensors.setdefault(name, []).append(file.get_tensor(name))
            except Exception as error:
                raise MsbenchError(f"{path} or {other} cannot be read ({error}): measure again in another folder") from error
            journal._parts += 1
        return journal

    def images(self) -> pd.DataFrame:
        """key, label, source_photo and source_sha256 of every image measured, in order."""
        return self.rows(*next(iter(self.frames)))[["key", "label", "source_photo", "source_sha256"]]

    def rows(self, label: str, seed: int) -> pd.DataFrame:
        """The samples of one decoder under one noise seed."""
        import pandas as pd

        whole = pd.concat(self.frames[label, seed], ignore_index=True)
        self.frames[label, seed] = [whole]
        return whole

    def seeds(self, label: str) -> tuple[int, ...]:
        """Noise seeds that one decoder has values for."""
        return tuple(sorted(seed for name, seed in self.frames if name == label))

    def columns(self, label: str, seed: int) -> dict[str, NDArray[np.float64]]:
        """The per-image columns of one decoder under one seed, [n] each."""
        frame = self.rows(label, seed)
        return {str(name): values.to_numpy(np.float64) for name, values in frame.select_dtypes("float64").items()}

    def features(self, label: str, seed: int) -> NDArray[np.float32]:
        """Inception features of one decoder under one seed, [n, 2048]."""
        return self.array(feature_key(label, seed))

    def array(self, name: str) -> NDArray[Any]:
        """A tensor of all batches as an array."""
        joined: NDArray[Any] = torch.cat(self.tensors[name]).numpy()
        return joined

    def pictures(self, name: str) -> list[NDArray[np.uint8]]:
        """The images of a tensor, uint8 [H, W, 3] each, of any sizes."""
        return [image for part in self.tensors[name] for image in part.numpy()]

    def finish(self, labels: Iterable[str]) -> None:
        """Write samples.parquet and features.safetensors, decoders in the order of `labels`."""
        import pandas as pd

        order = {label: self.seeds(label) for label in labels}
        frames = [self.rows(label, seed) for label, seeds in order.items() for seed in seeds]
        write_samples(self.folder, pd.concat(frames, ignore_index=True))
        features = {label: {seed: self.features(label, seed) for seed in seeds} for label, seeds in order.items()}
        write_features(self.folder, self.array(REFERENCE), features)

    def discard(self) -> None:
        """Remove the parts, and what a killed writer left half-written."""
        for name in ("samples", "features"):
            if (self.folder / name).is_dir():
                shutil.rmtree(self.folder / name)
        for leftover in self.folder.glob(".*.*.*.*"):  # the names `atomic_path` writes under
            leftover.unlink()

    def restart(self) -> None:
        """Forget all rows, on disk too."""
        self.discard()
        self.frames, self.tensors, self._parts = {}, {}, 0
        self._fresh, self._waiting = ([], {}), 0


def new_state(decoders: Mapping[str, Decoder]) -> dict[str, Any]:
    """What a journal's state is before the first image."""
    seen = {"noisy": False, "alone": False, "values": 0, "clamped": 0, "low": math.inf, "high": -math.inf}
    probe = {"batch_dependence": None, "depends": False}
    decoded = {
        label: {
            "spec": plain(asdict(decoder.spec)),
            "file": getattr(eager_of(decoder), "source_sha256", None),
            "code": new_count(),
            **seen,
            **probe,
        }
        for label, decoder in decoders.items()
    }
    return {"decoders": decoded, "excluded": [], "shown": [], "darkest": 255}


def seen_notes(state: Mapping[str, Any], label: str) -> list[str]:
    """What a decoder's values and its code show that a reader must know, a few words each."""
    seen, found = state["decoders"][label], list[str]()
    if seen["values"] and (range_ := another_range(seen["low"], seen["high"], state["darkest"])):
        remedy = (
            "a model of a file or object says so by @range=01" if range_ == "[0, 1]" else "let it return output / 127.5 - 1"
        )
        ends = f"({seen['low']:.3g} to {seen['high']:.3g})"
        found.append(f"output looks like {range_} instead of [-1, 1] {ends}: {remedy}")
    if over := seen["code"].get("over"):
        found.append(f"budget not reached: {over:,} of {seen['code']['images']:,} images take more bits than it was given")
    return found


def seen_warnings(state: Mapping[str, Any]) -> list[str]:
    """What a reader must know of decoders that do not what the contract says, one line each."""
    found = []
    for label, seen in state["decoders"].items():
        found += [f"decoder {label}: {note}" for note in seen_notes(state, label)]
        found += [f"decoder {label}: {count:,} images {note}" for note, count in seen.get("notes", {}).items() if count]
        if seen["alone"]:
            found.append(f"decoder {label}: draws from a global random generator; it ran image by image, seeded by key")
        if seen["depends"]:
            found.append(
                f"decoder {label}: an image depends on its batch (by up to {seen['batch_dependence']} of 255 levels); "
                "its figures hold for this batch size alone"
            )
    if excluded := state["excluded"]:
        found.append(f"{len(excluded)} images left out of every decoder's figures, first: {excluded[0]['reason']}")
    return found
