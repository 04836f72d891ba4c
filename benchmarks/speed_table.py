"""One table of `msbench speed`, and whether a second run says the same.

    python benchmarks/speed_table.py RUN [AGAIN] --output FILE.csv

RUN and AGAIN are folders of `msbench speed` on one machine. Each row is a decoder in a setting; columns `again_*` are those of
the second run, columns `fastest_*` those of the last table of the first, in which everybody's own fastest mode took turns. Two
ratios agree where they differ by no more than the larger of both runs' noise floors (docs/cost.md).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import MsbenchError
from harness.files import write_text

SETTING = ("batch", "mode", "dtype", "scope", "resolution", "cores")
COLUMNS = (
    *("decoder", "steps", "scales", *SETTING, "status", "median_ms", "p10_ms", "p90_ms", "n_calls", "ms_per_image"),
    *("images_per_s", "gflops", "parameters", "peak_memory_mb", "cold_ms", "compile_s", "mfu"),
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


def floors(document: Document) -> dict[tuple[Any, ...], float]:
    """Noise floor of each setting, as a share."""
    return {_setting(row): row["floor"] for row in document["noise_floor"]}


def agree(ratio: float, again: float, floor: float) -> bool:
    """Two ratios differ by no more than `floor` of the larger one."""
    return abs(ratio - again) <= floor * max(ratio, again)


def rows(first: Document, again: Document | None) -> list[dict[str, Any]]:
    """Rows of the CSV, in the first run's order.

    Raises:
        MsbenchError: no cell of the second run stands in the first.
    """
    best = {(row["decoder"], *_setting(row)): row for row in first["fastest"]}
    second = {(cell["decoder"], *_setting(cell)): cell for cell in again["cells"]} if again else {}
    noise, noise_again = floors(first), floors(again) if again else {}
    machine = {"cpu": first["environment"]["cpu_model"], "torch": first["environment"]["torch"]}
    found = []
    for cell in first["cells"]:
        setting = _setting(cell)
        line = {name: cell[name] for name in COLUMNS} | machine
        chosen = best.get((cell["decoder"], *setting))
        line |= {"fastest": chosen is not None, "noise_floor": noise.get(setting)}
        if chosen is not None and chosen["side_by_side"]:
            line |= {
                "fastest_ms_per_image": chosen["ms_per_image"],
                "fastest_ratio": chosen["ratio_to_first"],
                "fastest_share": chosen["share_of_flop_ratio"],
            }
        other = second.get((cell["decoder"], *setting))
        if other is not None and cell["status"] == other["status"] == "ok" and cell["ratio_to_first"] is not None:
            floor = max(noise.get(setting, 0.0), noise_again.get(setting, 0.0))
            line |= {
                "again_ms": other["median_ms"],
                "again_ratio": other["ratio_to_first"],
                "again_floor": noise_again.get(setting),
                "agrees": agree(cell["ratio_to_first"], other["ratio_to_first"], floor),
            }
        found.append(line)
    if again is not None and not any("agrees" in line for line in found):
        raise MsbenchError("the two runs have no cell in common that both measured: same decoders, modes and batches?")
    return found


def _setting(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in SETTING)


def table(lines: list[dict[str, Any]]) -> str:
    """As CSV; what was not measured is empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=[*COLUMNS, *ADDED], lineterminator="\n", restval="")
    writer.writeheader()
    for line in lines:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in line.items()})
    return stream.getvalue()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run of msbench speed")
    parser.add_argument("again", type=Path, nargs="?", help="a second run of the same, on the same machine")
    parser.add_argument("--output", type=Path, required=True, help="the CSV")
    arguments = parser.parse_args()
    try:
        first = read_speed(arguments.run)
        lines = rows(first, read_speed(arguments.again) if arguments.again else None)
        write_text(arguments.output, table(lines))
    except MsbenchError as error:
        print(f"speed_table: {error}", file=sys.stderr)
        return 2
    compared = [line for line in lines if "agrees" in line and line["ratio_to_first"] != 1.0]
    if compared:
        same = sum(line["agrees"] for line in compared)
        print(f"{same} of {len(compared)} ratios agree within the noise floor")
    return 0


if __name__ == "__main__":
    sys.exit(main())
