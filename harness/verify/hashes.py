"""Hashes of the run as a whole: protocol, schema, and the pixels of the saved references."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from harness.record.schema import SCHEMA_VERSION
from harness.verify.check import Check, same, unchecked
from harness.verify.opened import Opened
from harness.verify.pixels import read_png


def hash_checks(opened: Opened) -> list[Check]:
    """Protocol hash and schema."""
    data = opened.data
    text = json.dumps({"schema": 2, **data["protocol"]}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return [
        same("", "schema_version", data.get("schema_version"), SCHEMA_VERSION, "the version this msbench reads"),
        same("", "protocol_hash", data.get("protocol_hash"), digest, "SHA-256 over the protocol's fields"),
    ]


def reference_check(opened: Opened) -> Check:
    """Hash over keys and pixels of the saved references."""
    number, recorded = "dataset.reference_sha256", opened.data["dataset"].get("reference_sha256")
    if opened.images is None:
        return unchecked("", number, recorded, "needs the saved reference images")
    digest = hashlib.sha256()
    for key in opened.keys(next(iter(opened.rows))):
        path = opened.images / "reference" / f"{key}.png"
        if not path.is_file():
            return unchecked("", number, recorded, f"{path} is missing")
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(read_png(path)).tobytes())
    return same("", number, recorded, digest.hexdigest(), "SHA-256 over reference/*.png")
