"""References of the regression gate: a CSV with the figures a run recorded, how far each may worsen, and where they come from.

One row a decoder and metric. Rows without a decoder hold the protocol, one row a field, so that a run of another protocol can
be told which field differs. Names are looked up in `results/regression` of a checkout and `harness/regression` of a wheel.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from harness.errors import MsbenchError, UnknownNameError
from harness.files import write_text

COLUMNS = (
    "decoder",
    "metric",
    "expected",
    "tolerance",
    "tolerance_from",
    "better",
    "n",
    "dataset",
    "protocol_hash",
    "source_sha256",
    "reference_sha256",
    "weights_sha256",
    "msbench",
    "command",
)
"""the header of a reference, in this order"""
Direction = Literal["higher", "lower"]
_SHARED = ("n", "dataset", "protocol_hash", "source_sha256", "reference_sha256")
_PROTOCOL = "protocol."
_HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Expected:
    """One figure a later run is held against."""

    decoder: str
    """registry name"""
    metric: str
    """key of a record's results"""
    value: float
    """what the run recorded, at full precision; `inf` for the PSNR of exact images"""
    tolerance: float
    """how much worse is still no regression, in the metric's own unit, at least 0"""
    tolerance_from: str
    """where the tolerance comes from, in a few words"""
    better: Direction
    """which way is better"""
    weights_sha256: str | None
    """weights of that run's decoder"""
    msbench: str
    """version that ran it"""
    command: str
    """how to run it again"""


@dataclass(frozen=True, slots=True)
class GateReference:
    """What later runs are held against: figures of one protocol on one set of source files."""

    name: str
    """its bare name or path, for messages"""
    figures: tuple[Expected, ...]
    """in the order of the run's decoders"""
    protocol: Mapping[str, Any]
    """fields of the protocol, JSON types"""
    protocol_hash: str
    """hash of the protocol"""
    n: int
    """number of images"""
    dataset: str
    """dataset name"""
    source_sha256: str
    """hash over the source files"""
    reference_sha256: str
    """hash over the pixels; other pixels of the same files are a remark"""

    @property
    def decoders(self) -> tuple[str, ...]:
        """The decoders it holds, in order."""
        return tuple(dict.fromkeys(figure.decoder for figure in self.figures))

    def of(self, decoder: str) -> dict[str, Expected]:
        """Figures of one decoder by metric; empty where it holds none."""
        return {figure.metric: figure for figure in self.figures if figure.decoder == decoder}


def checkout_folder() -> Path | None:
    """`results/regression` of the checkout this package runs from; None for an installed wheel."""
    root = _HERE.parent
    return root / "results" / "regression" if (root / "pyproject.toml").is_file() else None


def reference_path(name_or_path: str) -> Path:
    """The file meant by a bare name or a path; it need not exist.

    Raises:
        MsbenchError: a bare name outside a checkout, where there is no folder to put a new one in.
    """
    if not _is_name(name_or_path):
        return Path(name_or_path)
    for folder in _folders():
        if (folder / f"{name_or_path}.csv").is_file():
            return folder / f"{name_or_path}.csv"
    checkout = checkout_folder()
    if checkout is None:
        raise MsbenchError(
            f"reference {name_or_path!r}: msbench runs from no checkout here; give a path such as ./{name_or_path}.csv"
        )
    return checkout / f"{name_or_path}.csv"


def read_reference(name_or_path: str) -> GateReference:
    """Read a reference by its bare name or its path.

    Raises:
        UnknownNameError: no such name; the nearest one is suggested.
        MsbenchError: no such file, or one that is no reference; the message names the line.
    """
    known = known_references()
    if _is_name(name_or_path) and name_or_path not in known:
        raise UnknownNameError("reference", name_or_path, known)
    path = known[name_or_path] if _is_name(name_or_path) else Path(name_or_path)
    if not path.is_file():
        raise MsbenchError(f"no reference at {path}: write one with `msbench compare RUN --against {path} --update`")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise MsbenchError(f"{path} is not a text file ({error}); a reference is a CSV") from error
    return _parse(name_or_path, path, text)


