"""`wds:PATTERN`: WebDataset tars, read in place: `wds:DIR/val-{000..063}.tar` or `wds:DIR/*.tar`.

The files of a sample share their path up to the first dot of the name, its `__key__`. One of them is the image (where there are
several, `#` names one: `wds:DIR/*.tar#input.jpg`), and `.cls` holds the class; without it the folder in the tar is the class.
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from harness.data.dataset import Dataset, build_dataset
from harness.data.folder import location_of
from harness.data.sources import TarSource, is_image_name, make_keys, open_tar, printable
from harness.data.types import Entry, Request, Source
from harness.errors import MsbenchError, plugin_boundary

_MOST_FILES = 100_000
_MOST_LABEL = 1 << 10  # bytes; what is longer is no class


def open_shards(request: Request) -> Dataset:
    """Open `wds:PATTERN`, which has no splits; raises MsbenchError as `list_shards` does."""
    source, entries, note = list_shards(location_of(request, "wds:DIR/val-{000..063}.tar"))
    return build_dataset(request, entries, source, notes=[note], identity=lambda one: _split(one.name)[1])


def list_shards(location: str) -> tuple[Source, list[Entry], str]:
    """The samples of all tars that a pattern names, and a note on those without an image.

    Files are called TAR/PATH; keys are the samples' own, with their tar's name before them where two tars have the same.

    Raises:
        MsbenchError: no tar, an unreadable one or two of one name; a sample of several images, or a `.cls` that is no class.
    """
    pattern, _, wanted = location.partition("#")
    members: dict[str, tuple[Path, int, int] | str] = {}
    for path in expand(pattern):
        tar = {f"{path.stem}/{name}": member for name, member in open_tar(path).members.items()}
        if not members.keys().isdisjoint(tar):
            raise MsbenchError(f"wds:{location}: two tars are called {path.name}; rename one")
        members |= tar
    images: dict[str, str] = {}
    for name in members:
        folder, stem, kind = _split(name)
        if is_image_name(name) and kind in (wanted or kind,) and images.setdefault(f"{folder}/{stem}", name) != name:
            raise MsbenchError(printable(f"wds:{location}: {folder}/{stem} has several images; take one, as {pattern}#{kind}"))
    own = {sample: sample.partition("/")[2] for sample in images}
    if len({*own.values()}) < len(own):
        own = dict(zip(own, own, strict=True))
    keys, source = make_keys(own.values()), TarSource(members)
    entries = [Entry(keys[own[one]], name, _class_of(source, one), keys[own[one]]) for one, name in images.items()]
    spare = len({"/".join(_split(name)[:2]) for name in members} - images.keys())
    return source, entries, f"{spare} samples left out that have no image" * bool(spare)


def expand(pattern: str) -> list[Path]:
    """The files that a pattern names: `{000..127}` counts, `{a,b}` lists, `*`, `?` and `[…]` match what is there.

    Raises:
        MsbenchError: too many, or one that does not exist.
    """
    texts = [os.path.expanduser(pattern)]
    while (brace := re.search(r"\{([^{}]*)\}", texts[0])) and not Path(texts[0]).exists():
        parts = brace[1].split(",")
        if ends := re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", brace[1]):
            numbers = range(int(ends[1]), int(ends[2]) + 1)[: _MOST_FILES + 1]
            parts = [f"{number:0{len(ends[1])}}" for number in numbers]
        if not 1 <= len(parts) * len(texts) <= _MOST_FILES:
            raise MsbenchError(f"{pattern}: {brace[0]} names no file, or more than {_MOST_FILES:,}")
        texts = [text.replace(brace[0], part, 1) for text in texts for part in parts]
    found: dict[Path, None] = {}
    for text in texts:
        some = [text] if Path(text).exists() else sorted(glob.glob(text))
        if not some:
            spare = "; # is for repositories of the hub alone" * ("#" in pattern)
            raise MsbenchError(f"no file {text}; in {pattern} write {{000..127}}, {{a,b}} or *{spare}")
        found |= dict.fromkeys(map(Path, some))
    return list(found)


def _split(name: str) -> tuple[str, str, str]:
    """Folder, sample and kind of a file: `tar/a/s1.input.jpg` -> `tar/a`, `s1`, `input.jpg`."""
    folder, _, file = name.rpartition("/")
    stem, _, kind = file.partition(".")
    return folder, stem, kind


def _class_of(source: TarSource, sample: str) -> str | None:
    name = f"{sample}.cls"
    if name not in source.members:
        return printable("/".join(sample.split("/")[1:-1])) or None
    with plugin_boundary(printable(name), "reading the class there"):
        return printable(source.read(name)[:_MOST_LABEL].decode("utf-8", "surrogateescape").strip()) or None
