"""Which runs may stand side by side: one protocol and one set of source files; for times also one machine and one setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from harness.record.record import Record


def incompatibility(first: Record, other: Record) -> str | None:
    """The fields that keep two runs apart, None where they compare."""
    if first.protocol_hash != other.protocol_hash:
        a, b = asdict(first.data.protocol), asdict(other.data.protocol)
        fields = [key for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
        return "; ".join(f"protocol field {key}: {a.get(key)!r} against {b.get(key)!r}" for key in fields) or "protocol hash"
    if first.data.dataset.source_sha256 != other.data.dataset.source_sha256:
        return "the source files (source_sha256)"
    return None


def pixel_warning(first: Record, other: Record) -> str | None:
    """A line where the same files gave other pixels."""
    if other.data.dataset.reference_sha256 == first.data.dataset.reference_sha256:
        return None
    return f"{other.folder}: same files, other pixels than {first.folder} (another image library version?)"


def time_incompatibility(first: Record, other: Record) -> str | None:
    """What keeps the times of two runs apart, None where they compare."""
    a, b = _time_facts(first), _time_facts(other)
    return "; ".join(f"{key} {a[key]!r} against {b[key]!r}" for key in a if a[key] != b[key]) or None


def _time_facts(record: Record) -> dict[str, Any]:
    setting = record.data.setting
    facts: Mapping[str, Any] = record.data.environment
    on_cpu = setting.device == "cpu"
    return {
        "device": setting.device,
        "dtype": setting.dtype,
        "mode": setting.mode,
        "processor": facts["cpu_model"] if on_cpu else [gpu["name"] for gpu in facts["gpus"]],
        "threads": facts["torch_threads"] if on_cpu else None,
        "torch": facts["torch"],
    }
