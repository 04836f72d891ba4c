"""The quality pass: every image once, through every decoder and noise seed, into per-image values and features.

The reference is loaded and featured once; every decoder sees the same pixels and every metric the same uint8.
"""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from harness.cost.attempt import is_out_of_memory, one_line
from harness.cost.modes import eager_of
from harness.data.dataset import Dataset, prefetch
from harness.data.types import Example
from harness.decoder import Decoder, Finished, FinishedImage
from harness.distributed import Group
from harness.errors import MsbenchError, plugin_boundary
from harness.files import atomic_path, features_dir, safe_name, writing_to
from harness.interrupt import Terminated, terminable
from harness.metrics.feature_cache import FeatureCache, pixels_sha256
from harness.metrics.metric import Batch
from harness.metrics.suite import MetricSuite
from harness.noise import SampleNoise
from harness.record.run import FILE, REFERENCE, feature_key
from harness.request.requests import DecoderRequest
from harness.run.config import RunConfig, parse_shard
from harness.run.independence import PROBED, callers_generators, largest_difference, seeded
from harness.run.journal import PIXELS, PLACE, STOP, Journal, Writer, discard, new_state
from harness.run.latents import Noisy
from harness.run.rate import count_code
from harness.run.reconstruct import Reconstruction, encoder_of, join, reconstruct
from harness.stopwatch import Progress, Stages

SHEET_SIDE = 1024
"""pixels of an image from its upper left corner that the sheet shows, at most"""
SEEN_SECONDS = 90.0
"""until what one process wrote is seen by another: network file systems remember for a while that a file was not there"""


class _LearntLate(Exception):
    """A decoder showed only now that what was measured of it must be measured otherwise."""


