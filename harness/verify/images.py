"""Figures from the saved images: per-image metrics, latents, features and rFID, each by its published package."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.decoder import Decoder
from harness.record.run import REFERENCE, feature_key
from harness.verify.built import other_checkpoint
from harness.verify.check import Check, close, unchecked
from harness.verify.opened import Opened
from harness.verify.pixels import ROUTES, Picture, lpips_alex, octaves, psnr, read_png, ssim
from harness.verify.samples import mean_over_images

if TYPE_CHECKING:
    import pandas as pd

FEATURED = 16
"""images whose features and latents are computed again"""
MOST_FOR_TORCH_FIDELITY = 2_000
"""images up to which torch-fidelity computes rFID from the files"""
_LATENT = 1e-3  # relative: float32 encoder, one image at a time, maybe on another device
_FEATURE = 1e-3


def picked(keys: list[str]) -> list[str]:
    """The images, up to `FEATURED`, that networks see again: seeded by their number."""
    rows = np.random.default_rng(len(keys)).choice(len(keys), min(FEATURED, len(keys)), replace=False)
    return [keys[row] for row in sorted(rows.tolist())]


def pixel_checks(opened: Opened, report: Callable[[str], None]) -> list[Check]:
    """psnr, ssim, lpips and the spectral error of every saved image, and their means; `report` is told whose."""
    checks: list[Check] = []
    lpips = lpips_alex() if opened.images else None
    means: dict[tuple[str, str], list[float]] = {}
    for decoder, seed, folder in opened.image_groups():
        keys = opened.keys(decoder)
        missing = _missing(opened, folder, keys)
        if missing or lpips is None:
            checks.append(unchecked(decoder, f"images.{seed}", None, missing))
            continue
        report(f"reading images of {decoder}")
        found = _measure(opened, folder, keys, lpips)
        for column in found:
            if column not in opened.samples:
                continue
            route = ROUTES.get(str(column), ROUTES["spectral"])
            checks.append(_worst(opened, decoder, seed, str(column), found[column], route))
            if column in opened.rows[decoder]:
                means.setdefault((decoder, str(column)), []).append(mean_over_images(found[column], str(column)))
    for (decoder, metric), values in means.items():
        if len(values) == len(opened.seeds(decoder)):
            how, absolute, reason = ROUTES[metric]
            held = opened.rows[decoder][metric]
            checks.append(
                close(decoder, metric, held, sum(values) / len(values), f"{how}, mean", absolute=absolute, reason=reason)
            )
    return checks


def _measure(opened: Opened, folder: Path, keys: list[str], lpips: Callable[[Picture, Picture], float]) -> pd.DataFrame:
    """Every metric of every image; NaN where the two images differ in size."""
    import pandas as pd

    rows: list[dict[str, float]] = []
    for key in keys:
        reference, decoded = _pair(opened, folder, key)
        if reference.shape != decoded.shape:
            rows.append({})
            continue
        rings = octaves(reference, decoded)
        row = {"psnr": psnr(reference, decoded), "ssim": ssim(reference, decoded), "lpips": lpips(reference, decoded)}
        row["spectral"] = float(np.nanmean(np.abs(rings)))
        rows.append(row | {f"octave_{index}_db": float(value) for index, value in enumerate(rings)})
    return pd.DataFrame(rows, index=pd.Index(keys, name="key"))


def _worst(
    opened: Opened, decoder: str, seed: int, metric: str, again: pd.Series[float], route: tuple[str, float, str]
) -> Check:
    """The image whose value differs most from the samples'."""
    how, absolute, reason = route
    kept = opened.values(decoder, metric)[seed].reindex(again.index)
    first, second = kept.to_numpy(np.float64), again.to_numpy(np.float64)
    equal = (first == second) | (np.isnan(first) & np.isnan(second))
    differences = np.where(equal, 0.0, np.abs(np.where(equal, 0.0, first - np.where(equal, 0.0, second))))
    place = int(np.argmax(np.nan_to_num(differences, nan=np.inf)))
    number = f"samples.{metric}.{seed}"
    how = f"{how}, worst of {len(again)}: {again.index[place]}"
    if differences[place] == 0.0:
        return Check(decoder, number, float(first[place]), float(second[place]), how, absolute, reason, True)
    return close(decoder, number, float(first[place]), float(second[place]), how, absolute=absolute, reason=reason)


