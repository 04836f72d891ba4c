"""The record of a run: `record.json` and `samples.parquet` in one folder. Written atomically, read back with a check."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import MsbenchError
from harness.files import atomic_path, write_text
from harness.record.protocol import SCHEMA_VERSION

if TYPE_CHECKING:
    import pandas as pd

RECORD, SAMPLES = "record.json", "samples.parquet"


@dataclass(frozen=True, slots=True)
class Record:
    """One run."""

    folder: Path
    """where it lies"""
    data: dict[str, Any]
    """the content of record.json"""

    @property
    def results(self) -> list[dict[str, Any]]:
        """One row per decoder, keys as in `--json`; missing numbers are None. rfid_infinity is taken from details."""
        lines = {name: details.get("rfid_infinity") or {} for name, details in self.data["decoders"].items()}
        return [{**row, "rfid_infinity": lines[row["decoder"]].get("value")} for row in self.data["results"]]

    def rows_for_people(self) -> list[dict[str, Any]]:
        """`results` with the infinite PSNR of exact reconstructions put back, which JSON cannot hold."""
        exact = {name: details["psnr_exact_images"] for name, details in self.data["decoders"].items()}
        return [{**row, "psnr": math.inf} if exact[row["decoder"]] == row["n"] else row for row in self.results]

    @property
    def protocol_hash(self) -> str:
        """Hash of the protocol; equal hashes compare."""
        return str(self.data["protocol_hash"])

    def provenance(self) -> str:
        """One line that says how to get these figures again: protocol, machine, code and command.

        Absolute paths of the command are cut to their last part: the line is made to be published, the record keeps them whole.
        """
        facts, config = self.data["environment"], self.data["config"]
        machine = ", ".join(gpu["name"] for gpu in facts["gpus"]) if config["device"] != "cpu" else facts["cpu_model"]
        count = facts["torch_threads"]
        threads = f", {count} thread{'' if count == 1 else 's'}" if config["device"] == "cpu" else ""
        commit = (facts["git"]["commit"] or "unknown")[:10] + (" with local changes" if facts["git"]["dirty"] else "")
        return (
            f"Protocol `{self.protocol_hash}`, {self.data['date'][:10]}, {machine}{threads}, torch {facts['torch']}, "
            f"msbench {facts['msbench']} ({commit}): `{_without_places(self.data['command'])}`"
        )

    def samples(self) -> pd.DataFrame:
        """The per-image values: decoder, key, label, source_photo, psnr, ssim, lpips."""
        import pandas as pd

        return pd.read_parquet(self.folder / SAMPLES)

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        return document([self])


def _without_places(command: str) -> str:
    return " ".join(f"…/{Path(word).name}" if word.startswith("/") else word for word in command.split(" "))


def document(records: Sequence[Record]) -> dict[str, Any]:
    """One JSON document for one run or several of one protocol."""
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "complete" if all(record.data["status"] == "complete" for record in records) else "incomplete",
        "protocol_hash": records[0].protocol_hash,
        "results": [row for record in records for row in record.results],
    }


def write_record(folder: Path, data: Mapping[str, Any], samples: pd.DataFrame) -> Record:
    """Write both files; the record last, so that a folder with a record is complete."""
    with atomic_path(folder / SAMPLES) as temporary:
        samples.to_parquet(temporary, index=False)
    clean = plain(data)
    write_text(folder / RECORD, json.dumps(clean, indent=1, allow_nan=False) + "\n")
    return Record(folder, clean)


def read_record(path: Path) -> Record:
    """Read a run by its folder or its record.json.

    Raises:
        MsbenchError: no record there, not JSON, or of another schema.
    """
    folder = path.parent if path.name == RECORD else path
    file = folder / RECORD
    if not file.is_file():
        raise MsbenchError(f"{path} holds no {RECORD}: give the folder that `msbench run` printed")
    try:
        data = json.loads(file.read_text())
    except ValueError as error:
        raise MsbenchError(f"{file} is not JSON ({error})") from error
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
        raise MsbenchError(f"{file} is not a record of schema {SCHEMA_VERSION}; run it again with this version")
    return Record(folder, data)


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
