"""Which reconstruction belongs to which image: by name without suffix, or by order."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from harness.data.sources import printable
from harness.errors import MsbenchError


def pair_by_name(samples: Mapping[str, str], names: Sequence[str], where: str) -> dict[str, str]:
    """Key of a sample -> name of its reconstruction, for those that have one.

    A reconstruction is called, suffixes aside, by the sample's key, or by the path of its file; or one of the two paths is the
    end of the other (`n01/abc.JPEG` and `abc.png`), where no other sample ends in that name.

    Args:
        samples: key -> path of the file it was made from, with forward slashes.
        names: paths of the reconstructions.
        where: what holds them, for messages.

    Raises:
        MsbenchError: two reconstructions of one sample, or one of two.
    """
    by_path: dict[str, list[str]] = defaultdict(list)
    by_end: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_path[_stem(name)].append(name)
        by_end[_end(_stem(name))].append(name)
    ends = Counter(_end(_stem(name)) for name in samples.values())
    paired: dict[str, str] = {}
    taken: dict[str, str] = {}
    for key, name in samples.items():
        path = _stem(name)
        found = by_path.get(key) or by_path.get(path) or []
        if not found and ends[_end(path)] == 1:
            found = [other for other in by_end.get(_end(path), ()) if _ends_alike(path, _stem(other))]
        if len(found) > 1:
            raise MsbenchError(f"{where}: {_shown(found[:2])} are both called like image {key}; keep one of them")
        for one in found:
            if one in taken:
                raise MsbenchError(f"{where}: {_shown([one])} is called like both images {taken[one]} and {key}; rename one")
            paired[key], taken[one] = one, key
    return paired


def pair_in_order(samples: Mapping[str, str], names: Sequence[str], where: str) -> dict[str, str]:
    """Key of a sample -> reconstruction of the same place, both sorted by the names of their files.

    Raises:
        MsbenchError: there are not as many of both.
    """
    if len(samples) != len(names):
        raise MsbenchError(f"{where}: {len(names):,} reconstructions of {len(samples):,} images cannot be matched by order")
    return dict(zip(sorted(samples, key=lambda key: (samples[key], key)), sorted(names), strict=True))


def _shown(names: Sequence[str]) -> str:
    return printable(" and ".join(names))


def _stem(name: str) -> str:
    """The path without suffix, in one of the ways that Unicode may write it."""
    return unicodedata.normalize("NFC", str(PurePosixPath(name).with_suffix("")))


def _end(path: str) -> str:
    return path.rpartition("/")[2]


def _ends_alike(one: str, other: str) -> bool:
    """One path is the end of the other."""
    short, long = sorted((one.split("/"), other.split("/")), key=len)
    return long[-len(short) :] == short
