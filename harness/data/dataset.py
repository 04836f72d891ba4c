"""A dataset: a fixed list of entries or a seeded subset of them, in a fixed order, read, decoded and cropped ahead."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

from harness.data.images import ADM_CROP, ADM_CROP_UPSAMPLE, AS_GIVEN, ImageError, as_given, center_crop, decode, native_crop
from harness.data.sources import FolderSource, printable
from harness.data.types import DatasetInfo, Entry, Example, Request, Skipped, Source
from harness.errors import MsbenchError

DEFAULT_RESOLUTION = 256
"""side of images in pixels where neither the request nor the dataset says one"""
_WORKERS = 2
_AHEAD = 8  # images decoded before they are asked for
Item = TypeVar("Item")


class Dataset:
    """Examples in the order of their keys.

    Files that cannot be used are left out and named in `skipped`; nothing is padded or repeated in their place.

    Args:
        info: what the record says.
        entries: the selected entries; their keys must be unique.
        source: where bytes come from.
        allow_upsampling: enlarge images that are too small instead of leaving them out.
    """

    def __init__(self, info: DatasetInfo, entries: Sequence[Entry], source: Source, allow_upsampling: bool) -> None:
        self.info = info
        self.entries: tuple[Entry, ...] = tuple(sorted(entries, key=lambda entry: entry.key))
        self._source = source
        self._allow_upsampling = allow_upsampling
        self._failures: dict[int, Skipped] = {}

    def __len__(self) -> int:
        """Number of selected entries, unreadable ones included."""
        return len(self.entries)

    @property
    def skipped(self) -> list[Skipped]:
        """Selected files that turned out unusable so far, in the order of their keys; each once, however often it was read."""
        return list(self.failures.values())

    @property
    def failures(self) -> dict[str, Skipped]:
        """The same by key."""
        return {self.entries[index].key: one for index, one in sorted(self._failures.items())}

    def holds(self, path: Path) -> bool:
        """Whether `path` lies in the folder the images come from, so that what is written there could be read as data."""
        return isinstance(self._source, FolderSource) and path.resolve().is_relative_to(self._source.root.resolve())

    def load(self, index: int) -> Example | None:
        """Entry number `index` (0-based); None where the file is unusable, which `skipped` then names. Thread-safe."""
        entry = self.entries[index]
        try:
            return self._read(entry)
        except ImageError as error:
            reason = str(error)
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
        self._failures[index] = Skipped(printable(entry.name), printable(reason))
        return None

    def __iter__(self) -> Generator[Example, None, None]:
        return self.stream(range(len(self)))

    def stream(self, indices: Iterable[int]) -> Generator[Example, None, None]:
        """Usable examples among `indices`, in that order, decoded a few ahead by worker threads (for shards and resuming)."""
        loads = (partial(self.load, index) for index in indices)
        with closing(_ahead(loads, _AHEAD, _WORKERS)) as loaded:
            for example in loaded:
                if example is not None:
                    yield example

    def read(self, entry: Entry) -> bytes:
        """The file of an entry as it is; raises OSError."""
        return self._source.read(entry.name)

    def _read(self, entry: Entry) -> Example:
        data = self._source.read(entry.name)
        picture = decode(data)
        if self.info.preprocessing == AS_GIVEN:
            image = as_given(picture)
        elif entry.corner is None:
            image = center_crop(picture, self.info.resolution, self._allow_upsampling)
        else:
            image = native_crop(picture, *entry.corner, self.info.resolution)
        return Example(entry.key, image, entry.label, entry.source_photo, hashlib.sha256(data).hexdigest(), entry.text)


def build_dataset(
    request: Request,
    entries: Sequence[Entry],
    source: Source,
    *,
    notes: Sequence[str],
    resolution: int | None = None,
    preprocessing: str | None = None,
    split: str | None = None,
    demo: bool = False,
    partial: bool = False,
    stratum: Callable[[Entry], str | None] = lambda entry: entry.label,
    strata: str = "class",
    identity: Callable[[Entry], str] = lambda entry: entry.key,
) -> Dataset:
    """Draw the subset that `request` asks for and describe it.

    Args:
        notes: what a reader of the figures should know, joined in `DatasetInfo.note`; empty ones count as none.
        resolution: the dataset's own side, for a request without one; None = `DEFAULT_RESOLUTION`.
        preprocessing: name of the way from file to pixels; None = the centre crop.
        stratum: what a subset is stratified by; None where all entries have none.
        strata: the word for one stratum.
        identity: what the draw knows an entry by; the same however the folders are called.

    Raises:
        MsbenchError: there is not one entry, or one key twice.
    """
    if not entries:
        raise MsbenchError(f"{request.name}: no image found")
    key, uses = Counter(entry.key for entry in entries).most_common(1)[0]
    if uses > 1:
        raise MsbenchError(f"{request.name}: {key} is there more than once; keep one copy of the images in one place")
    chosen, subset = sorted(entries, key=lambda entry: entry.key), ""
    if request.max_samples is not None and request.max_samples < len(entries):
        labels = [stratum(entry) or "" for entry in chosen]
        subset = f"stratified by {strata}" if any(labels) else "unlabelled"
        picks = stratified_subset([identity(entry) for entry in chosen], labels, request.max_samples, request.seed)
        chosen = [chosen[index] for index in picks]
        notes = [*notes, f"subset {subset}" + ("" if any(labels) else ", drawn uniformly")]
    crop = ADM_CROP_UPSAMPLE if request.allow_upsampling else ADM_CROP
    info = DatasetInfo(
        name=printable(request.name),
        split=split,
        resolution=0 if request.as_given else request.resolution or resolution or DEFAULT_RESOLUTION,
        n_available=len(entries),
        n_selected=len(chosen),
        classes=len({entry.label for entry in entries if entry.label is not None}),
        partial=partial,
        subset=subset,
        demo=demo,
        note="; ".join(filter(None, notes)),
        preprocessing=AS_GIVEN if request.as_given else preprocessing or crop,
    )
    return Dataset(info, chosen, source, request.allow_upsampling)


def stratified_subset(names: Sequence[str], strata: Sequence[str], count: int, seed: int) -> list[int]:
    """Positions (ascending) of `count` items, every stratum within one of its proportional share.

    Systematic sampling: strata stand in a seeded order on a line of length N, and every (N / count)-th point from a seeded
    offset takes one item of the stratum it falls in. So a stratum of size m gets the floor or the ceiling of count·m/N, over
    seeds count·m/N on average, also where there are fewer items than strata. Integers throughout: exact on every machine.

    A stratum is known by the smallest name in it, so that the choice depends on which items belong together, and neither on
    their order nor on how the strata are called.

    Args:
        names: names of the items; of equal ones the first counts as smaller.
        strata: stratum of each item, as many as names.
        count: how many to take, at least 1; everything is taken where there are not more.
        seed: any integer.
    """
    total = len(names)
    members: dict[str, list[int]] = {}
    for position, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(position)
    chosen: list[int] = []
    before = _hash(seed, "offset", "") % total
    smallest = {stratum: min(names[position] for position in positions) for stratum, positions in members.items()}
    for stratum in sorted(members, key=lambda stratum: (_hash(seed, "stratum", smallest[stratum]), stratum)):
        positions = members[stratum]
        after = before + count * len(positions)
        take = after // total - before // total
        before = after
        chosen += sorted(positions, key=lambda position: _hash(seed, "item", names[position]))[:take]
    return sorted(chosen)


def _hash(seed: int, role: str, name: str) -> int:
    data = f"{seed}\0{role}\0{name}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def prefetch(items: Iterable[Item], ahead: int = 2) -> Generator[Item, None, None]:
    """The same items in the same order, up to `ahead` of them made by one thread before they are asked for.

    An error of `items` is raised here, in its place. Closing this generator (also by an error of the caller) waits for the item
    in hand and closes `items`; no thread outlives it.
    """
    iterator, end = iter(items), object()
    calls: Iterable[Callable[[], Any]] = repeat(partial(next, iterator, end))
    try:
        with closing(_ahead(calls, ahead, workers=1)) as made:
            for item in made:
                if item is end:
                    break
                yield item
    finally:
        if isinstance(iterator, Generator):
            iterator.close()


def _ahead(calls: Iterable[Callable[[], Item]], ahead: int, workers: int) -> Generator[Item, None, None]:
    """Results of `calls` in their order, made by `workers` threads, up to `ahead` of them before they are asked for."""
    pending: deque[Future[Item]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="msbench-data")
    try:
        for call in calls:
            pending.append(pool.submit(call))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
