"""Everybody in their own fastest mode and dtype: a slow baseline is no victory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from harness.speed.cells import Cell
from harness.speed.protocol import Batch, Cores
from harness.speed.turns import Timing, time_ratio


@dataclass(frozen=True, slots=True)
class Fastest:
    """One table of everybody in their own fastest mode and dtype."""

    resolution: int
    """side in pixels"""
    cores: Cores | None
    """CPU cores; None on a GPU"""
    batch: Batch
    """images per call as asked for"""
    side_by_side: bool
    """all were timed in the same turns, so that drift of the machine is not in the ratios"""
    cells: list[Cell]
    """both scopes, in the order of the decoders"""

    def rows(self) -> list[dict[str, Any]]:
        """In JSON types, one a decoder and scope."""
        place = ("resolution", "cores", "batch", "images_per_call", "scope")
        figures = ("ms_per_image", "n_calls", "gflops", "ratio_to_first", "flop_ratio_to_first", "share_of_flop_ratio")
        keys = ("decoder", "mode", "dtype", *place, *figures)
        return [{key: getattr(cell, key) for key in keys} | {"side_by_side": self.side_by_side} for cell in self.cells]

    def timed_again(self, timings: Mapping[str, Timing], first: str) -> Fastest:
        """The same table with the times of `timings`, in which everybody took turns; `first` is whom ratios are to."""
        cells = []
        for cell in self.cells:
            samples = timings[cell.decoder].samples(cell.scope)
            per_image = median(timings[cell.decoder].per_image(cell.scope))
            time = time_ratio(timings[first], timings[cell.decoder], cell.scope) if first in timings else None
            share = time / cell.flop_ratio_to_first if time is not None and cell.flop_ratio_to_first else None
            again = replace(cell, ms_per_image=1e3 * per_image, n_calls=len(samples), ratio_to_first=time)
            cells.append(replace(again, share_of_flop_ratio=share))
        return replace(self, side_by_side=True, cells=cells)


def fastest(cells: Iterable[Cell], first: str) -> list[Fastest]:
    """Every decoder in its own fastest mode and dtype, per resolution, number of cores and batch.

    Ratios are to the decoder labelled `first` in *its* fastest (None where it has no figure); where everybody's fastest is one
    setting they are the ones measured in turns there.
    """
    tables: dict[tuple[Any, ...], dict[str, Cell]] = {}
    ends: dict[tuple[Any, ...], Cell] = {}
    for cell in cells:
        if cell.status != "ok" or cell.ms_per_image is None:
            continue
        if cell.scope != "decode":
            ends[cell.decoder, cell.resolution, cell.cores, cell.batch, cell.mode, cell.dtype] = cell
            continue
        group = tables.setdefault((cell.resolution, cell.cores, cell.batch), {})
        rival = group.get(cell.decoder)
        if rival is None or rival.ms_per_image is None or cell.ms_per_image < rival.ms_per_image:
            group[cell.decoder] = cell
    found = []
    for (resolution, cores, batch), group in tables.items():
        in_turns = len({(cell.mode, cell.dtype) for cell in group.values()}) == 1 and batch != "max"
        scopes = [list(group.values())]
        others = [ends.get((cell.decoder, resolution, cores, batch, cell.mode, cell.dtype)) for cell in group.values()]
        scopes.append([cell for cell in others if cell is not None])
        rows = []
        for chosen in scopes:
            against = next((cell for cell in chosen if cell.decoder == first), None)
            rows += [cell if in_turns else cell.against(against) for cell in chosen]
        found.append(Fastest(resolution, cores, batch, in_turns, rows))
    return found