def write_reference(path: Path, reference: GateReference) -> None:
    """Write a reference as CSV, atomically."""
    shared = {key: getattr(reference, key) for key in _SHARED}
    rows: list[dict[str, Any]] = [
        {
            **shared,
            "decoder": figure.decoder,
            "metric": figure.metric,
            "expected": repr(figure.value),
            "tolerance": repr(figure.tolerance),
            "tolerance_from": figure.tolerance_from,
            "better": figure.better,
            "weights_sha256": figure.weights_sha256 or "",
            "msbench": figure.msbench,
            "command": figure.command,
        }
        for figure in reference.figures
    ]
    rows += [
        {**shared, "metric": _PROTOCOL + key, "expected": json.dumps(value, sort_keys=True), "better": "equal"}
        for key, value in sorted(reference.protocol.items())
    ]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())


def merge(old: GateReference, new: GateReference) -> GateReference:
    """`old` with the decoders of `new` put in place of its own; of another protocol or set, `new` must hold them all.

    Raises:
        MsbenchError: figures of two protocols or sets of source files would stand in one file.
    """
    kept = [name for name in old.decoders if name not in new.decoders]
    if (old.protocol_hash, old.source_sha256) != (new.protocol_hash, new.source_sha256):
        if kept:
            raise MsbenchError(
                f"reference {new.name} also holds {', '.join(kept)}, under another protocol or of other source files: "
                "run all of its decoders, or give another name"
            )
        return new
    names = dict.fromkeys((*old.decoders, *new.decoders))
    figures = [figure for name in names for figure in (old if name in kept else new).of(name).values()]
    return replace(new, figures=tuple(figures))


def known_references() -> dict[str, Path]:
    """Every reference that has a bare name; other CSV files beside them do not count."""
    found: dict[str, Path] = {}
    for folder in _folders():
        for path in sorted(folder.glob("*.csv")):
            with path.open(encoding="utf-8", errors="replace") as stream:
                if stream.readline().strip() == ",".join(COLUMNS):
                    found.setdefault(path.stem, path)
    return found


def _folders() -> list[Path]:
    return [folder for folder in (checkout_folder(), _HERE / "regression") if folder is not None and folder.is_dir()]


def _is_name(text: str) -> bool:
    return not text.endswith(".csv") and "/" not in text and "\\" not in text


def _parse(name: str, path: Path, text: str) -> GateReference:
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise MsbenchError(f"{path} line 1: not the header of a reference ({', '.join(COLUMNS)})")
    figures: list[Expected] = []
    protocol: dict[str, Any] = {}
    shared: dict[str, str] = {}
    for row in reader:
        where = f"{path} line {reader.line_num}"
        if None in row or None in row.values():
            raise MsbenchError(f"{where}: {len(COLUMNS)} fields are needed")
        for key in _SHARED:
            if shared.setdefault(key, row[key]) != row[key]:
                raise MsbenchError(
                    f"{where}: {key} is {row[key]}, but {shared[key]} above; a reference comes from one protocol and set"
                )
        try:
            if row["better"] == "equal":
                protocol[row["metric"].removeprefix(_PROTOCOL)] = json.loads(row["expected"])
            else:
                figures.append(_figure(row))
        except ValueError as error:
            raise MsbenchError(f"{where}: {error}") from error
        if len({(figure.decoder, figure.metric) for figure in figures}) != len(figures):
            raise MsbenchError(f"{where}: {row['decoder']} {row['metric']} stands there twice")
    if not figures:
        raise MsbenchError(f"{path} holds no figures")
    if not shared["n"].isdigit():
        raise MsbenchError(f"{path} line 2: n is {shared['n']!r}, not a number of images")
    return GateReference(
        name,
        tuple(figures),
        protocol,
        shared["protocol_hash"],
        int(shared["n"]),
        shared["dataset"],
        shared["source_sha256"],
        shared["reference_sha256"],
    )


def _figure(row: Mapping[str, str]) -> Expected:
    """One row; raises ValueError that says what is wrong with it."""
    if row["better"] not in ("higher", "lower"):
        raise ValueError(f"better is {row['better']!r}, not higher, lower or equal")
    if not row["decoder"] or not row["metric"]:
        raise ValueError("decoder or metric is empty")
    value, tolerance = float(row["expected"]), float(row["tolerance"])
    if math.isnan(value) or not 0 <= tolerance < math.inf:
        raise ValueError(f"expected {row['expected']}, tolerance {row['tolerance']}: a number and one of at least 0 are needed")
    return Expected(
        row["decoder"],
        row["metric"],
        value,
        tolerance,
        row["tolerance_from"],
        cast(Direction, row["better"]),
        row["weights_sha256"] or None,
        row["msbench"],
        row["command"],
    )
