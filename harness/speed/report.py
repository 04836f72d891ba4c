"""The tables of `msbench speed`. Rows are mappings with the keys of its `--json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.report.table import Cell, Column, Table, listing, number, significant

Row = Mapping[str, Any]
_PLACE = ("resolution", "cores")
_SETTING = ("batch", "mode", "dtype", "resolution", "cores")
_TIMES = ("ms/call\n(p10–p90)", "with\ncopy", "images\n/s", "GFLOPs", "× first\ntime", "× first\nFLOPs", "noise\nfloor")
_COSTS = ("Peak\nMiB", "compile\ns", "cold\ns", "GFLOP\n/s", "MFU", "GB/s\nat most", "J/image")


def speed_tables(document: Row) -> list[Table]:
    """Everything a person should see: times and costs per resolution and number of cores, each decoder's fastest, notes.

    Args:
        document: what `--json` prints.
    """
    cells, device = document["cells"], document["device"]
    tables: list[Table] = []
    for place in dict.fromkeys(_key(cell, _PLACE) for cell in cells):
        mine = [cell for cell in cells if _key(cell, _PLACE) == place]
        floors = [floor for floor in document["noise_floor"] if _key(floor, _PLACE) == place]
        best = [row for row in document["fastest"] if _key(row, _PLACE) == place]
        tables.append(_cells_table(mine, floors, _title(device, *place)))
        if len({(cell["mode"], cell["dtype"]) for cell in mine if cell["status"] == "ok"}) > 1:
            tables.append(_fastest_table(best))
    return [*tables, Table((), (), notes=[*_caveats(document), *document["notes"]])]


def _key(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _title(device: str, resolution: int, cores: int | str | None) -> str:
    on = "" if cores is None else ", all cores" if cores == "all" else f", {cores} core{'' if cores == 1 else 's'}"
    return f"{device}, {resolution} px{on}"


def _cells_table(cells: Sequence[Row], floors: Sequence[Row], title: str) -> Table:
    """One row per decoder, batch, mode and dtype: times of both scopes; below them what else it cost."""
    ends = {(cell["decoder"], *_key(cell, _SETTING)): cell for cell in cells if cell["scope"] == "end-to-end"}
    noise = {_key(floor, _SETTING): floor["floor"] for floor in floors if floor["scope"] == "decode"}
    columns = [Column("decoder"), Column("batch"), Column("mode")]
    columns += [Column(header, numeric=True, block=block) for block, of in ((1, _TIMES), (2, _COSTS)) for header in of]
    rows, decoding = [], [cell for cell in cells if cell["scope"] == "decode"]
    for cell in decoding:
        name, at, options = cell["decoder"].partition("@")
        found = cell["batch"] == "max" and cell["images_per_call"]
        row = [
            Cell(cell["decoder"], (name, at + options) if at else ()),
            Cell(str(cell["batch"]), ("max:", str(cell["images_per_call"])) if found else ()),
            Cell(cell["mode"], (cell["mode"], cell["dtype"])),
        ]
        if cell["status"] != "ok":
            row += [Cell(cell["status"], tuple(cell["status"].replace("out_of", "out of").split("_")))]
            rows.append([*row, *(Cell(None) for _ in range(len(columns) - len(row)))])
            continue
        end = ends.get((cell["decoder"], *_key(cell, _SETTING)), {})
        spread = f"({significant(cell['p10_ms'])}–{significant(cell['p90_ms'])})"
        row += [Cell(cell["median_ms"], (significant(cell["median_ms"]), spread)), number(end.get("median_ms"))]
        row += map(number, _key(cell, ("images_per_s", "gflops", "ratio_to_first", "flop_ratio_to_first")))
        row += [_percent(noise.get(_key(cell, _SETTING))), number(cell["peak_memory_mb"]), number(cell["compile_s"])]
        row += [number(None if cell["cold_ms"] is None else cell["cold_ms"] / 1000), number(cell["achieved_gflops_per_s"])]
        rows.append([*row, _percent(cell["mfu"]), number(cell["achieved_gb_per_s"]), number(cell["energy_j_per_image"])])
    failed = [cell for cell in decoding if cell["status"] != "ok"]
    notes = _notes((f"{one['status'].replace('_', ' ')}: ", f": {one['reason'] or 'no reason given'}", one) for one in failed)
    flags = _notes((f"{flag}: ", "", cell) for cell in decoding for flag in cell["flags"])
    return Table(columns, rows, title, [*notes, *flags])


def _notes(said: Iterable[tuple[str, str, Row]]) -> list[str]:
    """One line for all cells of which the same is said."""
    found: dict[tuple[str, str], list[str]] = {}
    for before, after, cell in said:
        who = f"{cell['decoder']} (batch {cell['batch']}, {cell['mode']}, {cell['dtype']})"
        found.setdefault((before, after), []).append(who)
    return [f"{before}{', '.join(who)}{after}" for (before, after), who in found.items()]


def _fastest_table(rows: Sequence[Row]) -> Table:
    """Every decoder in its own fastest mode and dtype."""
    together = all(row["side_by_side"] for row in rows)
    title = "every decoder in its own fastest mode, " + ("timed in the same turns" if together else "not all in the same turns")
    headers = ("batch", "decoder", "mode", "ms/image", "× first\ntime", "× first\nFLOPs", "share of\nFLOP ratio")
    lines = [
        (
            *(str(row["batch"]), row["decoder"], f"{row['mode']}, {row['dtype']}"),
            *map(number, _key(row, ("ms_per_image", "ratio_to_first", "flop_ratio_to_first"))),
            _percent(row["share_of_flop_ratio"]),
        )
        for row in rows
        if row["scope"] == "decode"
    ]
    notes = _notes(("disturbed by other work: ", "", row) for row in rows if row["scope"] == "decode" and row["disturbed"])
    return listing(headers, lines, title, notes, keys=3)


def _percent(value: float | None) -> Cell:
    return number(value, lambda share: f"{100 * share:.1f} %")


def _caveats(document: Row) -> list[str]:
    first = document["contestants"][0]["label"]
    lines = [
        f"× first: how many times as fast as {first} in the same setting, if undisturbed, and in FLOPs. Encoding is not timed.",
        f"noise floor: {first} against a second process of itself; a ratio within 1 ± this shows nothing.",
    ]
    if document["status"] == "incomplete":
        lines.append("The budget ended before everything was measured.")
    if any(cell["status"] == "ok" and cell.get("energy_j_per_image") is None for cell in document["cells"]):
        lines.append(f"energy: {_why_no_energy(document)}.")
    return lines


def _why_no_energy(document: Row) -> str:
    if not document["device"].startswith("cuda"):
        return "read from NVIDIA GPUs only (NVML)"
    reasons = {cell["power"]["reason"] for cell in document["cells"] if cell.get("power") and cell["power"]["reason"]}
    return "; ".join(sorted(reasons)) or "not read"
