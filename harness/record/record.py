"""The record of a run, `record.json` in its folder: written from `RunData` and read back into it, every value checked."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from harness.data.types import DatasetInfo
from harness.errors import MsbenchError
from harness.files import write_text
from harness.metrics.registry import load_named
from harness.record.marks import row_marks, with_ratios
from harness.record.schema import SCHEMA_VERSION, Result, RunData

if TYPE_CHECKING:
    import pandas as pd

RECORD, SAMPLES = "record.json", "samples.parquet"


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """One run."""

    folder: Path
    """where it lies"""
    data: RunData
    """the content of record.json"""

    def __repr__(self) -> str:
        names = ", ".join(result.label for result in self.data.results) or "no results"
        images = f"{self.data.dataset.info.name}, n = {self.data.dataset.n_samples.effective}"
        return f"<Record {self.folder}: {names} on {images}, {self.data.status}>"

    @property
    def results(self) -> list[dict[str, Any]]:
        """One flat row per decoder, keys as in `--json`; missing numbers are None. Beside the record's own keys: `marks`, what
        a reader must know of it, `rfid_warning`, `rate_ratio` to the label `rate_baseline`, the first row with a rate, and
        under what it was measured: `protocol_hash`, `device`, `dtype`."""
        found = []
        setting = {"protocol_hash": self.protocol_hash, "device": self.data.setting.device, "dtype": self.data.setting.dtype}
        for result in self.data.results:
            details = self.data.decoders[result.label]
            marks = row_marks(result, details, self.data.dataset)
            own = {"dtype": result.options["dtype"]} if "dtype" in result.options else {}
            found.append({**as_row(result), "marks": marks, "rfid_warning": details.rfid_warning, **setting, **own})
        return with_ratios(found, next((row for row in found if row["rate"]), None))

    def rows_for_people(self) -> list[dict[str, Any]]:
        """`results` with the infinite PSNR of exact reconstructions put back, which JSON cannot hold."""
        exact = {label: details.psnr_exact_images for label, details in self.data.decoders.items()}
        return [{**row, "psnr": math.inf} if exact[row["label"]] == row["n"] else row for row in self.results]

    def to_frame(self) -> pd.DataFrame:
        """`rows_for_people` as a table, one row a decoder, under its label."""
        import pandas as pd

        return pd.DataFrame(self.rows_for_people()).set_index("label")

    @property
    def protocol_hash(self) -> str:
        """Hash of the protocol; equal hashes compare."""
        return self.data.protocol_hash

    def provenance(self) -> str:
        """One line that says how to get these figures again: protocol, machine, code and command.

        Absolute paths of the command are cut to their last part: the line is made to be published, the record keeps them whole.
        """
        facts: Mapping[str, Any] = self.data.environment
        on_cpu, count = self.data.setting.device == "cpu", facts["torch_threads"]
        machine = facts["cpu_model"] if on_cpu else ", ".join(gpu["name"] for gpu in facts["gpus"])
        threads = f", {count} thread{'' if count == 1 else 's'}" if on_cpu else ""
        commit = (facts["git"]["commit"] or "unknown")[:10] + (" with local changes" if facts["git"]["dirty"] else "")
        command = " ".join(f"…/{Path(word).name}" if word.startswith("/") else word for word in self.data.command.split(" "))
        return (
            f"Protocol `{self.protocol_hash}`, {self.data.date[:10]}, {machine}{threads}, torch {facts['torch']}, "
            f"msbench {facts['msbench']} ({commit}): `{command}`"
        )

    def as_json(self) -> dict[str, Any]:
        """The content of record.json in JSON types."""
        return flatten(self.data)

    def samples(self) -> pd.DataFrame:
        """The per-image values, one row per decoder, noise seed and image.

        Raises:
            MsbenchError: the file is missing or damaged.
        """
        import pandas as pd

        path = self.folder / SAMPLES
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise MsbenchError(f"{path} cannot be read ({error}): run it again") from error

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        return document([self])


def as_row(result: Result) -> dict[str, Any]:
    """One result flat, in JSON types: its metrics beside its other keys."""
    row: dict[str, Any] = {}
    for key, value in dataclasses.asdict(result).items():
        row |= value if key == "metrics" else {key: value}
    return plain(row)  # type: ignore[no-any-return]


def document(records: Sequence[Record]) -> dict[str, Any]:
    """One JSON document for one run or several of one protocol."""
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "complete" if all(record.data.status == "complete" for record in records) else "incomplete",
        "protocol_hash": records[0].protocol_hash,
        "results": [row for record in records for row in record.results],
        "warnings": [line for record in records for line in record.data.warnings],
    }


def write_record(folder: Path, data: RunData) -> Record:
    """Write record.json atomically; what is returned is as `read_record` gives it."""
    text = json.dumps(flatten(data), indent=1, allow_nan=False) + "\n"
    parsed = parse_record(text, folder / RECORD)
    write_text(folder / RECORD, text)
    return Record(folder, parsed)


def read_record(path: Path) -> Record:
    """Read a run by its folder or its record.json.

    Raises:
        MsbenchError: no record there, or not one of this schema; the message names the key and what was wanted. Or it holds
            the figures of another package's metric, which cannot be loaded.
    """
    folder = path.parent if path.name == RECORD else path
    file = folder / RECORD
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MsbenchError(f"{path} holds no {RECORD}: give the folder that `msbench run` printed") from error
    except (OSError, UnicodeDecodeError) as error:
        raise MsbenchError(f"{file} cannot be read ({error})") from error
    data = parse_record(text, file)
    load_named(data.metrics)
    return Record(folder, data)


def parse_record(text: str, file: Path) -> RunData:
    """The content of a record.

    Raises:
        MsbenchError: as `read_record`.
    """
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MsbenchError(f"{file} is not JSON ({error})") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        what = f"a record of schema {version}" if isinstance(version, int) else "no record of a run"
        raise MsbenchError(f"{file} is {what}: run it again with this version, which writes schema {SCHEMA_VERSION}")
    try:
        return _RUN_DATA.validate_json(json.dumps(nest(data)), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"] if part not in ("metrics", "info"))
        got = "" if first["type"] == "missing" else f", not {str(first['input'])[:60]!r}"
        raise MsbenchError(f"{file}: {key}: {first['msg']}{got}: run it again") from error


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


_RUN_DATA = TypeAdapter(RunData)
_INFO = tuple(field.name for field in dataclasses.fields(DatasetInfo))


def flatten(data: RunData) -> dict[str, Any]:
    """JSON types; metrics stand beside the other keys of their row, and what is known of the dataset beside its counts."""
    content: dict[str, Any] = plain(dataclasses.asdict(data))
    content["results"] = [as_row(result) for result in data.results]
    content["dataset"] |= content["dataset"].pop("info")
    return content


def nest(content: dict[str, Any]) -> dict[str, Any]:
    """The reverse of `flatten`; what has another form stays as it is, for the validator to name."""
    rows, dataset, metrics = content.get("results"), content.get("dataset"), content.get("metrics")
    if isinstance(rows, list) and isinstance(metrics, dict):
        nested = [{**row, "metrics": _part(row, metrics)} if isinstance(row, dict) else row for row in rows]
        content = {**content, "results": nested}
    if isinstance(dataset, dict):
        content = {**content, "dataset": {**dataset, "info": _part(dataset, _INFO)}}
    return content


def _part(values: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: values[key] for key in keys if key in values}


def plain(value: Any) -> Any:
    """JSON types only: numpy numbers become Python's, NaN and infinities None, paths strings."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
