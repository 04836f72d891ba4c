"""The decoder of a row built again, for whoever computes something of it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from harness.decoder import Decoder, DecoderOptions
from harness.errors import MsbenchError
from harness.record.run import Run
from harness.record.schema import Result
from harness.registry import build_decoder, find_entry

HASHES = ("weights_sha256", "encoder_sha256")
"""fields of a spec that say which weights a decoder has"""


def rebuild(result: Result, dtype: torch.dtype = torch.float32, own: Mapping[str, str] | None = None) -> Decoder | str:
    """The decoder of a row on the CPU, options of its own replaced by `own`; or why it cannot be built."""
    asked: dict[str, Any] = dict(result.options)
    checkpoint = Path(asked["checkpoint"]) if asked.get("checkpoint") else None
    try:
        if missing := set(own or {}) - set(find_entry(result.decoder)[0].own):
            return f"the decoder has no option {', '.join(missing)}"
        options = DecoderOptions(
            dtype=dtype, checkpoint=checkpoint, steps=asked.get("steps"), scales=asked.get("scales"), own=own or {}
        )
        return build_decoder(result.decoder, options)
    except MsbenchError as error:
        return f"the decoder cannot be built here: {error}"


def other_weights(run: Run, result: Result, built: Decoder) -> bool:
    """The decoder at hand has other weights than the run's."""
    spec = run.record.data.decoders[result.label].spec
    return any(getattr(spec, name) != getattr(built.spec, name) for name in HASHES)
