"""What a run has measured so far: written in parts as it goes, by one process or several, and read back as a whole."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.cost.modes import eager_of
from harness.decoder import Decoder
from harness.environment import source_sha256
from harness.errors import MsbenchError
from harness.files import atomic_path
from harness.record.record import RECORD, SAMPLES, plain, read_record
from harness.record.run import FEATURES, REFERENCE, feature_key, write_features, write_samples
from harness.request.requests import DecoderRequest
from harness.run.rate import merge_counts, new_count
from harness.run.reconstruct import another_range, concatenate

if TYPE_CHECKING:
    import pandas as pd

PART_IMAGES, PART_SECONDS = 256, 30.0
"""a part is written after so many images, or so much time"""
PLACE, PIXELS = "place", "pixels"
"""tensors of the place of each image in the dataset and of the hash of its pixels"""
STOP = ".stop"
"""file in a run's folder that tells all processes to end after their batch"""
_FOLDERS = ("samples", "features")
_WRITTEN = (*_FOLDERS, SAMPLES, FEATURES, "sheet.png", STOP)
_SEEN: dict[str, Any] = {**dict.fromkeys(("name", "asked", "spec", "file", "code")), "noisy": False, "alone": False}
_SEEN |= {"values": 0, "clamped": 0, "low": math.inf, "high": -math.inf, "batch_dependence": None, "depends": False}


