"""Made-up runs and references for the tests of the gate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.compare.gate import Tolerance, make_reference
from harness.compare.reference import GateReference
from harness.metrics.registry import METRICS
from harness.record.protocol import Protocol
from harness.record.record import Record

PROTOCOL = Protocol("photos", None, 256, "native-grid-crop-v1", None, 0, 0)
SIMPLE = {name: Tolerance(0.5, 0.0, "half a unit") for name in METRICS}
# Made up, in units in which half a unit is exact.
FIGURES = {"rfid": 200.0, "kid": 3.0, "psnr": 20.0, "ssim": 6.0, "lpips": 4.0, "spectral": 2.0, "latent_error": 1.0}
GOOD = {"rfid": -1, "kid": -1, "psnr": 1, "ssim": 1, "lpips": -1, "spectral": -1, "latent_error": -1}


def row(decoder: str = "vae", **changes: Any) -> dict[str, Any]:
    figures = {**FIGURES, "ms_per_image": {"1": 5.0}, "gflops": None, "parameters": 1000, **changes}
    return {"decoder": decoder, "dataset": "photos", "n": 2, **figures}


def record(*rows: dict[str, Any], protocol: Protocol = PROTOCOL, folder: str = "run", **changes: Any) -> Record:
    """A run that was never made; `changes`: source, pixels, weights, exact."""
    spec = {"weights_sha256": changes.get("weights", "w")}
    data = {
        "protocol": asdict(protocol),
        "protocol_hash": protocol.hash(),
        "results": list(rows or (row(),)),
        "decoders": {r["decoder"]: {"spec": spec, "psnr_exact_images": changes.get("exact", 0)} for r in rows or (row(),)},
        "dataset": {"source_sha256": changes.get("source", "s"), "reference_sha256": changes.get("pixels", "p")},
        "environment": {"msbench": "9.9"},
        "command": 'msbench run --decoder "a, b"',
    }
    return Record(Path(folder), data)


def reference(*rows: dict[str, Any], **changes: Any) -> GateReference:
    return make_reference([record(*rows, **changes)], SIMPLE, name="simple")