class QualityPass:
    """One pass over the dataset, every batch through every decoder and noise seed; batches are loaded ahead in a thread.

    Several processes go their own ways: each measures its share of what no part in the folder holds and writes parts of its
    own, and rank 0 reads all of them. One that must end tells the others by a file, which they look for after each batch.

    Latents get noise where a standard deviation of each channel, [C, 1, 1], is given. Features of the reference come from the
    cache where it has them, and are kept there, also by a pass that fails later.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        rows: Mapping[str, DecoderRequest],
        decoders: Mapping[str, Decoder],
        suite: MetricSuite,
        group: Group,
        folder: Path,
        stages: Stages,
        deviations: Mapping[str, Tensor],
    ) -> None:
        self._config, self._dataset, self._decoders, self._suite = config, dataset, decoders, suite
        self._group, self._folder, self._stages, self._deviations = group, folder, stages, deviations
        self._device, self._fresh = group.device, new_state(rows.values(), decoders)
        self._finished = {label: one for label, one in decoders.items() if isinstance(one, Finished)}
        self._places = {entry.key: place for place, entry in enumerate(dataset.entries)}
        shown = min(config.sheet_rows, len(dataset))
        self._shown = set(np.linspace(0, len(dataset) - 1, shown).round().astype(int).tolist())
        self._latents = max(config.cost.batch_sizes, default=1) if config.cost else 0
        whole = range(len(dataset))
        self._wanted = cut(whole, *parse_shard(config.shard), config.batch_size) if config.shard else whole

    def run(self, report: Progress) -> Journal | None:
        """Measure what the folder's parts lack, each process a share of it; rank 0 gets all that was measured.

        Raises:
            MsbenchError: not one image was usable, a decoder broke its contract, or a folder is full.
            Terminated, KeyboardInterrupt: SIGTERM or SIGINT came; what was measured lies in the folder.
        """
        group, parts, late = self._group, list[str](), False
        with self._stages.stage("cache"):
            cache = FeatureCache(features_dir(), _cached_set(self._dataset, self._suite))
        with callers_generators(self._device), terminable(finish=True, interrupts=True) as told:
            while True:
                journal, plan = None, None
                with group.together(), self._stages.stage("writing"):
                    if group.writes:
                        journal = self._read(parts, late)
                        plan = None if parts and journal.parts else self._plan(journal)
                plan = group.share(plan)
                if plan is None:
                    break
                rest, known, writers, flags = plan
                self._learnt(flags)
                self._writer = Writer(self._folder, writers + group.rank, deepcopy(self._fresh), known > 0)
                waiting = self._stages.stage("waiting for processes") if group.world > 1 else nullcontext()
                with waiting, group.together(), writing_to(self._folder):
                    late = self._pass(rest, known, cache, report, told)
                found = group.gather(([*told], late, self._writer.parts, _flags(self._writer.state)))
                if came := [number for numbers, *_ in found for number in numbers]:
                    raise KeyboardInterrupt if signal.SIGINT in came else Terminated
                late, parts = any(one[1] for one in found), [name for one in found for name in one[2]]
                for *_, flags in found:
                    self._learnt(flags)
        if journal is not None and group.world > 1:  # the others' features; files written by all would replace one another
            with self._stages.stage("cache"):
                cache.features([*map(bytes, journal.array(PIXELS))], lambda missing: journal.array(REFERENCE)[missing])
                cache.save()
        return journal

    def _read(self, parts: Sequence[str], late: bool) -> Journal:
        """What lies in the folder, `parts` among it; nothing any more where decoders must be measured otherwise."""
        (self._folder / STOP).unlink(missing_ok=True)
        until = time.monotonic() + SEEN_SECONDS
        while absent := {*parts} - {path.stem for path in self._folder.glob("features/part-*.safetensors")}:
            if time.monotonic() > until:
                raise MsbenchError(f"{self._folder} lacks {min(absent)}: it must lie on a file system that all processes share")
            time.sleep(1.0)
        journal = Journal.read([self._folder], self._fresh)
        if journal.frames and not parts and not self._unchanged(journal):
            raise MsbenchError(f"{self._config.dataset}: images changed since the run began: measure again")
        self._learnt(_flags(journal.state))
        if late or journal.uneven:
            discard(self._folder)
            journal = Journal.read([self._folder], self._fresh)
        if parts and journal.parts and not journal.frames and not self._config.shard:
            if lost := journal.left_out("excluded"):
                raise MsbenchError(f"all {len(lost):,} images were left out, the first for this: {lost[0]['reason']}")
            first = [f"{one['name']}: {one['reason']}" for one in journal.left_out("skipped")[:3]]
            raise MsbenchError(f"{self._config.dataset}: no usable image ({'; '.join(first) or 'the set is empty'})")
        return journal

    def _unchanged(self, journal: Journal) -> bool:
        """Whether the files of all images that an earlier call measured are there as they were."""
        entries = {entry.key: entry for entry in self._dataset.entries}
        try:
            return all(
                hashlib.sha256(self._dataset.read(entries[key])).hexdigest() == sha256
                for key, sha256 in journal.images()[["key", "source_sha256"]].itertuples(index=False)
            )
        except (KeyError, OSError):
            return False

    def _plan(self, journal: Journal) -> tuple[Sequence[int], int, int, dict[str, dict[str, bool]]]:
        """Places of images that are not measured, how many are, number of the first writer, and what decoders do."""
        known = {*journal.keys(), *(one["key"] for one in journal.state["excluded"])}
        rest = [place for place in self._wanted if self._dataset.entries[place].key not in known]
        return rest, len(known), journal.writers, _flags(self._fresh)

    def _learnt(self, flags: Mapping[str, Mapping[str, bool]]) -> None:
        """What any process found out about decoders counts for all."""
        for label, seen in flags.items():
            self._fresh["decoders"][label] |= {name: True for name, value in seen.items() if value}

    def _pass(self, rest: Sequence[int], known: int, cache: FeatureCache, report: Progress, told: Sequence[int]) -> bool:
        """Measure this process's share; whether a decoder showed late that it must be measured otherwise."""
        writer, group, done = self._writer, self._group, 0
        mine, stop = cut(rest, group.rank, group.world, self._config.batch_size), self._folder / STOP
        batches = prefetch(_batches(self._dataset.stream(mine), self._config.batch_size, self._finished))
        try:
            while not told and not (group.world > 1 and stop.exists()) and (batch := self._next(batches)):
                report("measuring images", known + done * len(rest) // len(mine), known + len(rest))
                self._measure_in_memory(batch, cache)
                done += len(batch.examples)
        except _LearntLate:
            stop.touch()
            return True
        except BaseException as error:
            stop.touch()
            if isinstance(error, Exception) and writer.kept:
                writer.flush()
            raise
        finally:
            batches.close()
            if group.writes:
                with self._stages.stage("cache"):
                    cache.save()
        if told:
            stop.touch()
        failures, keys = self._dataset.failures, {self._dataset.entries[place].key for place in mine}
        writer.state["skipped"] = [{"key": key, **asdict(one)} for key, one in failures.items() if key in keys]
        with self._stages.stage("writing"):
            writer.flush()
        report("measuring images", known + len(rest), known + len(rest))
        return False

    def _measure_in_memory(self, batch: _Batch, cache: FeatureCache) -> None:
        """As `_measure`; a batch that fails leaves no trace in the state; an `MsbenchError` says with what memory ran out."""
        before = json.dumps(self._writer.state)
        try:
            self._measure(batch, cache)
        except Exception as error:
            if not isinstance(error, _LearntLate):
                self._writer.state = json.loads(before)
            if not is_out_of_memory(error):
                raise
            count, height, width, _ = batch.images.shape
            raise MsbenchError(
                f"out of memory with {count} images of {width}x{height} px, the first {batch.examples[0].key}: take a smaller "
                f"--batch-size or --resolution, or leave such images out (diffusers: decoders can tile); {one_line(error)}"
            ) from error

    def _measure(self, batch: _Batch, cache: FeatureCache) -> None:
        """Decode and measure a batch."""
        keys = [example.key for example in batch.examples]
        pixels = torch.from_numpy(batch.images).permute(0, 3, 1, 2).contiguous().to(self._device)
        found: dict[tuple[str, int], tuple[list[int], Reconstruction]] = {}
        for label in self._decoders:
            if label in batch.finished:
                found[label, self._config.seed] = self._given(label, keys, batch.finished[label], pixels[:0])
                continue
            for index, seed in enumerate(range(self._config.seed, self._config.seed + self._config.noise_seeds)):
                if index == 0 or self._seen(label)["noisy"]:
                    with self._stages.stage("decoding"):
                        found[label, seed] = self._decode(label, pixels, keys, seed)
        good = [place for place in range(len(keys)) if all(place in places for places, _ in found.values())]
        if not good:
            return
        kept = {row: _select(one, [places.index(place) for place in good]) for row, (places, one) in found.items()}
        pixels, images = pixels[good], batch.images[good]
        examples, hashes = [batch.examples[place] for place in good], [batch.pixels_sha256[place] for place in good]
        places, state = [self._places[example.key] for example in examples], self._writer.state
        tensors = {PLACE: torch.tensor(places), PIXELS: torch.tensor([list(one) for one in hashes], dtype=torch.uint8)}
        with self._stages.stage("reference features"):
            tensors |= {REFERENCE: torch.from_numpy(self._suite.reference_features(pixels, cache, hashes))}
        prepared = {}
        for name in self._suite.names:
            with self._stages.stage(name):
                prepared[name] = self._suite.prepare(name, pixels)
        state["darkest"] = min(state["darkest"], int(images.min()))
        show = [index for index, place in enumerate(places) if place in self._shown]
        if show:
            tensors["shown:"] = torch.from_numpy(images[show][:, :SHEET_SIDE, :SHEET_SIDE])
            state["shown"] += [(examples[index].key, *tensors["shown:"].shape[1:3]) for index in show]
        self._save(REFERENCE, examples, images)
        frames = {}
        for (label, seed), one in kept.items():
            frames[label, seed] = self._columns(label, seed, one, pixels, examples, prepared)
            if label in batch.finished:
                files = [batch.finished[label][place] for place in good]
                frames[label, seed][FILE] = [one.sha256 for one in files if isinstance(one, FinishedImage)]
            with self._stages.stage("inception"):
                tensors[feature_key(label, seed)] = torch.from_numpy(self._suite.inception_features(one.pixels))
            wanted = one.pixels if self._config.save_images is not None or show else one.pixels[:0]
            decoded = wanted.permute(0, 2, 3, 1).contiguous().cpu()
            if seed == self._config.seed:
                size = pixels.shape[-2], pixels.shape[-1]
                count_code(self._seen(label)["code"], self._decoders[label], one.latents, size)
                if show:
                    tensors[f"shown:{label}"] = decoded[show][:, :SHEET_SIDE, :SHEET_SIDE]
                latents = 0 if label in batch.finished else self._latents
                if self._writer.kept.get(f"latents:{label}", 0) < latents:
                    tensors[f"latents:{label}"] = one.latents
            place = safe_name(label)
            self._save(place if seed == self._config.seed else f"{place}/noise-seed-{seed}", examples, decoded.numpy())
        with self._stages.stage("writing"):
            self._writer.add(frames.values(), tensors)

    def _decode(self, label: str, pixels: Tensor, keys: list[str], seed: int) -> tuple[list[int], Reconstruction]:
        """Places of the images that a decoder could decode, and what it gave for them."""
        seen, decoder = self._seen(label), self._decoders[label]
        places = list(range(len(keys)))
        try:
            if not seen["alone"]:
                found, drew = self._call(label, decoder, pixels, keys, seed)
                if not drew:
                    if seed == self._config.seed:
                        self._probe(label, pixels, keys, seed, found)
                    return places, self._noted(label, found)
                self._learn(label, alone=True, noisy=True)
            parts = [self._call(label, decoder, pixels[i : i + 1], keys[i : i + 1], seed)[0] for i in places]
        except MsbenchError as error:
            if not self._config.keep_going:
                hint = f" (batch of {len(keys)} images: --batch-size 1 tries one a call, --keep-going leaves out what fails)"
                raise MsbenchError(f"{error}{hint * bool(error.__cause__)}") from error
            parts, places = self._what_works(label, pixels, keys, seed, error)
        return places, self._noted(label, join(parts)) if parts else Reconstruction(pixels[:0], pixels[:0], 0, 0.0, 0.0)

    def _given(
        self, label: str, keys: Sequence[str], images: Sequence[FinishedImage | str], none: Tensor
    ) -> tuple[list[int], Reconstruction]:
        """Places of the images that have a finished one, and those; the others are excluded. `none` is uint8 [0, 3, H, W]."""
        places, parts, notes = [], [none], self._seen(label).setdefault("notes", {})
        for place, one in enumerate(images):
            if isinstance(one, str):
                self._exclude(keys[place], one)
                continue
            places.append(place)
            parts.append(torch.from_numpy(one.pixels).permute(2, 0, 1)[None].to(self._device))
            notes[one.note] = notes.get(one.note, 0) + bool(one.note)
        return places, Reconstruction.of(torch.cat(parts).contiguous())

    def _exclude(self, key: str, reason: str) -> None:
        """Leave an image out of every decoder's figures; the first reason stays."""
        excluded = self._writer.state["excluded"]
        if key not in (one["key"] for one in excluded):
            excluded.append({"key": key, "name": key, "reason": " ".join(reason.partition("; --keep-going")[0].split())})

    def _call(
        self, label: str, decoder: Decoder, pixels: Tensor, keys: Sequence[str], seed: int
    ) -> tuple[Reconstruction, bool]:
        """One call, and whether it drew from a global generator."""
        noise = SampleNoise.for_samples(seed, keys, self._device)
        if label in self._deviations:
            decoder = Noisy(decoder, self._deviations[label], seed, keys)
        with seeded(seed, keys, self._device) as drawn:
            found = reconstruct(decoder, pixels, noise, keys)
            drew = drawn()
        if noise.used or label in self._deviations:
            self._learn(label, noisy=True)
        return found, drew

    def _what_works(
        self, label: str, pixels: Tensor, keys: list[str], seed: int, error: MsbenchError
    ) -> tuple[list[Reconstruction], list[int]]:
        """Image by image after a batch failed; those that fail alone are excluded."""
        parts, places = [], []
        for place, key in enumerate(keys):
            try:
                parts.append(self._call(label, self._decoders[label], pixels[place : place + 1], [key], seed)[0])
                places.append(place)
            except MsbenchError as reason:
                self._exclude(key, str(reason))
        if len(places) == len(keys):
            raise error  # none fails alone: it is the batch that the decoder cannot do
        return parts, places

    def _probe(self, label: str, pixels: Tensor, keys: list[str], seed: int, found: Reconstruction) -> None:
        """Once a decoder: the first images again in batches of other sizes."""
        seen, eager = self._seen(label), eager_of(self._decoders[label])
        if seen["batch_dependence"] is not None or len(keys) < 2:
            return
        whole = found if eager is self._decoders[label] else self._call(label, eager, pixels, keys, seed)[0]
        again = [self._call(label, eager, pixels[part], keys[part], seed)[0] for part in (slice(1), slice(1, PROBED))]
        seen["batch_dependence"], seen["depends"] = largest_difference(
            whole.pixels[:PROBED], torch.cat([part.pixels for part in again])
        )

    def _columns(
        self,
        label: str,
        seed: int,
        one: Reconstruction,
        pixels: Tensor,
        examples: Sequence[Example],
        prepared: Mapping[str, Any],
    ) -> Any:
        """The samples of one batch."""
        import pandas as pd

        keys, encode = tuple(example.key for example in examples), encoder_of(self._decoders[label])
        if encode is not None and self._seen(label)["alone"]:
            encode = self._keyed(encode, keys, seed)
        labels, texts = (tuple(getattr(example, name) for example in examples) for name in ("label", "text"))
        pairs = Batch(one.pixels, pixels, keys, labels, one.latents, encode, texts)
        columns: dict[str, Any] = {}
        for name in self._suite.names:
            with self._stages.stage(name):
                columns |= self._suite.measure(name, pairs, prepared[name])
        told = ("key", "label", "source_photo", "source_sha256")
        who = {name: [getattr(example, name) for example in examples] for name in told}
        return pd.DataFrame({"decoder": label, "noise_seed": seed, **who, **columns})

    def _keyed(self, encode: Callable[[Tensor], Tensor], keys: Sequence[str], seed: int) -> Callable[[Tensor], Tensor]:
        """The encoder with its global draws keyed by the images."""

        def one_by_one(images: Tensor) -> Tensor:
            parts = []
            for place in range(len(images)):
                with seeded(seed, keys[place : place + 1], self._device):
                    parts.append(encode(images[place : place + 1]))
            return torch.cat(parts)

        return one_by_one

    def _noted(self, label: str, one: Reconstruction) -> Reconstruction:
        seen = self._seen(label)
        seen["values"] += one.pixels.numel()
        seen["clamped"] += one.clamped
        seen["low"], seen["high"] = min(seen["low"], one.low), max(seen["high"], one.high)
        return one

    def _learn(self, label: str, **facts: bool) -> None:
        """Note what a decoder does. Raises `_LearntLate` where images have been measured as if it did not."""
        seen = self._seen(label)
        new = {name for name in facts if not seen[name]}
        seen |= facts
        if self._writer.begun and ("alone" in new or (new and self._config.noise_seeds > 1)):
            raise _LearntLate

    def _seen(self, label: str) -> dict[str, Any]:
        seen: dict[str, Any] = self._writer.state["decoders"][label]
        return seen

    def _save(self, group: str, examples: Sequence[Example], images: NDArray[np.uint8]) -> None:
        """Write uint8 [B, H, W, 3] losslessly as group/KEY.png below the folder for images, if one was asked for."""
        if self._config.save_images is None:
            return
        with self._stages.stage("saving images"), writing_to(self._config.save_images):
            for example, image in zip(examples, images, strict=True):
                with atomic_path(Path(self._config.save_images) / group / f"{example.key}.png") as temporary:
                    Image.fromarray(image).save(temporary, format="PNG")

    def _next(self, batches: Iterator[_Batch]) -> _Batch | None:
        with self._stages.stage("waiting for images"):
            return next(batches, None)


def cut(places: Sequence[int], part: int, parts: int, batch: int) -> Sequence[int]:
    """Part number `part` of `parts` that follow on one another: whole batches, smaller ones where there are too few."""
    size = max(1, min(batch, -(-len(places) // parts)))
    batches = -(-len(places) // size)
    return places[batches * part // parts * size : batches * (part + 1) // parts * size]


def _flags(state: Mapping[str, Any]) -> dict[str, dict[str, bool]]:
    """What decides how each decoder is measured."""
    return {label: {name: seen[name] for name in ("noisy", "alone")} for label, seen in state["decoders"].items()}


def _select(one: Reconstruction, rows: list[int]) -> Reconstruction:
    return Reconstruction(one.latents[rows], one.pixels[rows], one.clamped, one.low, one.high)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Some images in their order, made by the loading thread."""

    examples: list[Example]
    """B of them"""
    images: NDArray[np.uint8]
    """their pixels, [B, H, W, 3]"""
    pixels_sha256: list[bytes]
    """hash of each one's pixels"""
    finished: dict[str, list[FinishedImage | str]]
    """decoders that have finished images -> each image's, or why there is none"""


def _batches(examples: Iterable[Example], size: int, finished: Mapping[str, Finished]) -> Iterator[_Batch]:
    """Images of one size each, in their order."""
    for _, alike in groupby(examples, lambda example: example.image.shape):
        while batch := list(islice(alike, size)):
            images = np.stack([example.image for example in batch])
            given = {label: [_finished(label, one, example) for example in batch] for label, one in finished.items()}
            yield _Batch(batch, images, [pixels_sha256(image) for image in images], given)


def _finished(label: str, decoder: Finished, example: Example) -> FinishedImage | str:
    """The finished image of an example, or why there is none.

    Raises:
        MsbenchError: it is of another size.
    """
    try:
        with plugin_boundary(f"decoder {label}", "its image"):
            found = decoder.image(example.key)
    except MsbenchError as error:
        return str(error)
    sides, wanted = (f"{array.shape[1]}x{array.shape[0]}" for array in (found.pixels, example.image))
    if sides != wanted:
        raise MsbenchError(
            f"decoder {label}, image {example.key}: its reconstruction is {sides}, the image {wanted}; sizes must agree "
            "(`msbench score --preprocess --resolution R` crops the images)"
        )
    return found


def _cached_set(dataset: Dataset, suite: MetricSuite) -> dict[str, str | int | None]:
    """What the cache's file of features is named by; rows are found by pixels."""
    info = dataset.info
    facts = {name: getattr(info, name) for name in ("split", "resolution", "preprocessing")}
    return {"dataset": info.name, **facts, "extractor": suite.extractor}