class Writer:
    """Writes what one process measures, in parts as it goes.

    A part is `samples/part-WRITER-NUMBER.parquet` and, written after it, `features/part-WRITER-NUMBER.safetensors`, with the
    writer's state so far. Tensors by name: "place" of each image in the dataset, int64 [n]; "pixels", hashes of their pixels,
    uint8 [n, 32]; "reference" and "LABEL/SEED" features; "shown:…" images of the sheet, uint8 [k, H, W, 3]; "latents:LABEL".

    Args:
        folder: the run's folder.
        number: no other writer of this folder has it.
        state: what `new_state` gives, or that of writers before.
        begun: images were measured before.
    """

    def __init__(self, folder: Path, number: int, state: dict[str, Any], begun: bool) -> None:
        self.state, self.begun, self.parts = state, begun, list[str]()
        self.kept: dict[str, int] = {}
        """name of a tensor -> its rows so far"""
        self._folder, self._number = folder, number
        self._restart()

    def _restart(self) -> None:
        self._frames: list[pd.DataFrame] = []
        self._tensors: dict[str, list[Tensor]] = {}
        self._written = time.monotonic()

    def add(self, frames: Iterable[pd.DataFrame], tensors: Mapping[str, Tensor]) -> None:
        """Take a batch; writes a part where enough has come together."""
        self.begun = True
        self._frames += frames
        for name, tensor in tensors.items():
            self._tensors.setdefault(name, []).append(tensor.cpu())
            self.kept[name] = self.kept.get(name, 0) + len(tensor)
        waiting = sum(map(len, self._tensors[PLACE]))
        if waiting >= PART_IMAGES or time.monotonic() - self._written >= PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what came since the last part, and the state."""
        import pandas as pd
        from safetensors.torch import save_file

        name = f"part-{self._number:05d}-{len(self.parts):05d}"
        if self._frames:
            with atomic_path(self._folder / "samples" / f"{name}.parquet") as path:
                pd.concat(self._frames, ignore_index=True).to_parquet(path, index=False)
        with atomic_path(self._folder / "features" / f"{name}.safetensors") as path:
            joined = {key: concatenate(parts).contiguous() for key, parts in self._tensors.items()}
            save_file(joined, path, {"state": json.dumps(self.state)})
        self.parts.append(name)
        self._restart()


@dataclass(frozen=True, slots=True)
class Journal:
    """All that was measured of one plan, by any number of writers in any number of folders, in the order of the dataset."""

    state: dict[str, Any]
    """decoder -> what was seen of it, and the images left out"""
    frames: dict[tuple[str, int], list[pd.DataFrame]]
    """(decoder, noise seed) -> samples, in any number of frames"""
    tensors: dict[str, list[Tensor]]
    """name -> one tensor a part; as in `Writer`"""
    parts: tuple[str, ...]
    """names of the parts"""
    writers: int
    """the number of the next writer"""
    order: NDArray[np.intp]
    """places of the rows as they were written, in the order of the dataset"""

    @classmethod
    def read(cls, folders: Sequence[Path], state: Mapping[str, Any] | None = None) -> Journal:
        """The whole parts that lie in folders; their states are held against one another, and against `state` if given.

        Raises:
            MsbenchError: a part is damaged, an image was measured twice, or a decoder was another one.
        """
        import pandas as pd
        from safetensors import safe_open

        states: dict[tuple[Path, str], dict[str, Any]] = {}
        frames: dict[tuple[str, int], list[pd.DataFrame]] = {}
        tensors: dict[str, list[Tensor]] = {}
        paths = [path for folder in folders for path in sorted((folder / "features").glob("part-?????-?????.safetensors"))]
        for path in paths:
            try:
                with safe_open(path, framework="pt") as file:
                    found = states[path.parent, path.stem.rpartition("-")[0]] = json.loads(file.metadata()["state"])
                    for wanted, given in ((new_state((), {}), found), *((_SEEN, seen) for seen in found["decoders"].values())):
                        if lacks := {*wanted} - {*given}:
                            raise ValueError(f"its state lacks {min(lacks)}")
                    for name in file.keys():  # noqa: SIM118 - no mapping
                        tensors.setdefault(name, []).append(file.get_tensor(name))
                    rows = path.parents[1] / "samples" / f"{path.stem}.parquet"
                    groups: Any = pd.read_parquet(rows).groupby(["decoder", "noise_seed"], sort=False) if file.keys() else ()
                for row, frame in groups:
                    frames.setdefault(row, []).append(frame)
            except Exception as error:
                raise MsbenchError(f"{path} or its samples cannot be read ({error}): measure again elsewhere") from error
        places = torch.cat(tensors.get(PLACE, [torch.zeros(0, dtype=torch.int64)])).numpy()
        joined = merge_states([*([state] if state else []), *states.values()])
        numbers = [int(writer.rpartition("-")[2]) for _, writer in states]
        parts = tuple(path.stem for path in paths)
        journal = cls(joined, frames, tensors, parts, max(numbers, default=-1) + 1, np.argsort(places, kind="stable"))
        keys = journal.keys()
        if twice := [key for key, other in pairwise(keys) if key == other]:
            raise MsbenchError(f"{', '.join(map(str, folders))}: {twice[0]} was measured twice")
        return journal

    def keys(self) -> list[str]:
        """Of every image measured, in order."""
        return list(self.images()["key"]) if self.frames else []

    @property
    def uneven(self) -> list[str]:
        """Decoders that lack values under a noise seed for some images: they drew for others alone."""
        n = len(self.order)
        return sorted({label for (label, _), frames in self.frames.items() if sum(map(len, frames)) != n})

    def images(self) -> pd.DataFrame:
        """key, label, source_photo and source_sha256 of every image measured, in order."""
        return self.rows(*next(iter(self.frames)))[["key", "label", "source_photo", "source_sha256"]]

    def rows(self, label: str, seed: int) -> pd.DataFrame:
        """The samples of one decoder under one noise seed."""
        import pandas as pd

        frames = self.frames[label, seed]
        if len(frames) > 1:
            frames[:] = [pd.concat(frames, ignore_index=True)]
        return frames[0].iloc[self.order].reset_index(drop=True)

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
        """A tensor with one row an image as an array."""
        joined: NDArray[Any] = torch.cat(self.tensors[name]).numpy()[self.order]
        return joined

    def left_out(self, why: str) -> list[dict[str, str]]:
        """Images that were "excluded" or "skipped", in the order of the dataset, each with its name and the reason."""
        measured = set(self.keys())
        found = {one["key"]: one for one in self.state[why] if one["key"] not in measured}
        return [{name: found[key][name] for name in ("name", "reason")} for key in sorted(found)]

    def pictures(self, name: str) -> list[NDArray[np.uint8]]:
        """The images of a tensor for the sheet, uint8 [H, W, 3] each, of any sizes, in the order of their keys."""
        found, sizes = [image for part in self.tensors[name] for image in part.numpy()], self.state["shown"]
        cut = [image[:height, :width] for image, (_, height, width) in zip(found, sizes, strict=True)]
        return [cut[place] for place in np.argsort([key for key, *_ in sizes])]

    def finish(self, folder: Path) -> None:
        """Write samples.parquet and features.safetensors, decoders in the order of the state."""
        import pandas as pd

        order = {label: self.seeds(label) for label in self.state["decoders"]}
        frames = [self.rows(label, seed) for label, seeds in order.items() for seed in seeds]
        write_samples(folder, pd.concat(frames, ignore_index=True))
        features = {label: {seed: self.features(label, seed) for seed in seeds} for label, seeds in order.items()}
        write_features(folder, self.array(REFERENCE), features)


def check_output(folder: Path, resume: bool = False) -> None:
    """Check that a run may write to a folder and later remove its parts.

    Raises:
        MsbenchError: it holds a run already (with `resume`: none), something else under a name that a run writes, or links to
            folders of parts.
    """
    if resume:
        read_record(folder)
    elif (folder / RECORD).exists():
        raise MsbenchError(f"{folder} already holds a run; give another --output-dir, or --resume where it ended early")
    for path in (folder / name for name in (_FOLDERS if resume else _WRITTEN)):
        if path.is_symlink() or (not resume and path.exists()):
            raise MsbenchError(f"{path} is no run's, and a run would write there: give another --output-dir, or move it away")


def discard(folder: Path) -> None:
    """Remove the parts of a run, half-written ones too; what else lies beside them stays."""
    for place in (folder / name for name in _FOLDERS if (folder / name).is_dir()):
        for path in [path for path in place.iterdir() if re.match(r"\.?part-\d{5}-\d{5}\.", path.name)]:
            path.unlink()
        if not any(place.iterdir()):
            place.rmdir()


def new_state(rows: Iterable[DecoderRequest], decoders: Mapping[str, Decoder]) -> dict[str, Any]:
    """What a writer's state is before the first image, in JSON types."""
    decoded = {
        row.label: {
            **_SEEN,
            "name": row.name,
            "asked": plain(row.asked()),
            "spec": plain(asdict(decoders[row.label].spec)),
            "file": getattr(eager := eager_of(decoders[row.label]), "source_sha256", None) or source_sha256(eager),
            "code": new_count(),
        }
        for row in rows
    }
    return {"decoders": decoded, "excluded": [], "skipped": [], "shown": [], "darkest": 255}