def latent_checks(opened: Opened, decoder: str, built: Decoder | str) -> list[Check]:
    """Latent faithfulness of some images: both PNGs through the encoder built again."""
    import torch
    import torch.nn.functional as F

    if "latent_error" not in opened.metrics(decoder) or isinstance(built, str) or built.spec.latent_channels is None:
        return []
    if other_checkpoint(opened, decoder, built):
        return []

    def encode(picture: Picture) -> NDArray[np.float64]:
        image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 127.5 - 1.0
        bottom, right = (-side % built.spec.down_factor for side in picture.shape[:2])
        with torch.inference_mode():
            latents = built.encode(F.pad(image, (0, right, 0, bottom), mode="replicate"))
        return np.asarray(latents.double().numpy(), dtype=np.float64)

    checks = []
    for name, seed, folder in opened.image_groups():
        keys = picked(opened.keys(decoder))
        if name != decoder or _missing(opened, folder, keys):
            continue
        kept = {str(image): float(held) for image, held in opened.values(decoder, "latent_error")[seed].items()}
        results: list[tuple[float, str, float]] = []
        for key in keys:
            wanted, again = (encode(picture) for picture in _pair(opened, folder, key))
            value = float(np.linalg.norm(again - wanted)) / max(float(np.linalg.norm(wanted)), 1e-12)
            results.append((abs(value - kept[key]) / max(value, 1e-12), key, value))
        _, key, value = max(results)
        number = f"samples.latent_error.{seed}"
        how = f"encoder built again on PNGs, worst of {len(keys)}: {key}"
        reason = "float32 encoder, one image at a time"
        checks.append(close(decoder, number, kept[key], value, how, relative=_LATENT, absolute=1e-6, reason=reason))
    return checks


def feature_image_checks(opened: Opened) -> list[Check]:
    """Inception features of some saved images against those the run kept."""
    if opened.images is None or opened.features is None:
        return []
    import torch

    from harness.metrics.inception import InceptionFeatures

    network = InceptionFeatures.load()
    first = next(iter(opened.rows))
    groups = [("", REFERENCE, opened.images / "reference", opened.keys(first))]
    groups += [(name, feature_key(name, seed), folder, opened.keys(name)) for name, seed, folder in opened.image_groups()]
    checks = []
    for decoder, tensor, folder, keys in groups:
        kept = opened.features.get(tensor)
        chosen = picked(keys)
        if kept is None or len(kept) != len(keys) or _missing(opened, folder, chosen):
            continue
        results = []
        for key in chosen:
            image = torch.from_numpy(read_png(folder / f"{key}.png").copy()).permute(2, 0, 1)[None]
            again = network.features(image)[0].double().numpy()
            held = kept[keys.index(key)].astype(np.float64)
            share = float(np.linalg.norm(again - held) / np.linalg.norm(again))
            results.append((share, key))
        share, key = max(results)
        number = f"features.{tensor}"
        how = f"torch-fidelity's network on PNG, relative distance, worst of {len(chosen)}: {key}"
        reason = "float32 network, one image at a time"
        checks.append(close(decoder, number, 0.0, share, how, absolute=_FEATURE, reason=reason))
    return checks


def torch_fidelity_checks(opened: Opened, report: Callable[[str], None]) -> list[Check]:
    """rFID of the saved files by torch-fidelity alone: its reading, network and statistics."""
    groups = list(opened.image_groups())
    checks = []
    with tempfile.TemporaryDirectory(prefix="msbench-verify-") as scratch:
        weights = Path(scratch) / "inception.pth"
        for decoder, seed, folder in groups:
            keys = opened.keys(decoder)
            number, held = "rfid", opened.rows[decoder].get("rfid")
            if len(opened.seeds(decoder)) > 1:
                number = f"details.noise.per_seed.{seed}.rfid"
                held = ((opened.details(decoder).get("noise") or {}).get("per_seed") or {}).get(str(seed), {}).get("rfid")
            if not 2 <= len(keys) <= MOST_FOR_TORCH_FIDELITY or _missing(opened, folder, keys):
                continue
            report(f"rFID of {decoder} by torch-fidelity")
            value = _torch_fidelity(opened.images or folder, folder, weights, len(keys))
            if value is None:
                why = f"{folder} or reference/ holds other PNGs than the run's {len(keys)}"
                checks.append(unchecked(decoder, f"images.{seed}", held, why))
                continue
            how, reason = "torch-fidelity on PNG", "float32 features and means: 1e-4 of the value + 1e-3"
            checks.append(close(decoder, number, held, value, how, relative=1e-4, absolute=1e-3, reason=reason))
    return checks


def _torch_fidelity(images: Path, folder: Path, weights: Path, n: int) -> float | None:
    """None where the folders hold other files than the run's."""
    import torch
    from torch_fidelity import calculate_metrics

    from harness.metrics.inception import torch_fidelity_state_dict

    if {len(list(place.glob("*.png"))) for place in (images / "reference", folder)} != {n}:
        return None
    if not weights.is_file():
        torch.save(torch_fidelity_state_dict(), weights)
    found = calculate_metrics(
        input1=str(images / "reference"),
        input2=str(folder),
        cuda=False,
        fid=True,
        verbose=False,
        cache=False,
        batch_size=min(16, n),
        save_cpu_ram=True,  # reads in this process instead of several workers
        feature_extractor_weights_path=str(weights),
    )
    return float(found["frechet_inception_distance"])


def _pair(opened: Opened, folder: Path, key: str) -> tuple[Picture, Picture]:
    assert opened.images is not None  # image_groups yields nothing without images
    return read_png(opened.images / "reference" / f"{key}.png"), read_png(folder / f"{key}.png")


def _missing(opened: Opened, folder: Path, keys: list[str]) -> str:
    """What is absent, in words; empty where all images are there."""
    places = [] if opened.images is None else [opened.images / "reference", folder]
    absent = [place / f"{key}.png" for place in places for key in keys if not (place / f"{key}.png").is_file()]
    return f"{len(absent)} images are missing, first {absent[0]}" if absent else ""
