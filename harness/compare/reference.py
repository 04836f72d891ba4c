"""References of the regression gate: JSON files with the figures a run recorded, how far each may worsen, and their origin.

Names are looked up in `results/regression` of a checkout and `harness/regression` of a wheel.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from harness.compare.comparison import Basis, side_by_side
from harness.errors import MsbenchError, UnknownNameError
from harness.files import write_text
from harness.metrics.registry import METRICS
from harness.stats.verdict import Direction

COUNTS = ("parameters", "gflops")
"""figures beside the metrics: fewer is better"""
Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=10_000)]
_HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Expected:
    """One figure a later run is held against."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    decoder: Name
    """its label in the run"""
    metric: Name
    """a metric, or one of `COUNTS`"""
    value: Annotated[float, Field(gt=-math.inf)]
    """what the run recorded, at full precision; infinite ("inf" in the file) for the PSNR of exact images"""
    tolerance: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    """how much worse is still no regression, in the metric's own unit"""
    tolerance_from: Text
    """where the tolerance comes from, in a few words"""
    better: Direction
    """which way is better, for readers of the file; another way than the metric's own is refused"""
    weights_sha256: Name | None
    """weights of that run's decoder"""


@dataclass(frozen=True, slots=True)
class GateReference:
    """What later runs are held against: figures of one protocol on one set of source files."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    protocol: Mapping[Name, JsonValue]
    """fields of the protocol"""
    protocol_hash: Name
    """hash of the protocol"""
    metrics: Mapping[Name, Text]
    """metric -> the text that fixes its computation"""
    source_sha256: Name
    """hash over the source files"""
    reference_sha256: Name
    """hash over the pixels; other pixels of the same files are a remark"""
    msbench: Name
    """version that wrote the file"""
    commands: Mapping[Name, Text]
    """decoder -> how to run it again"""
    figures: Annotated[tuple[Expected, ...], Field(min_length=1)]
    """in the order of the run's decoders"""
    name: str = ""
    """its bare name or path, for messages; not in the file"""

    @property
    def decoders(self) -> tuple[str, ...]:
        """The decoders it holds, in order."""
        return tuple(dict.fromkeys(figure.decoder for figure in self.figures))

    def of(self, decoder: str) -> dict[str, Expected]:
        """Figures of one decoder by metric; empty where it holds none."""
        return {figure.metric: figure for figure in self.figures if figure.decoder == decoder}

    def basis(self) -> Basis:
        """What its figures rest on."""
        name = f"reference {self.name}"
        return Basis(name, self.protocol, self.protocol_hash, self.source_sha256, self.reference_sha256, self.metrics, {})

    def write(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        figures = [{**asdict(one), "value": one.value if math.isfinite(one.value) else "inf"} for one in self.figures]
        document = {**asdict(self), "figures": figures}
        del document["name"]
        write_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


_FILE = TypeAdapter(GateReference)


def direction(metric: str) -> Direction:
    """Which way a figure is better.

    Raises:
        UnknownNameError: neither a metric nor one of `COUNTS`.
    """
    if metric in COUNTS:
        return "lower"
    if metric not in METRICS:
        raise UnknownNameError("metric", metric, [*METRICS, *COUNTS])
    return METRICS[metric].direction


def checkout_folder() -> Path | None:
    """`results/regression` of the checkout this package runs from; None for an installed wheel."""
    root = _HERE.parent
    return root / "results" / "regression" if (root / "pyproject.toml").is_file() else None


def reference_path(name_or_path: str) -> Path:
    """The file meant by a bare name or a path; it need not exist.

    Raises:
        MsbenchError: a bare name outside a checkout, where there is no folder to put a new one in, or a CSV.
    """
    if not _is_name(name_or_path):
        if name_or_path.endswith(".csv"):
            raise MsbenchError(f"{name_or_path}: a CSV reference of an earlier version: write it anew by --update, as .json")
        return Path(name_or_path)
    known, checkout = known_references(), checkout_folder()
    if name_or_path not in known and checkout is None:
        raise MsbenchError(f"reference {name_or_path!r}: no checkout of msbench is here; give a path, ./{name_or_path}.json")
    return known[name_or_path] if name_or_path in known or checkout is None else checkout / f"{name_or_path}.json"


def read_reference(name_or_path: str) -> GateReference:
    """Read a reference by its bare name or its path.

    Raises:
        UnknownNameError: no such name; the nearest one is suggested.
        MsbenchError: no such file, or one that is no reference; the message names the place in it.
    """
    known = known_references()
    if _is_name(name_or_path) and name_or_path not in known:
        raise UnknownNameError("reference", name_or_path, known)
    path = reference_path(name_or_path)
    if not path.is_file():
        raise MsbenchError(f"no reference at {path}: write one with `msbench compare RUN --against {path} --update`")
    try:
        reference = replace(_FILE.validate_json(path.read_bytes().removeprefix(b"\xef\xbb\xbf")), name=name_or_path)
        _check(reference)
    except OSError as error:
        raise MsbenchError(f"{path} cannot be read ({error.strerror or error})") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:80] for part in first["loc"])
        raise MsbenchError(f"{path} is no reference of the gate: {f'{place}: ' if place else ''}{first['msg']}") from error
    except (UnknownNameError, ValueError) as error:
        raise MsbenchError(f"{path}: {error}") from error
    return reference


def _check(reference: GateReference) -> None:
    """What the fields' types do not say; raises ValueError or UnknownNameError that names the figure."""
    for figure in reference.figures:
        if figure.better != direction(figure.metric):
            raise ValueError(f"{figure.decoder} {figure.metric}: {figure.better} is not better, {direction(figure.metric)} is")
        if figure.metric in METRICS and figure.metric not in reference.metrics:
            raise ValueError(f"metrics does not say how {figure.metric} is computed")
    places = [(figure.decoder, figure.metric) for figure in reference.figures]
    if twice := [place for place in places if places.count(place) > 1]:
        raise ValueError(f"{' '.join(twice[0])} stands there twice")


def merge(old: GateReference, new: GateReference) -> GateReference:
    """`old` with the decoders of `new` put in place of its own; what no longer compares with `new`, `new` must hold itself.

    Raises:
        MsbenchError: figures of two protocols, sets of source files or definitions of a metric would stand in one file.
    """
    kept = [name for name in old.decoders if name not in new.decoders]
    fit = side_by_side(old.basis(), new.basis())
    if kept and (fit.quality or fit.definitions):
        raise MsbenchError(
            f"reference {new.name} also holds {', '.join(kept)}, under another protocol, of other source files or of metrics "
            "computed otherwise: run all of its decoders, or give another name"
        )
    if not kept:
        return new
    names = dict.fromkeys((*old.decoders, *new.decoders))
    figures = [figure for name in names for figure in (old if name in kept else new).of(name).values()]
    metrics, commands = {**old.metrics, **new.metrics}, {**old.commands, **new.commands}
    return replace(new, figures=tuple(figures), metrics=metrics, commands=commands)


def known_references() -> dict[str, Path]:
    """Every reference that has a bare name."""
    folders = [folder for folder in (_HERE / "regression", checkout_folder()) if folder is not None]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.json"))}


def _is_name(text: str) -> bool:
    return not text.endswith((".json", ".csv")) and "/" not in text and "\\" not in text
