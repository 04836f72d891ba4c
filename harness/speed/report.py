"""The tables of `msbench speed`, for the terminal. Rows are mappings with the keys of its `--json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

Row = Mapping[str, Any]
MISSING = "–"
_PLACE = ("resolution", "cores")
_SETTING = ("batch", "mode", "dtype", "resolution", "cores")


def speed_tables(document: Row) -> Group:
    """Everything a person should see: times and costs per resolution and number of cores, each decoder's fastest, notes.

    Args:
        document: what `--json` prints.
    """
    from rich.console import Group
    from rich.text import Text

    cells, device = document["cells"], document["device"]
    blocks: list[Any] = []
    for place in dict.fromkeys(_key(cell, _PLACE) for cell in cells):
        mine = [cell for cell in cells if _key(cell, _PLACE) == place]
        floors = [floor for floor in document["noise_floor"] if _key(floor, _PLACE) == place]
        best = [row for row in document["fastest"] if _key(row, _PLACE) == place]
        blocks.append(_cells_table(mine, floors, _title(device, *place)))
        ran = [cell for cell in mine if cell["status"] == "ok"]
        if ran:
            blocks.append(_costs_table(ran))
        if len({(cell["mode"], cell["dtype"]) for cell in ran}) > 1:
            blocks.append(_fastest_table(best))
        blocks += [Text(line, style="dim") for line in (*_not_measured(mine), *_flags(mine))]
    blocks += [Text(line, style="dim") for line in (*_caveats(document), *document["notes"])]
    return Group(*blocks)


def _key(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _title(device: str, resolution: int, cores: int | str | None) -> str:
    on = "" if cores is None else ", all cores" if cores == "all" else f", {cores} core{'' if cores == 1 else 's'}"
    return f"{device}, {resolution} px{on}"


def _new_table(title: str | None, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    for header in texts:
        table.add_column(header, no_wrap=True)
    for header in numbers:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _cells_table(cells: Sequence[Row], floors: Sequence[Row], title: str) -> Table:
    """Times: one row per decoder, batch, mode and dtype, both scopes in it."""
    headers = ("ms/call\n(p10–p90)", "with\ncopy", "images\n/s", "GFLOPs", "× first\ntime", "× first\nFLOPs", "noise\nfloor")
    table = _new_table(title, ("decoder", "batch", "mode"), headers)
    ends = {(cell["decoder"], *_key(cell, _SETTING)): cell for cell in cells if cell["scope"] == "end-to-end"}
    noise = {_key(floor, _SETTING): floor["floor"] for floor in floors if floor["scope"] == "decode"}
    for cell in _decoding(cells):
        values = [cell["status"].replace("_", "\n").replace("out of", "out of\n")]
        if cell["status"] == "ok":
            end = ends.get((cell["decoder"], *_key(cell, _SETTING)), {})
            spread = f"{figure(cell['median_ms'])}\n({figure(cell['p10_ms'])}–{figure(cell['p90_ms'])})"
            values = [spread, figure(end.get("median_ms")), figure(cell["images_per_s"]), figure(cell["gflops"])]
            values += [figure(cell["ratio_to_first"]), figure(cell["flop_ratio_to_first"])]
            values.append(_percent(noise.get(_key(cell, _SETTING))))
        _add(table, (*_names(cell), *values))
    return table


def _costs_table(cells: Sequence[Row]) -> Table:
    """Everything else that decoders which ran cost, and how far the device was used."""
    headers = ("Peak\nMiB", "compile\ns", "cold\ns", "GFLOP\n/s", "MFU", "GB/s\nat most", "J/image")
    table = _new_table(None, ("decoder", "batch", "mode"), headers)
    for cell in _decoding(cells):
        values = [figure(cell["peak_memory_mb"]), figure(cell["compile_s"]), figure(cell["cold_ms"], 1e-3)]
        values += [figure(cell["achieved_gflops_per_s"]), _percent(cell["mfu"]), figure(cell["achieved_gb_per_s"])]
        _add(table, (*_names(cell), *values, figure(cell["energy_j_per_image"])))
    return table


def _decoding(cells: Sequence[Row]) -> list[Row]:
    return [cell for cell in cells if cell["scope"] == "decode"]


def _names(cell: Row) -> tuple[str, str, str]:
    found = cell["batch"] == "max" and cell["images_per_call"]
    batch = f"max:\n{cell['images_per_call']}" if found else str(cell["batch"])
    return cell["decoder"].replace("@", "\n@"), batch, f"{cell['mode']}\n{cell['dtype']}"


def _add(table: Table, texts: Sequence[str]) -> None:
    from rich.markup import escape

    table.add_row(*(escape(text) for text in texts))


def _fastest_table(rows: Sequence[Row]) -> Table:
    """Every decoder in its own fastest mode and dtype."""
    headers = ("ms/image", "× first\ntime", "× first\nFLOPs", "share of\nFLOP ratio")
    together = all(row["side_by_side"] for row in rows)
    title = "every decoder in its own fastest mode, " + ("timed in the same turns" if together else "not all in the same turns")
    table = _new_table(title, ("batch", "decoder", "mode"), headers)
    for row in _decoding(rows):
        values = (figure(row["ms_per_image"]), figure(row["ratio_to_first"]), figure(row["flop_ratio_to_first"]))
        names = (str(row["batch"]), row["decoder"], f"{row['mode']}, {row['dtype']}")
        _add(table, (*names, *values, _percent(row["share_of_flop_ratio"])))
    return table


def figure(value: float | None, factor: float = 1.0) -> str:
    """Three significant figures, whole numbers from 100."""
    if value is None:
        return MISSING
    value *= factor
    decimals = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2 if abs(value) >= 0.9995 else 3
    return f"{value:,.{decimals}f}"


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f} %"


def _not_measured(cells: Sequence[Row]) -> list[str]:
    """One line per reason, with the cells it stands for."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        if cell["status"] != "ok" and cell["scope"] == "decode":
            who = f"{cell['decoder']} (batch {cell['batch']}, {cell['mode']}, {cell['dtype']})"
            reasons.setdefault((cell["status"], cell["reason"] or "no reason given"), []).append(who)
    return [f"{status.replace('_', ' ')}: {', '.join(who)}: {reason}" for (status, reason), who in reasons.items()]


def _flags(cells: Sequence[Row]) -> list[str]:
    found: dict[str, list[str]] = {}
    for cell in cells:
        if cell["scope"] == "decode":
            for flag in cell["flags"]:
                found.setdefault(flag, []).append(f"{cell['decoder']} (batch {cell['batch']}, {cell['mode']}, {cell['dtype']})")
    return [f"{flag}: {', '.join(who)}" for flag, who in found.items()]


def _caveats(document: Row) -> list[str]:
    first = document["contestants"][0]["label"]
    lines = [
        f"× first: how many times as fast as {first} in the same setting, and what counted FLOPs say. Encoding is never timed.",
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
