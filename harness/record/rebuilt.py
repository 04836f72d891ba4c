"""The decoder of a row built again, for whoever computes something of it again."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from harness.decoder import Decoder
from harness.errors import MsbenchError
from harness.record.run import Run
from harness.record.schema import Result
from harness.request.requests import request_of

HASHES = ("weights_sha256", "encoder_sha256")
"""fields of a spec that say which weights a decoder has"""


def rebuild(
    run: Run, result: Result, dtype: torch.dtype = torch.float32, own: Mapping[str, str] | None = None
) -> Decoder | str:
    """The decoder of a row on the CPU in `dtype`, with `own` among its options; or why it cannot be built."""
    side = run.record.data.dataset.info.resolution
    asked = {name: value for name, value in result.options.items() if name != "dtype"} | dict(own or {})
    try:
        return request_of(result.label, result.decoder, asked).build(torch.device("cpu"), dtype, resolution=side)
    except MsbenchError as error:
        return f"the decoder cannot be built here: {error}"


def other_weights(run: Run, result: Result, built: Decoder) -> bool:
    """The decoder at hand has other weights than the run's, or comes from another file."""
    details = run.record.data.decoders[result.label]
    file = getattr(built, "source_sha256", details.source_sha256)
    return file != details.source_sha256 or any(getattr(details.spec, n) != getattr(built.spec, n) for n in HASHES)
