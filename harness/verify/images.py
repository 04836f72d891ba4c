"""Figures from the saved images: per-image metrics, latents, features and rFID, each by its published package."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.decoder import Decoder
from harness.metrics.feature_cache import pixels_sha256
from harness.metrics.metric import Picture
from harness.metrics.registry import METRICS
from harness.record.images import absent_images, image_folder, read_png
from harness.record.rebuilt import other_weights
from harness.record.run import PIXELS_VERSION, REFERENCE, Run, feature_key, pixels_id
from harness.record.schema import Result
from harness.run.reconstruct import encoder_of
from harness.verify.check import Check, close, same, unchecked

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

FEATURED = 16
"""images whose features and latents are computed again"""
MOST_FOR_TORCH_FIDELITY = 2_000
"""images up to which torch-fidelity computes rFID from the files"""


@dataclass(frozen=True, slots=True)
class Group:
    """The saved images of one row under one noise seed, none of them missing."""

    result: Result
    """the row"""
    seed: int
    """the noise seed"""
    reference: Path
    """folder of the references, KEY.png"""
    folder: Path
    """folder of the reconstructions, likewise"""
    kept: pd.DataFrame
    """samples of the row and seed, indexed by key, in order"""

    def pair(self, key: str) -> tuple[Picture, Picture]:
        """Reference and reconstruction."""
        return read_png(self.reference / f"{key}.png"), read_png(self.folder / f"{key}.png")

    def picked(self) -> Iterator[tuple[int, str, Tensor, Tensor]]:
        """Place, key, reference and reconstruction (uint8 [1, 3, H, W]) of the images, up to `FEATURED`, that networks
        see again; seeded by their number."""
        import torch

        n = len(self.kept)
        for place in sorted(np.random.default_rng(n).choice(n, min(FEATURED, n), replace=False).tolist()):
            key = str(self.kept.index[place])
            reference, decoded = (torch.from_numpy(one.copy()).permute(2, 0, 1)[None] for one in self.pair(key))
            yield place, key, reference, decoded


def image_checks(run: Run, images: Path, built: Mapping[str, Decoder | str], report: Callable[[str], None]) -> list[Check]:
    """All that saved images allow.

    Args:
        run: the run.
        images: holds reference/KEY.png and LABEL/KEY.png.
        built: label -> the decoder built again, or why it is not there.
        report: told what is at hand.
    """
    groups, checks = [], [reference_check(run, images)]
    for result in run.record.data.results:
        for seed in run.seeds(result.label):
            folder = image_folder(images, run, result.label, seed)
            if absent := [path for where in (images / REFERENCE, folder) for path in absent_images(where, run.keys)]:
                why = f"{len(absent)} images are missing, first {absent[0]}"
                checks.append(unchecked(result.label, f"images.{seed}", None, why))
                continue
            mine = run.of(result.label)
            kept = mine[mine["noise_seed"] == seed].set_index("key")
            groups.append(Group(result, seed, images / REFERENCE, folder, kept))
    for group in groups:
        report(f"reading images of {group.result.label}")
        checks += [*pixel_checks(group), *_latent_checks(run, group, built[group.result.label])]
    if run.has_features and groups:
        report("features of saved images")
        checks += _feature_checks(run, groups)
    with tempfile.TemporaryDirectory(prefix="msbench-verify-") as scratch:
        for group in groups if 2 <= len(run.keys) <= MOST_FOR_TORCH_FIDELITY else []:
            report(f"rFID of {group.result.label} by torch-fidelity")
            checks.append(_torch_fidelity_check(run, group, Path(scratch) / "inception.pth"))
    return checks


def reference_check(run: Run, images: Path) -> Check:
    """Hash over keys and pixels of the saved references."""
    number, recorded = "dataset.reference_sha256", run.record.data.dataset.reference_sha256
    if not recorded.startswith(PIXELS_VERSION):
        return unchecked("", number, recorded, "an older msbench hashed the pixels in another way")
    folder = images / REFERENCE
    if absent := absent_images(folder, run.keys):
        return unchecked("", number, recorded, f"{absent[0]} is missing")
    hashes = [pixels_sha256(read_png(folder / f"{key}.png")) for key in run.keys]
    return same("", number, recorded, pixels_id(run.keys, hashes), "SHA-256 over reference/*.png")


def pixel_checks(group: Group) -> list[Check]:
    """Every metric whose entry states a route on a pair of pictures: the image furthest from the samples, column by column."""
    import pandas as pd

    measured = [METRICS[name] for name, value in group.result.metrics.items() if name in METRICS and value is not None]
    routes = {metric.name: metric.check for metric in measured if metric.check is not None and metric.check.pair is not None}
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in routes}
    for key in group.kept.index:
        reference, decoded = group.pair(key)
        for name, rows in found.items():
            pair = routes[name].pair if reference.shape == decoded.shape else None
            value = pair(reference, decoded) if pair else float("nan")
            rows.append(value if isinstance(value, Mapping) else {name: value})
    checks = []
    for name, rows in found.items():
        again, check = pd.DataFrame(rows, index=group.kept.index), routes[name]
        for column in again.columns.intersection(group.kept.columns):
            first, second = (frame[column].to_numpy(np.float64) for frame in (group.kept, again))
            equal = (first == second) | (np.isnan(first) & np.isnan(second))
            with np.errstate(invalid="ignore"):
                differences = np.where(equal, 0.0, np.nan_to_num(np.abs(first - second), nan=np.inf))
            place = int(np.argmax(differences))
            how = f"{check.how}, worst of {len(again)}: {again.index[place]}"
            agrees = bool(differences[place] <= check.absolute)
            number, values = f"samples.{column}.{group.seed}", (float(first[place]), float(second[place]))
            checks.append(Check(group.result.label, number, *values, how, check.absolute, check.reason, agrees))
    return checks


def _latent_checks(run: Run, group: Group, built: Decoder | str) -> list[Check]:
    """Latent faithfulness of some images: both PNGs through the encoder built again."""
    name = "latent_error"
    encode = None if isinstance(built, str) or other_weights(run, group.result, built) else encoder_of(built)
    if encode is None or group.result.metrics.get(name) is None:
        return []
    found, held = [], group.kept[name].to_numpy(np.float64)
    for place, key, reference, decoded in group.picked():
        wanted, again = encode(reference).double(), encode(decoded).double()
        value = float((again - wanted).norm() / wanted.norm().clamp_min(1e-12))
        found.append((abs(value - held[place]) / max(value, 1e-3), key))
    return [_furthest(group.result.label, f"samples.{name}.{group.seed}", found, "encoder built again on PNGs")]


def _feature_checks(run: Run, groups: list[Group]) -> list[Check]:
    """Inception features of some saved images against those the run kept; the references' with the first group."""
    import torch

    from harness.metrics.inception import FastInception

    network, checks = FastInception(torch.device("cpu"), plain=True), []
    for group in groups:
        label, kept = group.result.label, run.features(group.result.label)
        assert kept is not None  # the run has features
        sides = {feature_key(label, group.seed): (1, kept[1][run.seeds(label).index(group.seed)])}
        sides |= {REFERENCE: (0, kept[0])} if group is groups[0] else {}
        for tensor, (side, features) in sides.items():
            found = []
            for place, key, *images in group.picked():
                again = network.features(images[side])[0].double().numpy()
                found.append((float(np.linalg.norm(again - features[place]) / np.linalg.norm(again)), key))
            checks.append(_furthest(label, f"features.{tensor}", found, "torch-fidelity's network on PNG"))
    return checks


