"""A seeded, stratified subset that depends on keys and strata only, never on the order of files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def stratified_subset(keys: Sequence[str], strata: Sequence[str], count: int, seed: int) -> list[int]:
    """Positions (ascending) of `count` items, every stratum within one of its proportional share.

    Systematic sampling: strata stand in a seeded order on a line of length N, and every (N / count)-th point from a seeded
    offset takes one item of the stratum it falls in. So a stratum of size m gets the floor or the ceiling of count·m/N, over
    seeds count·m/N on average, also where there are fewer items than strata. Integers throughout: exact on every machine.

    Args:
        keys: unique names of the items.
        strata: stratum of each item, as many as keys.
        count: how many to take, at least 1; everything is taken where there are not more.
        seed: any integer.
    """
    total = len(keys)
    if count >= total:
        return list(range(total))
    members: dict[str, list[int]] = {}
    for position, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(position)
    chosen: list[int] = []
    before = _hash(seed, "offset", "") % total
    for stratum in sorted(members, key=lambda name: (_hash(seed, "stratum", name), name)):
        positions = members[stratum]
        after = before + count * len(positions)
        take = after // total - before // total
        before = after
        chosen += sorted(positions, key=lambda position: _hash(seed, "item", keys[position]))[:take]
    return sorted(chosen)


def _hash(seed: int, role: str, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{role}\0{name}".encode()).digest()[:8], "big")
