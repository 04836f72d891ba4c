"""One table of `msbench speed`, and whether a second run says the same.

    python benchmarks/speed_table.py RUN [AGAIN] --output FILE.csv

RUN and AGAIN are folders of `msbench speed` on one machine. Each row is a decoder in a setting; columns `again_*` are those of
the second run, columns `fastest_*` those of the last table of the first, in which everybody's own fastest mode took turns. Two
ratios agree where they differ by no more than the larger of both runs' noise floors (docs/cost.md).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.plumbing import options, run_script, write_csv
from harness.errors import MsbenchError

SETTING = ("batch", "mode", "dtype", "scope", "resolution", "cores")
COLUMNS = (
    *("decoder", "steps", "scales", *SETTING, "status", "median_ms", "p10_ms", "p90_ms", "n_calls", "ms_per_image"),
    *("images_per_s", "gflops", "parameters", "peak_memory_mb", "energy_j_per_image", "cold_ms", "compile_s", "mfu"),
    *("ratio_to_first", "flop_ratio_to_first", "share_of_flop_ratio"),
)
ADDED = (
    *("fastest", "fastest_ms_per_image", "fastest_ratio", "fastest_share", "noise_floor"),
    *("again_ms", "again_ratio", "again_floor", "agrees", "cpu", "torch"),
)
Document = Mapping[str, Any]


def read_speed(folder: Path) -> Document:
    """The document of a run of `msbench speed`.

    Raises:
        MsbenchError: there is none in the folder.
    """
    path = folder / "speed.json"
    try:
        document: Document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise MsbenchError(f"{path}: not a readable run of msbench speed ({error})") from error
    return document


def rows(first: Document, again: Document | None) -> list[dict[str, Any]]:
    """Rows of the CSV, in the first run's order; two ratios agree that differ by no more than the noise floor of the larger.

    Raises:
        MsbenchError: no cell of the second run stands in the first.
    """
    best = {(row["decoder"], *_setting(row)): row for row in first["fastest"] if row["side_by_side"]}
    marked = {(row["decoder"], *_setting(row)) for row in first["fastest"]}
    second = {(cell["decoder"], *_setting(cell)): cell for cell in (again or {"cells": []})["cells"]}
    noise, noise_again = ({_setting(row): row["floor"] for row in one["noise_floor"]} if one else {} for one in (first, again))
    machine = {"cpu": first["environment"]["cpu_model"], "torch": first["environment"]["torch"]}
    found = []
    for cell in first["cells"]:
        setting = _setting(cell)
        who = (cell["decoder"], *setting)
        line = {name: cell[name] for name in COLUMNS} | machine
        line |= {"fastest": who in marked, "noise_floor": noise.get(setting)}
        if who in best:
            figures = {"ms_per_image": "ms_per_image", "ratio": "ratio_to_first", "share": "share_of_flop_ratio"}
            line |= {f"fastest_{name}": best[who][key] for name, key in figures.items()}
        other, ratio = second.get(who), cell["ratio_to_first"]
        if other is not None and None not in (ratio, repeated := other["ratio_to_first"]):
            floor = max(noise.get(setting) or 0.0, noise_again.get(setting) or 0.0)
            line |= {"again_ms": other["median_ms"], "again_ratio": repeated, "again_floor": noise_again.get(setting)}
            line["agrees"] = abs(ratio - repeated) <= floor * max(ratio, repeated)
        found.append(line)
    if again is not None and not any("agrees" in line for line in found):
        raise MsbenchError("the two runs have no undisturbed cell in common: same decoders, modes and batches?")
    return found


def _setting(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in SETTING)


def main() -> None:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("run", type=Path, help="folder of a run of msbench speed")
    parser.add_argument("again", type=Path, nargs="?", help="a second run of the same, on the same machine")
    parser.add_argument("--output", type=Path, required=True, help="the CSV")
    arguments = parser.parse_args()
    lines = rows(read_speed(arguments.run), read_speed(arguments.again) if arguments.again else None)
    write_csv(lines, arguments.output, (*COLUMNS, *ADDED))
    compared = [line["agrees"] for line in lines if "agrees" in line and line["ratio_to_first"] != 1.0]
    if compared:
        print(f"{sum(compared)} of {len(compared)} ratios agree within the noise floor")


if __name__ == "__main__":
    sys.exit(run_script(main))
