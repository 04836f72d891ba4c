"""A dataset: a fixed list of entries, read, decoded and cropped on demand by a few threads, in a fixed order."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from harness.data.images import ImageError, center_crop, decode, native_crop
from harness.data.subset import stratified_subset
from harness.data.types import DatasetInfo, Entry, Example, Request, Skipped, Source
from harness.errors import MsbenchError

_WORKERS = 2
_AHEAD = 8  # images decoded before they are asked for


class Dataset:
    """Examples in the order of their keys.

    Files that cannot be used are left out and named in `skipped`; nothing is padded or repeated in their place.

    Args:
        info: what the record says.
        entries: the selected entries; their keys must be unique.
        source: where bytes come from.
        allow_upsampling: enlarge images that are too small instead of skipping them.
        excluded: files that a rule of the dataset keeps out, known before anything is read.
    """

    def __init__(
        self,
        info: DatasetInfo,
        entries: Sequence[Entry],
        source: Source,
        allow_upsampling: bool,
        excluded: Sequence[Skipped] = (),
    ) -> None:
        self.info = info
        self.entries: tuple[Entry, ...] = tuple(sorted(entries, key=lambda entry: entry.key))
        self.excluded: tuple[Skipped, ...] = tuple(excluded)
        self._source = source
        self._allow_upsampling = allow_upsampling
        self._failures: dict[int, Skipped] = {}
        if len({entry.key for entry in self.entries}) != len(self.entries):
            raise ValueError(f"{info.name}: keys are not unique")

    def __len__(self) -> int:
        """Number of selected entries, unreadable ones included."""
        return len(self.entries)

    @property
    def skipped(self) -> list[Skipped]:
        """Selected files that turned out unusable so far, in the order of their keys; each once, however often it was read."""
        return [self._failures[index] for index in sorted(self._failures)]

    def load(self, index: int) -> Example | None:
        """Entry number `index` (0-based); None where the file is unusable, which `skipped` then names. Thread-safe."""
        entry = self.entries[index]
        try:
            return self._read(entry)
        except ImageError as error:
            self._failures[index] = Skipped(entry.name, str(error))
        except OSError as error:
            self._failures[index] = Skipped(entry.name, f"cannot be read: {error.strerror or error}")
        return None

    def __iter__(self) -> Iterator[Example]:
        return self.stream(range(len(self)))

    def stream(self, indices: Iterable[int]) -> Iterator[Example]:
        """Usable examples among `indices`, in that order, decoded a few ahead by worker threads (for shards and resuming)."""
        pending: deque[Future[Example | None]] = deque()
        pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="msbench-data")
        try:
            for index in indices:
                pending.append(pool.submit(self.load, index))
                if len(pending) > _AHEAD and (example := pending.popleft().result()) is not None:
                    yield example
            while pending:
                if (example := pending.popleft().result()) is not None:
                    yield example
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, entry: Entry) -> Example:
        data = self._source.read(entry.name)
        picture = decode(data)
        if entry.corner is None:
            image = center_crop(picture, self.info.resolution, self._allow_upsampling)
        else:
            image = native_crop(picture, *entry.corner, self.info.resolution)
        return Example(entry.key, image, entry.label, entry.source_photo, hashlib.sha256(data).hexdigest())


def build_dataset(
    request: Request,
    entries: Sequence[Entry],
    source: Source,
    *,
    resolution: int,
    preprocessing: str,
    note: str,
    allow_upsampling: bool,
    split: str | None = None,
    demo: bool = False,
    excluded: Sequence[Skipped] = (),
    stratum: Callable[[Entry], str] = lambda entry: entry.label or "",
) -> Dataset:
    """Draw the subset that `request` asks for and describe it.

    Raises:
        MsbenchError: there is not one entry.
    """
    if not entries:
        raise MsbenchError(f"{request.name}: no image found")
    chosen = list(entries)
    if request.max_samples is not None:
        strata = [stratum(entry) for entry in entries]
        picks = stratified_subset([entry.key for entry in entries], strata, request.max_samples, request.seed)
        chosen = [entries[index] for index in picks]
    info = DatasetInfo(
        name=request.name,
        split=split,
        resolution=resolution,
        n_available=len(entries),
        n_selected=len(chosen),
        classes=len({entry.label for entry in entries if entry.label is not None}),
        demo=demo,
        note=note,
        preprocessing=preprocessing,
    )
    return Dataset(info, chosen, source, allow_upsampling, excluded)