def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several writers' states as one; what a decoder's batches were probed for counts from the first who probed it.

    Raises:
        MsbenchError: a decoder was another one for one of them.
    """
    whole: dict[str, Any] = deepcopy(dict(states[0])) if states else {}
    for other in states[1:]:
        for label, seen in other["decoders"].items():
            mine = whole["decoders"].get(label, {})
            if mine.get("file") != seen["file"] or {**mine.get("spec", {}), "name": 0} != {**seen["spec"], "name": 0}:
                raise MsbenchError(f"decoder {label} is another one now (its spec, weights or file): measure again")
            for name in ("noisy", "alone"):
                mine[name] |= seen[name]
            for name in ("values", "clamped"):
                mine[name] += seen[name]
            mine["low"], mine["high"] = min(mine["low"], seen["low"]), max(mine["high"], seen["high"])
            if mine["batch_dependence"] is None:
                mine |= {name: seen[name] for name in ("batch_dependence", "depends")}
            mine["code"] = merge_counts(mine["code"], seen["code"])
            mine["notes"] = dict(Counter(mine.get("notes", {})) + Counter(seen.get("notes", {})))
        for name in ("excluded", "skipped", "shown"):
            whole[name] += other[name]
        whole["darkest"] = min(whole["darkest"], other["darkest"])
    return whole


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
    if excluded := sorted(state["excluded"], key=lambda one: str(one["key"])):
        found.append(f"{len(excluded)} images left out of every decoder's figures, first: {excluded[0]['reason']}")
    return found