def _furthest(label: str, number: str, found: list[tuple[float, str]], how: str) -> Check:
    """The largest of (relative distance, key)."""
    share, key = max(found)
    how = f"{how}, relative distance, worst of {len(found)}: {key}"
    return close(label, number, 0.0, share, how, absolute=1e-3, reason="float32 network, one image at a time")


def _torch_fidelity_check(run: Run, group: Group, weights: Path) -> Check:
    """rFID of the saved files by torch-fidelity alone: its reading, network and statistics."""
    import torch
    from torch_fidelity import calculate_metrics

    from harness.metrics.inception import torch_fidelity_state_dict

    label, n = group.result.label, len(group.kept)
    number, held = "rfid", group.result.metrics.get("rfid")
    if len(run.seeds(label)) > 1:
        number = f"details.noise.per_seed.{group.seed}.rfid"
        held = run.record.data.decoders[label].noise.per_seed.get(str(group.seed), {}).get("rfid")
    if any(len(list(place.glob("*.png"))) != n for place in (group.reference, group.folder)):
        why = f"{group.folder} or reference/ holds other PNGs than the run's {n}"
        return unchecked(label, f"images.{group.seed}", held, why)
    if not weights.is_file():
        torch.save(torch_fidelity_state_dict(), weights)
    # save_cpu_ram: it reads in this process instead of several workers
    batch = min(16, n) if run.record.data.protocol.resolution else 1  # it stacks images, which may differ in size
    options = {"cuda": False, "fid": True, "verbose": False, "cache": False, "batch_size": batch, "save_cpu_ram": True}
    places = {"input1": str(group.reference), "input2": str(group.folder), "feature_extractor_weights_path": str(weights)}
    found = calculate_metrics(**options, **places)
    value, reason = float(found["frechet_inception_distance"]), "float32 features and means: 1e-4 of the value + 1e-3"
    return close(label, number, held, value, "torch-fidelity on PNG", relative=1e-4, absolute=1e-3, reason=reason)
