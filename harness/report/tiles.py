"""The images of a page: which of the runs' it shows, as lossy tiles, and what decoders make on the way to them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor

from harness.decoder import parse_dtype
from harness.errors import MsbenchError
from harness.explain.pairs import psnr
from harness.metrics.registry import METRICS
from harness.noise import SampleNoise
from harness.record.images import image_folder, read_png
from harness.record.rebuilt import other_weights, rebuild
from harness.record.run import REFERENCE, Run
from harness.record.schema import Result
from harness.report.results import metric_title
from harness.report.table import visible
from harness.run.independence import callers_generators, seeded
from harness.run.reconstruct import encoder_of, isolated, to_uint8
from harness.stopwatch import Progress

EACH = 10
"""images of a list: the worst, the best, those drawn"""
TILES, BYTES = 480, 13_000_000
"""images in a page at most, originals among them, and bytes that they take there"""
QUALITY = 85
REDO = "msbench report --redo builds the decoder again and shows them"
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the page whose images were saved; everything is of the first of its noise seeds."""

    label: str
    """what the page calls it"""
    run: Run
    """where it comes from"""
    result: Result
    """its figures"""
    images: Path
    """folder of `run --save-images`"""

    @property
    def seed(self) -> int:
        """Its noise seed."""
        return self.run.seeds(self.result.label)[0]

    def values(self, metric: str, keys: Sequence[str]) -> NDArray[np.float64] | None:
        """A metric of each image, [n]; None where the row has none."""
        column = self.run.columns(self.result.label, self.seed).get(metric)
        if column is None or np.isnan(column).any():
            return None
        found = dict(zip(self.run.keys, column, strict=True))
        return np.array([found[key] for key in keys])

    def picture(self, key: str, group: str = "") -> Pixels:
        """The reconstruction of an image, or what another folder has of it: uint8 [H, W, 3].

        Raises:
            MsbenchError: it is not there, or is no image.
        """
        folder = self.images / group if group else image_folder(self.images, self.run, self.result.label, self.seed)
        if not (path := folder / f"{key}.png").is_file():
            raise MsbenchError(f"no saved image {path}: --images names another run's folder, or run again with --save-images")
        return read_png(path)


def image_document(rows: Sequence[Row], redo: bool, progress: Progress) -> dict[str, Any]:
    """What report.js shows of at least one row's images, in JSON types.

    Args:
        rows: of runs over the same files.
        redo: build the decoders again, for latents and the ends of scales.
        progress: called with (stage, done, total).

    Raises:
        MsbenchError: images that are missing, damaged or not the run's.
    """
    keys = rows[0].run.keys
    values = {
        (name, place): column
        for name, metric in METRICS.items()
        for place, row in enumerate(rows)
        if metric.per_image and (column := row.values(name, keys)) is not None
    }
    orders = {  # the worst first
        (name, place): np.argsort(column if METRICS[name].direction == "higher" else -column, kind="stable")
        for (name, place), column in values.items()
    }
    drawn = np.random.default_rng(0).permutation(len(keys))[:EACH].tolist()
    # The worst and the best of every order, then the second of each, and so on.
    ends = [int(order[at]) for place in range(min(EACH, len(keys))) for order in orders.values() for at in (place, -1 - place)]
    wanted = list(dict.fromkeys([*drawn, *ends]))[: max(1, TILES // (1 + len(rows)))]
    tiles: dict[int, list[str]] = {}
    size = 0
    for done, index in enumerate(wanted):
        progress("images", done, len(wanted))
        known = [values["psnr", place][index] for place in range(len(rows))]
        made = [_uri(picture, "jpeg") for picture in _checked(rows, keys[index], known)]
        size += sum(map(len, made))
        if tiles and size > BYTES:
            break
        tiles[index] = made
    chosen, shown = list(tiles), [keys[index] for index in tiles]

    def figures(name: str, place: int) -> dict[str, Any] | None:
        if (name, place) not in values:
            return None
        found, ranks = values[name, place][chosen], np.argsort(orders[name, place])[chosen] + 1
        return {"texts": [f"{one:.{METRICS[name].digits or 3}f}".replace("inf", "∞") for one in found], "ranks": ranks.tolist()}

    return {
        "n": len(keys),
        "keys": [visible(key) for key in shown],
        "rows": [visible(row.label) for row in rows],
        "drawn": [chosen.index(index) for index in drawn if index in chosen],
        "each": EACH,
        "quality": QUALITY,
        "tiles": list(tiles.values()),
        "metrics": [
            {"title": metric_title(name), "rows": [figures(name, place) for place in range(len(rows))]}
            for name in dict.fromkeys(name for name, _ in values)
        ],
        "redone": [_redone(row, shown) if redo else {"reason": REDO} for row in rows],
    }


def _checked(rows: Sequence[Row], key: str, known: Sequence[float]) -> list[Pixels]:
    """The original and every row's reconstruction of an image; each pair has the PSNR that the run says."""
    found: list[Pixels] = []
    for row, said in zip(rows, known, strict=True):
        original, picture = row.picture(key, REFERENCE), row.picture(key)
        if original.shape != picture.shape or not np.isclose(psnr(original, picture), said, rtol=0.0, atol=1e-6):
            raise MsbenchError(f"{row.images}: {key} of {row.result.label} is not the image of the run {row.run.record.folder}")
        found += [picture] if found else [original, picture]
    return found


def _redone(row: Row, keys: Sequence[str]) -> dict[str, Any]:
    """Latents as pictures and the ends of all scales but the last, or why there are none."""
    data = row.run.record.data
    built = rebuild(row.run, row.result, parse_dtype(str(row.result.options.get("dtype") or data.setting.dtype)))
    if isinstance(built, str):
        return {"reason": built}
    if other_weights(row.run, row.result, built):
        return {"reason": "the weights here are not those of the run"}
    if data.protocol.latent_noise:
        return {"reason": "the run added noise to its latents"}
    encode, scales = encoder_of(built), getattr(built, "decode_scales", None)
    if encode is None or built.spec.codebook_sizes is not None:
        return {"reason": "its code is no grid of numbers"}
    latents: list[Tensor] = []
    strips: list[list[str]] = []
    with callers_generators(torch.device("cpu")), isolated(built, "decode"):
        for key in keys:
            original = row.picture(key, REFERENCE)
            with seeded(row.seed, [key], torch.device("cpu")):
                latents.append(encode(torch.tensor(original).permute(2, 0, 1)[None])[0].float())
                if scales is not None and built.spec.scales > 1:
                    strips.append(_ends(scales, latents[-1][None].clone(), SampleNoise.for_samples(row.seed, [key]), original))
    if any(one.ndim != 3 for one in latents):
        return {"reason": "its latents are no grid"}
    return {"latents": _principal(latents), "scales": strips or None, "reason": ""}


def _ends(decode_scales: Callable[..., Any], latents: Tensor, noise: SampleNoise, original: Pixels) -> list[str]:
    """The ends of all scales but the last, without the padding that the last one has beyond the original."""
    ends: list[Tensor] = []
    decode_scales(latents, noise, lambda _, end: ends.append(to_uint8(end)[0].permute(1, 2, 0)))
    shares = [original.shape[axis] / ends[-1].shape[axis] for axis in (0, 1)]
    cut = [end[: round(end.shape[0] * shares[0]), : round(end.shape[1] * shares[1])] for end in ends[:-1]]
    return [_uri(end.numpy(), "jpeg") for end in cut]


def _principal(latents: Sequence[Tensor]) -> list[str]:
    """Three principal components over all positions of all images as red, green, blue, from the 1st to the 99th percentile."""
    values = torch.cat([one.flatten(1) for one in latents], dim=1).T.numpy()
    parts = PCA(min(3, *values.shape)).fit_transform(values)
    low, high = np.percentile(parts, (1, 99), axis=0)
    colours = (np.clip((parts - low) / np.maximum(high - low, 1e-12), 0.0, 1.0) * 255).round().astype(np.uint8)
    colours = colours[:, [min(place, parts.shape[1] - 1) for place in range(3)]]
    pieces = np.split(colours, np.cumsum([one[0].numel() for one in latents])[:-1])
    return [_uri(one.reshape(*at.shape[1:], 3), "png") for one, at in zip(pieces, latents, strict=True)]


def _uri(picture: Pixels, form: str) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(stream, form, quality=QUALITY, subsampling=0)
    return f"data:image/{form};base64,{base64.b64encode(stream.getvalue()).decode()}"
